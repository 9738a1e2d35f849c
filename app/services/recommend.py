"""Recommend and predict: evidence → engine → slate, logged before it is returned."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from app.engine.answering import Answer, Indices, PartAnswer, Question
from app.engine.batching import QueueFull
from app.engine.catalogue import Shelf
from app.engine.deadline import DeadlinePassed, in_time
from app.engine.policies.choose import Plan, digest_of
from app.engine.policies.settings import Exploration
from app.engine.policies.slots import Choice
from app.engine.runtime import Snapshot
from app.engine.serving import Part, ServedDomain
from app.errors import Problem, invalid
from app.services import evidence
from app.services.evidence import Gathered, SupportEvent
from app.services.installation import Installation
from app.storage import slates
from app.storage.records import NewSlate, ShownItem
from app.telemetry import FALLBACKS, answer_seconds
from models.datasets.schema import Attributes

NOTHING: Indices = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Who:
    """The user asked about: a stored one, or the evidence given."""

    user_id: str | None = None
    attributes: Attributes = field(default_factory=dict)
    support: Sequence[SupportEvent] = ()
    pointer: str = "/support"
    """Where in the body the support stands, for error messages."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Which items may be recommended; see `app.api.requests.Filters`."""

    include_items: Sequence[str] | None = None
    exclude_items: Sequence[str] = ()
    exclude_slates: Sequence[str] = ()
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)
    exclude_seen: bool = True


NO_LIMITS = Limits()
RankBy = Literal["preference", "rating"]
"""`preference`: what the user would choose and like; `rating`: what they would rate highest, whether or not they would
ever choose it. The first is the second where nothing in the domain knows better."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What list is wanted."""

    k: int = 10
    limits: Limits = NO_LIMITS
    exploration: Exploration | None = None
    """None: as the domain is set to."""
    rank_by: RankBy = "preference"
    explain: bool = False
    seed: int | None = None
    """Of the policy's chances; None: one that nobody can foresee."""
    allow_fallback: bool = True
    """Whether an answer without any checkpoint is better than none."""


async def recommend(
    installation: Installation, domain_name: str, who: Who, wish: Wish, *, domain_pointer: str = "/domain"
) -> dict[str, Any]:
    """A slate of up to k items with everything about how it came to be.

    `domain_pointer` says where in the request the domain is named. Raises Problem: validation-error for an unknown
    domain or a value off its scale, timestamp-out-of-range, overloaded, model-unavailable.
    """
    started = time.perf_counter()
    snapshot, domain = await _domain(installation, domain_name, domain_pointer, wish.allow_fallback)
    by_rating = wish.rank_by == "rating" or not domain.has_ranking
    async with _gathered(installation, snapshot, domain, who) as gathered:
        blocked, only = await _allowed(installation, snapshot, domain, gathered, wish.limits)
        plan = await installation.policies.plan(domain, wish.exploration, wish.seed)
        question = Question(
            domain, gathered.known, gathered.support_size, wish.k, blocked, only, gathered.states, by_rating, plan
        )
        answer = await _ask(installation, question)
        await evidence.remember(installation, snapshot, domain, gathered, [part.state for part in answer.parts])
    in_time()
    now = time.time()
    slate_id = slates.new_slate_id(now)
    parts = _parts(domain, answer, gathered)
    items = domain.shelf.items
    local, mean = answer.local.tolist(), answer.mean.tolist()
    choice = answer.choice
    propensities: Sequence[float | None] = (choice and choice.propensities) or [None] * len(local)
    explored = choice.explored if choice else [False] * len(local)
    shown = [
        ShownItem(items[i].key, items[i].item_id, score, propensity, new)
        for i, score, propensity, new in zip(local, mean, propensities, explored, strict=True)
    ]
    wait = installation.policies.of(domain_name).reward_wait_seconds
    await installation.log_slate(
        NewSlate(
            slate_id=slate_id,
            user_key=gathered.user.key if gathered.user else None,
            domain_key=installation.domains[domain_name].key,
            created_at=now,
            policy=_policy(plan, choice)
            | {"catalogue": snapshot.catalogue.revision, "open": open_digest(blocked, only)},
            items=shown,
            parts=[{name: p[name] for name in ("role", "digest", "weight", "ranking_weight")} for p in parts],
            settle_at=None if wait is None else now + wait,
        )
    )
    source = _source(domain, gathered)
    answer_seconds(domain_name, gathered.support_size, source).observe(time.perf_counter() - started)
    installation.shadows.offer(question)
    stds = [None] * len(local) if answer.std is None else [round(s, 4) for s in answer.std.tolist()]
    return {
        "slate_id": slate_id,
        "domain": domain_name,
        "items": [
            {
                "item_id": items[i].item_id,
                "title": items[i].title,
                "score": round(score, 4),
                "std": std,
                "propensity": propensities[place],
                "explored": explored[place],
                "why": _why(domain, answer, place) if wish.explain else None,
            }
            for place, (i, score, std) in enumerate(zip(local, mean, stds, strict=True))
        ],
        "ranked_by": "rating" if by_rating else "preference",
        "parts": parts,
        "schedule": domain.schedule,
        "exploration": _told(plan, choice),
        "ignored": gathered.ignored,
        "fallback": domain.fallback,
    }


def _source(domain: ServedDomain, gathered: Gathered) -> str:
    """What an answer was made from: trained states of the cache, states adapted now, or neither."""
    if domain.fallback:
        return "fallback"
    return "cache" if gathered.states and all(state is not None for state in gathered.states) else "adapted"


def _policy(plan: Plan | None, choice: Choice | None) -> dict[str, Any]:
    """The policy of a slate with its settings and all that it takes to choose the same again, for the log."""
    if plan is None or choice is None:
        return {"policy": "greedy"}
    return plan.settings.parameters() | choice.log


def open_digest(blocked: Indices, only: Indices | None) -> str | None:
    """What tells whether two slates of one catalogue revision were chosen from the same items; None: from all."""
    if only is None and not len(blocked):
        return None
    return digest_of(np.unique(blocked)) + ("" if only is None else "+" + digest_of(only))


def _told(plan: Plan | None, choice: Choice | None) -> dict[str, Any]:
    """The policy of a slate, for the caller."""
    if plan is None or choice is None:
        return {"policy": "greedy", "propensity_valid": False}
    log = choice.log
    told = {"policy": plan.settings.policy, "propensity_valid": choice.propensities is not None, "seed": log["seed"]}
    return told | {"samples": log["samples"]} if "samples" in log else told


async def predict(
    installation: Installation, domain_name: str, who: Who, item_ids: Sequence[str], allow_fallback: bool = True
) -> dict[str, Any]:
    """Ratings to expect of the items, in their order.

    Raises Problem: unknown-item for an item nobody has added, validation-error as `recommend`, overloaded,
    model-unavailable.
    """
    snapshot, domain = await _domain(installation, domain_name, allow_fallback=allow_fallback)
    local = [domain.shelf.local_of.get(item_id) for item_id in item_ids]
    unknown = [f"/items/{i}" for i, found in enumerate(local) if found is None]
    if unknown:
        raise Problem("unknown-item", "The items at these places are not in the catalogue.", pointers=unknown[:20])
    at = np.array(local, dtype=np.int64)
    async with _gathered(installation, snapshot, domain, who) as gathered:
        question = Question(
            domain, gathered.known, gathered.support_size, 0, NOTHING, at, gathered.states, by_rating=True
        )
        answer = await _ask(installation, question)
        await evidence.remember(installation, snapshot, domain, gathered, [part.state for part in answer.parts])
    installation.shadows.offer(question)
    stds = [None] * len(at) if answer.std is None else [round(s, 4) for s in answer.std.tolist()]
    return {
        "domain": domain_name,
        "predictions": [
            {"item_id": item_id, "rating": round(rating, 4), "std": std}
            for item_id, rating, std in zip(item_ids, answer.mean.tolist(), stds, strict=True)
        ],
        "parts": _parts(domain, answer, gathered),
        "schedule": domain.schedule,
        "ignored": gathered.ignored,
        "fallback": domain.fallback,
    }


async def _domain(
    installation: Installation, name: str, pointer: str = "/domain", allow_fallback: bool = True
) -> tuple[Snapshot, ServedDomain]:
    snapshot = await installation.fresh(as_asked=True)
    if name not in snapshot.domains:
        raise invalid(pointer, "no domain has that name")
    if snapshot.domains[name].fallback:
        if not allow_fallback:
            raise Problem("model-unavailable")
        FALLBACKS.labels(name).inc()
        snapshot = await installation.refresh_counts(name)
    return snapshot, snapshot.domains[name]


@asynccontextmanager
async def _gathered(
    installation: Installation, snapshot: Snapshot, domain: ServedDomain, who: Who
) -> AsyncIterator[Gathered]:
    """The evidence, for as long as it takes to answer and to remember the states that were made for that."""
    if who.user_id is None:
        yield evidence.from_request(snapshot, domain.shelf.domain.name, who.support, who.attributes, who.pointer)
        return
    gathered = await evidence.from_storage(installation, snapshot, domain, who.user_id)
    try:
        yield gathered
    finally:
        evidence.let_go(installation, gathered)


async def _ask(installation: Installation, question: Question) -> Answer:
    domain, started = question.domain.shelf.domain.name, time.perf_counter()
    try:
        answer = await installation.batcher.ask(question)
        installation.probation.answered(domain, time.perf_counter() - started)
        return answer
    except DeadlinePassed:
        raise
    except QueueFull:
        raise Problem("overloaded", "Too many requests wait for an answer; try again in a moment.") from None
    except Exception:
        installation.probation.failed(domain)
        raise


async def _allowed(
    installation: Installation, snapshot: Snapshot, domain: ServedDomain, gathered: Gathered, limits: Limits
) -> tuple[Indices, Indices | None]:
    """(local indices that must not appear, those to choose from or None for all)."""
    shelf = domain.shelf
    blocked = [gathered.seen] if limits.exclude_seen else []
    if limits.exclude_items:
        blocked.append(locals_of(shelf, limits.exclude_items))
    if limits.exclude_slates:
        async with installation.database.read() as connection:
            shown = await slates.get(connection, limits.exclude_slates)
        known = {item.item_id for slate in shown.values() for item in slate.items}
        blocked.append(locals_of(shelf, sorted(known)))
    only = None if limits.include_items is None else np.unique(locals_of(shelf, limits.include_items))
    for attribute, values in limits.where.items():
        having = shelf.where(attribute, values)
        only = having if only is None else np.intersect1d(only, having)
    return (np.concatenate(blocked) if blocked else NOTHING), only


def locals_of(shelf: Shelf, item_ids: Sequence[str]) -> Indices:
    """Local indices of those of the items that are on the shelf."""
    return np.array([shelf.local_of[item_id] for item_id in item_ids if item_id in shelf.local_of], dtype=np.int64)


def _parts(domain: ServedDomain, answer: Answer, gathered: Gathered) -> list[dict[str, Any]]:
    told = []
    for p, (part, share) in enumerate(zip(domain.parts, answer.parts, strict=True)):
        state = share.state
        cached = bool(gathered.states) and gathered.states[p] is not None
        adaptation = state and {
            "support_size": state.support_size,
            "loss_before": _rounded(state.loss_before),
            "loss_after": _rounded(state.loss_after),
            "cached": cached,
        }
        told.append(
            {
                "role": part.role,
                "recommender": part.served.recommender.name,
                "checkpoint": part.served.name or None,
                "digest": part.served.digest or None,
                "weight": round(share.weight, 6),
                "ranking_weight": round(share.ranking_weight, 6),
                "adaptation": adaptation,
                "transfer": _transfer(domain, part, share, gathered) if part.role == "transfer" else None,
            }
        )
    return told


def _transfer(domain: ServedDomain, part: Part, share: PartAnswer, gathered: Gathered) -> dict[str, Any]:
    """What a transfer carried over, and what that was worth to people of whom as much was known."""
    source_size = domain.source_size(gathered.known.positions)
    bucket = domain.blend and domain.blend.bucket(gathered.support_size, source_size)
    gain, ranking_gain = (bucket.transfer_gain, bucket.transfer_ranking_gain) if bucket else (None, None)
    return {
        "used": source_size > 0 and (share.weight > 0 or share.ranking_weight > 0),
        "sources": part.sources,
        "source_size": source_size,
        "gain": gain and gain.model_dump(),
        "ranking_gain": ranking_gain and ranking_gain.model_dump(),
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 4)


def _why(domain: ServedDomain, answer: Answer, place: int) -> list[dict[str, Any]]:
    return [
        {"role": part.role, "weight": round(share.weight, 6), "score": round(float(share.mean[place]), 4)}
        for part, share in zip(domain.parts, answer.parts, strict=True)
        if share.mean is not None
    ]

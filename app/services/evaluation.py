"""What a policy or a checkpoint would have earned, from the service's own log, and the gate before a promotion.

Slates of stored users are replayed: with the evidence on the user as it was when the slate was made, among the items
that were open to them. A slate cannot be replayed whose user is not stored, or that was chosen from other items than
all those its user had not met: nobody could say what else might have been shown.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.engine.replay import PastSlate, best_left, log_of
from app.engine.runtime import Snapshot
from app.engine.serving import Served, ServedDomain
from app.errors import Problem, invalid
from app.services import evidence
from app.services.installation import Installation
from app.services.recommend import open_digest
from app.storage import evaluations, users
from app.storage.database import Connection
from app.storage.evaluations import Judged
from app.storage.records import StoredUser, microseconds
from models.evaluation.ope import Comparison, Evaluation, Log, compare, evaluate
from models.recommender import Role

BATCH = 64
"""Slates that are replayed together."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of the log is evaluated, and as what."""

    limit: int = 10_000
    """Newest slates that are read."""
    places: int = 1
    """First places of each slate that count; the more, the less of the log is like what a policy would do."""
    epsilon: float | None = None
    """Share of the places that the evaluated policy fills at random; None: as the domain is set to."""
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Gate:
    """What a candidate has to show before it is promoted."""

    scope: Scope
    margin: float = 0.0
    """How much less than what is in service it may earn at the most, a place."""
    effective_samples: float = 100.0
    """Places that the log has to be worth, for either of the two."""


@dataclass
class Earned:
    """What one logging policy earned with the first places of its slates."""

    slates: int = 0
    judged: int = 0
    """Places with a reward, given or by default."""
    reward: float = 0.0
    """Their sum."""


@dataclass(frozen=True)
class Verdict:
    """What the log says of what is in service, and of a candidate beside it."""

    epsilon: float
    earned: dict[str, Earned]
    """By logging policy."""
    replayed: int
    """Slates that could be."""
    present: Evaluation | None
    """None where nothing was replayed whose propensity is known."""
    candidate: Evaluation | None
    comparison: Comparison | None

    def told(self) -> dict[str, Any]:
        """The same for the caller."""
        policies = [
            {
                "policy": name,
                "slates": one.slates,
                "judged": one.judged,
                "reward": round(one.reward / one.judged, 6) if one.judged else None,
            }
            for name, one in sorted(self.earned.items())
        ]
        beside = self.comparison and {name: round(value, 6) for name, value in asdict(self.comparison).items()}
        return {
            "epsilon": self.epsilon,
            "policies": policies,
            "replayed": self.replayed,
            "present": self.present and _value(self.present),
            "candidate": self.candidate and _value(self.candidate),
            "comparison": beside,
        }


async def evaluate_log(
    installation: Installation, domain: str, scope: Scope, candidate: tuple[Role, Served] | None = None
) -> Verdict:
    """What the domain as it is served earns by the log, and what it would with a checkpoint in a role.

    Raises Problem: validation-error for an unknown domain.
    """
    snapshot = await installation.fresh()
    if domain not in snapshot.domains:
        raise invalid("/domain", "no domain has that name")
    domains = [snapshot.domains[domain]]
    if candidate is not None:
        domains.append(await asyncio.to_thread(installation.runtime.with_candidate, domain, *candidate))
    settings = installation.policies.of(domain)
    epsilon = settings.exploration.mixed_in if scope.epsilon is None else scope.epsilon
    # Where nobody waits for rewards, a place without one has earned the default.
    default = settings.default_reward if settings.reward_wait_seconds is None else None
    earned, slates = await _read(installation, snapshot, domain, scope, default)
    present, *others = await asyncio.to_thread(_logs, domains, slates, epsilon)
    if not present.valid.any():
        return Verdict(epsilon, earned, len(slates), None, None, None)
    mine = await asyncio.to_thread(evaluate, present, level=scope.confidence)
    if not others:
        return Verdict(epsilon, earned, len(slates), mine, None, None)
    (log,) = others
    theirs = await asyncio.to_thread(evaluate, log, level=scope.confidence)
    beside = await asyncio.to_thread(compare, log, present, confidence=scope.confidence)
    return Verdict(epsilon, earned, len(slates), mine, theirs, beside)


async def pass_gate(installation: Installation, domain: str, role: Role, served: Served, gate: Gate) -> None:
    """Return where the log shows that a checkpoint earns no less than what is in service.

    Raises Problem: too-few-samples, gate-not-passed.
    """
    found = (await evaluate_log(installation, domain, gate.scope, (role, served))).comparison
    samples = found.effective_samples if found else 0.0
    if found is None or samples < gate.effective_samples:
        raise Problem(
            "too-few-samples",
            "The checkpoint in service goes on answering; more exploration or fewer places would say more.",
            effective_samples=round(samples, 1),
            needed=gate.effective_samples,
            missing=round(gate.effective_samples - samples, 1),
        )
    if found.low < -gate.margin:
        raise Problem(
            "gate-not-passed",
            "The checkpoint in service goes on answering.",
            difference=round(found.difference, 6),
            low=round(found.low, 6),
            confidence=gate.scope.confidence,
            effective_samples=round(samples, 1),
        )


async def _read(
    installation: Installation, snapshot: Snapshot, domain: str, scope: Scope, default: float | None
) -> tuple[dict[str, Earned], list[PastSlate]]:
    """What the logging policies earned, and the slates that can be replayed."""
    earned: dict[str, Earned] = {}
    found: list[PastSlate] = []
    async with installation.database.read(snapshot=True) as connection:
        async for page in evaluations.newest(connection, installation.domains[domain].key, scope.limit):
            keys = {judged.slate.user_key for judged in page if judged.slate.user_key is not None}
            people = await evaluations.owners(connection, sorted(keys))
            for judged in page:
                rewards = _rewards(judged, scope.places, default)
                policy = earned.setdefault(judged.slate.policy["policy"], Earned())
                policy.slates += 1
                policy.judged += sum(reward is not None for reward in rewards)
                policy.reward += sum(reward or 0.0 for reward in rewards)
                user = people.get(judged.slate.user_key or 0)
                if user is not None and rewards:
                    found += await _past(installation, connection, snapshot, domain, user, judged, rewards)
    return earned, found


def _rewards(judged: Judged, places: int, default: float | None) -> list[float | None]:
    """Rewards of the first places; None where nothing came of one yet."""
    given = judged.rewards
    shown = judged.slate.items[:places]
    return [given[item.item_key] / 1e6 if item.item_key in given else default for item in shown]


async def _past(
    installation: Installation,
    connection: Connection,
    snapshot: Snapshot,
    domain: str,
    user: StoredUser,
    judged: Judged,
    rewards: Sequence[float | None],
) -> list[PastSlate]:
    """The slate as it can be replayed, or nothing."""
    slate, catalogue = judged.slate, snapshot.catalogue
    moment = (microseconds(slate.created_at), 0)
    events = await users.history(connection, user.key, installation.settings.max_history, moment)
    gathered = evidence.of_events(snapshot, domain, events, user.attributes)
    if slate.policy.get("open") != open_digest(gathered.seen, None):
        return []
    shown = slate.items[: len(rewards)]
    if any(item.item_key not in catalogue.position_of for item in shown):
        return []
    return [
        PastSlate(
            user.key,
            gathered.known,
            gathered.support_size,
            gathered.seen,
            [int(catalogue.local[catalogue.position_of[item.item_key]]) for item in shown],
            [float("nan") if item.propensity is None else item.propensity for item in shown],
            [float("nan") if reward is None else reward for reward in rewards],
        )
    ]


def _logs(domains: Sequence[ServedDomain], slates: Sequence[PastSlate], epsilon: float) -> list[Log]:
    """The log as each domain's policy sees it; the same rows in all of them."""
    made = []
    for domain in domains:
        best: list[list[int]] = []
        for start in range(0, len(slates), BATCH):
            best += best_left(domain, slates[start : start + BATCH])
        made.append(log_of(domain, slates, best, epsilon))
    return made


def _value(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "estimates": [
            {
                "estimator": one.estimator,
                "clip": one.clip,
                "value": round(one.value, 6),
                "low": round(one.low, 6),
                "high": round(one.high, 6),
            }
            for one in evaluation.estimates
        ],
        "places": evaluation.n,
        "invalid_share": round(evaluation.invalid_share, 6),
        "effective_samples": round(evaluation.effective_samples, 2),
    }

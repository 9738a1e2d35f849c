"""From questions to answers: adapt, score, blend, filter, choose. Everything here runs on the batch, in one thread."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.engine.mixture import Mixture
from app.engine.policies.choose import Plan, choose
from app.engine.policies.slots import Choice
from app.engine.serving import Part, Served, ServedDomain
from models.blend import mix, per_score
from models.datasets.schema import Attributes
from models.recommender import Evidence, Scores

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one user: interactions, oldest first, and attributes."""

    positions: Indices
    """(L,) catalogue positions."""
    values: Floats
    """(L,) ratings, or the ratings that other events stand for."""
    weights: Floats
    """(L,) 1 for a rating, the kind's weight for another event."""
    times: NDArray[np.float64]
    """(L,) Unix seconds, NaN where unknown."""
    kinds: Sequence[str]
    """(L) names of kinds."""
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class UserState:
    """What `adapt` made of a user, and how well it explains their own ratings."""

    state: Tensor
    """(S,) on the CPU."""
    support_size: int
    """Interactions that it was made from."""
    loss_before: float | None
    """Mean squared error on the support under the state without evidence; None where there is no support."""
    loss_after: float | None
    """The same under the adapted state."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request, in the engine's terms. `local` indices are those of the domain's shelf."""

    domain: ServedDomain
    known: Known
    support_size: int
    """Interactions in the domain asked about: what the blend goes by."""
    k: int
    """Items wanted; 0 asks for the scores of all of `only` in their order."""
    blocked: Indices
    """Local indices that must not appear."""
    only: Indices | None = None
    """Local indices to choose from; None: all."""
    states: Sequence[UserState | None] = ()
    """Cached states, one per part; empty: none are."""
    by_rating: bool = False
    """Whether the list is ordered by the expected rating, even where a part is there for the order."""
    plan: Plan | None = None
    """How to explore; None: the best items, best first."""


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """What one part contributed."""

    weight: float
    """In the rating to expect."""
    ranking_weight: float
    """In the order of the list."""
    state: UserState | None
    """None where both weights were 0 and it was not asked."""
    mean: Floats | None
    """Its own score of each item of the answer, counted from its centre."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Items chosen for one question, best first (or in the order asked)."""

    local: Indices
    mean: Floats
    """On the domain's scale, clipped to it."""
    std: Floats | None
    parts: Sequence[PartAnswer] = field(default_factory=tuple)
    choice: Choice | None = None
    """How a policy chose the items; None where they are the best."""


@torch.no_grad()
def answer(questions: Sequence[Question]) -> list[Answer]:
    """Answers in the order of the questions; those about one domain are computed together."""
    groups: dict[int, list[int]] = {}
    for i, question in enumerate(questions):
        groups.setdefault(id(question.domain), []).append(i)
    answers: list[Answer | None] = [None] * len(questions)
    for group in groups.values():
        for i, made in zip(group, _answer_together([questions[i] for i in group]), strict=True):
            answers[i] = made
    return [made for made in answers if made is not None]


def _answer_together(questions: list[Question]) -> list[Answer]:
    domain = questions[0].domain
    amounts = [(question.support_size, domain.source_size(question.known.positions)) for question in questions]
    weights = [domain.weights(*amount) for amount in amounts]
    orders = [
        rating if question.by_rating else domain.ranking_weights(*amount)
        for question, rating, amount in zip(questions, weights, amounts, strict=True)
    ]
    asked = [p for p in range(len(domain.parts)) if any(row[p] > 0 for row in (*weights, *orders))]
    padded = Padded.of([question.known for question in questions])
    adapted = {p: _adapt(domain.parts[p], domain, [_cached(q, p) for q in questions], padded) for p in asked}
    device = adapted[asked[0]].means.device
    share, order = (
        torch.tensor([[row[p] for p in asked] for row in rows], device=device) for rows in (weights, orders)
    )
    centres = [domain.centres(*amount) for amount in amounts]
    centre = torch.tensor([[row[p] for p in asked] for row in centres], device=device)  # (B, P)
    means = [adapted[p].means for p in asked]
    if domain.has_ranking:
        by_rating = torch.tensor([question.by_rating for question in questions], device=device)
        order = torch.where(by_rating[:, None], share, per_score(order, means))
    ranking = mix([Scores(mean) for mean in means], order).mean  # (B, n)
    chosen = _choose(ranking, domain, questions)
    choices: list[Choice | None] = [None] * len(questions)
    if any(question.plan is not None for question in questions):
        shares, of_asked = order.tolist(), [domain.parts[p] for p in asked]
        mixtures = [
            Mixture(of_asked, [adapted[p].states[b : b + 1] for p in asked], shares[b]) for b in range(len(questions))
        ]
        choices = _explore(ranking, domain, questions, chosen, mixtures)
        chosen = [best if choice is None else choice.local for best, choice in zip(chosen, choices, strict=True)]
    # Only what was chosen is worth a standard deviation, which can cost more than all the means.
    index = _padded_index(chosen, device)  # (B, K)
    union, place = torch.unique(index, return_inverse=True)  # (U,), (B, K)
    scores = [adapted[p].scores(domain.parts[p], union) for p in asked]
    mixed = mix(scores, share, centre)
    low, high = domain.shelf.domain.rating_min, domain.shelf.domain.rating_max
    mean = mixed.mean.gather(1, place).clamp(low, high).cpu().numpy()
    std = None if mixed.std is None else mixed.std.gather(1, place).cpu().numpy()
    own = {p: part.mean.gather(1, place).cpu().numpy() for p, part in zip(asked, scores, strict=True)}
    answers = []
    for b, local in enumerate(chosen):
        n = len(local)
        parts = [
            PartAnswer(weight, order, adapted[p].users[b], own[p][b, :n] - np.float32(centres[b][p]))
            if weight > 0 or order > 0
            else PartAnswer(0.0, 0.0, None, None)
            for p, (weight, order) in enumerate(zip(weights[b], orders[b], strict=True))
        ]
        spread = None if std is None else std[b, :n] * np.float32(domain.std_scale(*amounts[b]))
        answers.append(Answer(local, mean[b, :n], spread, parts, choices[b]))
    return answers


def _padded_index(chosen: Sequence[Indices], device: torch.device) -> Tensor:
    index = np.zeros((len(chosen), max(len(local) for local in chosen)), np.int64)
    for b, local in enumerate(chosen):
        index[b, : len(local)] = local
    return torch.from_numpy(index).to(device)


def _cached(question: Question, part: int) -> UserState | None:
    return question.states[part] if question.states else None


@dataclass(frozen=True)
class Padded:
    """Evidence of several users as (B, L) tensors of catalogue positions."""

    positions: Tensor
    values: Tensor
    weights: Tensor
    times: Tensor
    kinds: list[Sequence[str]]
    attributes: list[Attributes]

    @classmethod
    def of(cls, users: Sequence[Known]) -> "Padded":
        """What is known of each user."""
        shape = (len(users), max(len(known.positions) for known in users))
        positions = np.zeros(shape, np.int64)
        values, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        times = np.full(shape, np.nan)
        for b, known in enumerate(users):
            n = len(known.positions)
            positions[b, :n], values[b, :n] = known.positions, known.values
            weights[b, :n], times[b, :n] = known.weights, known.times
        return cls(
            torch.from_numpy(positions),
            torch.from_numpy(values),
            torch.from_numpy(weights),
            torch.from_numpy(times),
            [known.kinds for known in users],
            [known.attributes for known in users],
        )

    def for_table(self, served: Served) -> Evidence:
        """Evidence in the rows of a recommender's table; interactions in domains that it does not know are left out."""
        recommender, device = served.recommender, served.table.domain.device
        index = {kind: i for i, kind in enumerate(recommender.schema.kinds)}
        kinds = torch.zeros_like(self.positions)
        for b, names in enumerate(self.kinds):
            for i, name in enumerate(names):
                if name != "rating":
                    kinds[b, i] = index.get(name, 0)
        encoder = recommender.schema.user_attributes
        attributes = (
            encoder.encode(self.attributes)
            if any(self.attributes)
            else torch.zeros(len(self.attributes), encoder.width)
        )
        rows = served.row_of[self.positions.to(device)] if self.positions.numel() else self.positions.to(device)
        evidence = Evidence(rows, *(t.to(device) for t in (self.values, self.weights, kinds, self.times, attributes)))
        return _without_strangers(evidence) if bool((rows < 0).any()) else evidence


def _without_strangers(evidence: Evidence) -> Evidence:
    """The evidence without interactions whose row is -1, still padded at the end only."""
    keep = evidence.mask & (evidence.items >= 0)
    order = torch.argsort(~keep, dim=1, stable=True)[:, : int(keep.sum(1).max())]
    kept = keep.gather(1, order)
    return Evidence(
        items=evidence.items.gather(1, order) * kept,
        values=evidence.values.gather(1, order) * kept,
        weights=evidence.weights.gather(1, order) * kept,
        kinds=evidence.kinds.gather(1, order) * kept,
        times=evidence.times.gather(1, order).where(kept, torch.nan),
        attributes=evidence.attributes,
    )


@dataclass(frozen=True)
class _Adapted:
    """What one part makes of a batch of users."""

    states: Tensor
    """(B, S)."""
    means: Tensor
    """(B, n) expected ratings of the whole shelf."""
    users: list[UserState]

    def scores(self, part: Part, local: Tensor) -> Scores:
        """Scores (B, U) of a few items, with standard deviations."""
        rows = local if part.rows is None else part.rows[local]
        return part.served.recommender.score(self.states, part.served.table, rows)


def _adapt(part: Part, domain: ServedDomain, cached: list[UserState | None], padded: Padded) -> _Adapted:
    recommender, table = part.served.recommender, part.served.table
    found = [state for state in cached if state is not None]
    if len(found) == len(cached):
        states = torch.stack([state.state for state in found]).to(table.domain.device)
        return _Adapted(states, recommender.means(states, table, part.rows), found)
    evidence = padded.for_table(part.served)
    states = recommender.adapt(evidence, table, part.target)  # (B, S)
    means = recommender.means(states, table, part.rows)  # (B, n)
    before, after = _support_losses(part, domain, evidence, padded, means)
    on_cpu = states.cpu()
    sizes = evidence.mask.sum(1).tolist()
    made = [
        UserState(on_cpu[b], sizes[b], before[b], after[b]) if state is None else state
        for b, state in enumerate(cached)
    ]
    return _Adapted(states, means, made)


def _support_losses(
    part: Part, domain: ServedDomain, evidence: Evidence, padded: Padded, means: Tensor
) -> tuple[list[float | None], list[float | None]]:
    """Mean squared error on each user's support in this domain, under the empty and under the adapted state."""
    recommender, table = part.served.recommender, part.served.table
    size, length = padded.positions.shape
    if recommender.kind != "rating" or length == 0:
        nothing: list[float | None] = [None] * size
        return nothing, nothing
    positions = padded.positions.numpy()
    mask = (padded.weights.numpy() > 0) & (domain.catalogue.shelf_of[positions] == domain.shelf.number)
    local = torch.from_numpy(np.where(mask, domain.catalogue.local[positions], 0)).to(means.device)  # (B, L)
    if any(padded.attributes):
        newcomers = recommender.adapt(evidence.emptied(), table, part.target)
        baseline = recommender.means(newcomers, table, part.rows)  # (B, n)
    else:
        baseline = part.newcomer_means.expand(size, -1)
    counted = torch.from_numpy(mask).to(local.device)
    counts = counted.sum(1)
    values = padded.values.to(local.device)

    def loss(predicted: Tensor) -> list[float | None]:
        mean = ((predicted - values).square() * counted).sum(1) / counts.clamp(min=1)
        return [m if n else None for m, n in zip(mean.tolist(), counts.tolist(), strict=True)]

    return loss(baseline.gather(1, local)), loss(means.gather(1, local))


def _choose(mean: Tensor, domain: ServedDomain, questions: list[Question]) -> list[Indices]:
    """Local indices of each answer: those asked for, or the best that are open, best first."""
    k = max((question.k for question in questions), default=0)
    ranked: list[Indices] = []
    if k:
        open_ = _closed(mean, domain, questions)
        best = _best(open_, k)
        counts = torch.isfinite(open_.gather(1, best)).sum(1).tolist()
        ranked = [row[:n] for row, n in zip(best.cpu().numpy(), counts, strict=True)]
    return [
        ranked[b][: question.k] if question.k or question.only is None else question.only
        for b, question in enumerate(questions)
    ]


def _best(scores: Tensor, k: int) -> Tensor:
    """Places (B, k) of the highest of the scores (B, n), highest first; of equal ones the item that was there first."""
    n = scores.shape[1]
    top = torch.topk(scores, min(k + 1, n), dim=1)
    if k < n and ((top.values[:, k - 1] == top.values[:, k]) & torch.isfinite(top.values[:, k])).any():
        return scores.argsort(dim=1, descending=True, stable=True)[:, :k]  # equal ones on either side of the cut
    first = top.indices[:, :k].sort(dim=1).values
    return first.gather(1, scores.gather(1, first).argsort(dim=1, descending=True, stable=True))


def _explore(
    mean: Tensor, domain: ServedDomain, questions: list[Question], greedy: list[Indices], mixtures: list[Mixture]
) -> list[Choice | None]:
    """How each slate was chosen where the question has a plan for that."""
    open_ = _closed(mean, domain, questions)
    return [
        choose(question.plan, open_[b], greedy[b], mixtures[b], question.by_rating or not domain.has_ranking)
        if question.plan is not None
        else None
        for b, question in enumerate(questions)
    ]


def _closed(mean: Tensor, domain: ServedDomain, questions: list[Question]) -> Tensor:
    """The scores (B, n) with minus infinity where an item must not be recommended."""
    blocked = np.concatenate([question.blocked for question in questions])
    rows = np.repeat(np.arange(len(questions)), [len(question.blocked) for question in questions])
    open_ = mean.clone()
    open_[torch.from_numpy(rows).to(mean.device), torch.from_numpy(blocked).to(mean.device)] = -torch.inf
    for b, question in enumerate(questions):
        if question.only is not None:
            others = torch.ones(mean.shape[1], dtype=torch.bool, device=mean.device)
            others[torch.from_numpy(question.only).to(mean.device)] = False
            open_[b, others] = -torch.inf
    if len(domain.shelf.unavailable):
        open_[:, torch.from_numpy(domain.shelf.unavailable).to(mean.device)] = -torch.inf
    return open_

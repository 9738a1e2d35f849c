"""From questions to answers: adapt, score, blend, filter, choose. Everything here runs on the batch, in one thread."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.engine.serving import Part, ServedDomain
from models.blend import mix
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


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """What one part contributed."""

    weight: float
    state: UserState | None
    """None where its weight was 0 and it was not asked."""
    mean: Floats | None
    """Its own score of each item of the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Items chosen for one question, best first (or in the order asked)."""

    local: Indices
    mean: Floats
    """On the domain's scale, clipped to it."""
    std: Floats | None
    parts: Sequence[PartAnswer] = field(default_factory=tuple)


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
    weights = [domain.weights(question.support_size) for question in questions]
    asked = [p for p in range(len(domain.parts)) if any(row[p] > 0 for row in weights)]
    states: dict[int, list[UserState]] = {}
    scores: dict[int, Scores] = {}
    padded = _Padded.of(questions)
    for p in asked:
        part = domain.parts[p]
        states[p], scores[p] = _adapt_and_score(part, domain, questions, [_cached(q, p) for q in questions], padded)
    share = torch.tensor([[row[p] for p in asked] for row in weights], device=scores[asked[0]].mean.device)
    calibrations = [domain.blend.parts[p].calibration if domain.blend else None for p in asked]
    mixed = mix([scores[p] for p in asked], share, calibrations) if len(asked) > 1 else scores[asked[0]]
    chosen = _choose(mixed.mean, domain, questions)
    low, high = domain.shelf.domain.rating_min, domain.shelf.domain.rating_max
    answers = []
    for b, (question, local) in enumerate(zip(questions, chosen, strict=True)):
        std = None if mixed.std is None else _at(mixed.std[b], local) * domain.std_scale(question.support_size)
        parts = [
            PartAnswer(weights[b][p], states[p][b], _at(scores[p].mean[b], local))
            if p in scores
            else PartAnswer(0.0, None, None)
            for p in range(len(domain.parts))
        ]
        answers.append(Answer(local, np.clip(_at(mixed.mean[b], local), low, high), std, parts))
    return answers


def _at(row: Tensor, local: Indices) -> Floats:
    values: Floats = row[torch.from_numpy(local).to(row.device)].cpu().numpy()
    return values


def _cached(question: Question, part: int) -> UserState | None:
    return question.states[part] if question.states else None


@dataclass(frozen=True)
class _Padded:
    """The questions' evidence as (B, L) tensors of catalogue positions."""

    positions: Tensor
    values: Tensor
    weights: Tensor
    times: Tensor
    kinds: list[Sequence[str]]
    attributes: list[Attributes]

    @classmethod
    def of(cls, questions: Sequence[Question]) -> "_Padded":
        length = max(len(question.known.positions) for question in questions)
        shape = (len(questions), length)
        positions = np.zeros(shape, np.int64)
        values, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        times = np.full(shape, np.nan)
        for b, question in enumerate(questions):
            known, n = question.known, len(question.known.positions)
            positions[b, :n], values[b, :n] = known.positions, known.values
            weights[b, :n], times[b, :n] = known.weights, known.times
        return cls(
            torch.from_numpy(positions),
            torch.from_numpy(values),
            torch.from_numpy(weights),
            torch.from_numpy(times),
            [question.known.kinds for question in questions],
            [question.known.attributes for question in questions],
        )

    def for_part(self, part: Part) -> Evidence:
        """Evidence in the rows of a part's table; interactions in domains that it does not know are left out."""
        recommender, device = part.served.recommender, part.served.table.domain.device
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
        rows = part.served.row_of[self.positions.to(device)] if self.positions.numel() else self.positions.to(device)
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


def _adapt_and_score(
    part: Part, domain: ServedDomain, questions: list[Question], cached: list[UserState | None], padded: _Padded
) -> tuple[list[UserState], Scores]:
    recommender, table = part.served.recommender, part.served.table
    found = [state for state in cached if state is not None]
    if len(found) == len(questions):
        states = torch.stack([state.state for state in found]).to(table.domain.device)
        return found, recommender.score(states, table, part.rows)
    evidence = padded.for_part(part)
    states = recommender.adapt(evidence, table, part.target)  # (B, S)
    scores = recommender.score(states, table, part.rows)  # (B, n)
    before, after = _support_losses(part, domain, evidence, padded, scores)
    on_cpu = states.cpu()
    sizes = evidence.mask.sum(1).tolist()
    made = [
        UserState(on_cpu[b], int(sizes[b]), before[b], after[b]) if state is None else state
        for b, state in enumerate(cached)
    ]
    return made, scores


def _support_losses(
    part: Part, domain: ServedDomain, evidence: Evidence, padded: _Padded, scores: Scores
) -> tuple[list[float | None], list[float | None]]:
    """Mean squared error on each user's support in this domain, under the empty and under the adapted state."""
    nothing: list[float | None] = [None] * evidence.batch_size
    if part.served.recommender.kind != "rating" or padded.positions.shape[1] == 0:
        return nothing, nothing
    catalogue = domain.catalogue
    device = scores.mean.device
    positions = padded.positions.numpy()
    mask = (padded.weights.numpy() > 0) & (catalogue.shelf_of[positions] == domain.shelf.number)
    local = np.where(mask, catalogue.local[positions], 0)
    rated, inverse = np.unique(local, return_inverse=True)
    rows = torch.from_numpy(rated).to(device)
    rows = rows if part.rows is None else part.rows[rows]
    table = part.served.table
    empty = part.served.recommender.adapt(evidence.emptied(), table, part.target)
    baseline = part.served.recommender.score(empty, table, rows).mean  # (B, U)
    at = torch.from_numpy(local).to(device)
    weight = torch.from_numpy(mask).to(device)
    value = padded.values.to(device)

    def loss(predicted: Tensor) -> list[float | None]:
        squared = ((predicted - value).square() * weight).sum(1)
        count = weight.sum(1)
        mean = (squared / count.clamp(min=1)).tolist()
        return [m if n else None for m, n in zip(mean, count.tolist(), strict=True)]

    before = loss(baseline.gather(1, torch.from_numpy(inverse.reshape(local.shape)).to(device)))
    return before, loss(scores.mean.gather(1, at))


def _choose(mean: Tensor, domain: ServedDomain, questions: list[Question]) -> list[Indices]:
    """Local indices of each answer."""
    largest = max((min(q.k + len(q.blocked), mean.shape[1]) for q in questions if q.k and q.only is None), default=0)
    ranked: Indices | None = None
    if largest:
        open_ = mean
        if len(domain.shelf.unavailable):
            closed = torch.from_numpy(domain.shelf.unavailable).to(mean.device)
            open_ = mean.index_fill(1, closed, -torch.inf)
        top = torch.topk(open_, largest, dim=1)
        top_index = top.indices.cpu().numpy()
        finite = torch.isfinite(top.values).sum(1).tolist()
        ranked = top_index
    chosen: list[Indices] = []
    for b, question in enumerate(questions):
        if question.k == 0 and question.only is not None:
            chosen.append(question.only)
        elif question.only is not None:
            allowed = np.setdiff1d(question.only, np.concatenate([question.blocked, domain.shelf.unavailable]))
            order = np.argsort(-_at(mean[b], allowed), kind="stable")[: question.k]
            chosen.append(allowed[order])
        else:
            assert ranked is not None
            row = ranked[b, : finite[b]]
            if len(question.blocked):
                row = row[~np.isin(row, question.blocked)]
            chosen.append(row[: question.k])
    return chosen

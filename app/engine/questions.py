"""Which items to ask a newcomer about: those whose ratings would tell most, given the answers so far.

    worth_i = P(u knows i) · Σ_j w_j (φ_i' C φ_j)² / (σ_i² + φ_i' C φ_i),    w_j ∝ P(u knows j)

The sum is by how much the variances of the user's tastes fall, over the catalogue that they may meet, once the rating
of i is known; C is the covariance of a Gaussian posterior (Rubens et al., "Active learning in recommender systems",
2015: A-optimality). A rating is had only from somebody who knows the item, and answers tell who that is: each "don't
know" makes items like it, and items that few have met, less likely (`models.exposure`). Several questions are chosen
one after the other, each as if those before it had been answered.

Without a posterior: what many know, and unlike what was asked before (Carbonell and Goldstein, SIGIR 1998).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.engine.answering import Indices, Known, Padded
from app.engine.serving import Part, ServedDomain
from models.exposure import Exposure

DRAWS = 256
"""Joint draws that stand for a posterior without a closed form."""


@dataclass(frozen=True)
class Rule:
    """Constants of the rule: of those that `python -m benchmarks.questions --choose` compares on validation users of
    MovieLens-1M, the ones with the best order of what is foretold."""

    crowd: float = 1.0
    """Exponent of P(u knows j) in w_j: 0 counts every item of the catalogue alike."""
    level: float = 0.5
    """Share in which the common level of a user's ratings counts, beside what sets items apart."""


RULE = Rule()


@dataclass(frozen=True, slots=True)
class Query:
    """Who is to be asked, in the engine's terms."""

    domain: ServedDomain
    known: Known
    support_size: int
    """Interactions in the domain asked about."""
    answered: Indices
    """Local indices of items with an interaction."""
    skipped: Indices
    """Local indices of items that the user does not know."""
    n: int
    counts: NDArray[np.float64]
    """(n, 3) live counts by local index: ratings, their sum, events."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An item to ask about."""

    local: int
    chance: float | None
    """P(u knows it); None where the domain has no part that tells."""
    reduction: float | None
    """Share of the variance left by the questions before it that its rating would remove."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What to ask, in order, and which part says so."""

    asked: Sequence[Asked]
    part: Part | None
    """None: the items are popular and diverse, for no part has a joint posterior."""


@torch.no_grad()
def choose_questions(query: Query, rule: Rule = RULE) -> Questions:
    """The questions to put next; fewer than n where nothing is left to ask."""
    closed = np.concatenate([query.answered, query.skipped, query.domain.shelf.unavailable])
    part = _asking(query)
    if part is None:
        return Questions(_popular_and_diverse(query, closed), None)
    recommender, table = part.served.recommender, part.served.table
    state = recommender.adapt(Padded.of([query.known]).for_table(part.served), table, part.target)  # (1, S)
    generator = torch.Generator().manual_seed(0)
    root = recommender.taste_root(state, table, DRAWS, generator, part.rows)[0].cpu()  # (n, r)
    scores = recommender.score(state, table, part.rows)
    std = scores.taste_std if scores.std is None else scores.std
    variance = root.square().sum(1) if std is None else std[0].square().cpu()
    noise = (variance - root.square().sum(1)).clamp(min=1e-3)
    known = np.unique(query.answered)
    unknown = np.setdiff1d(query.skipped, known)
    chance = _exposure(query, part).chances(torch.from_numpy(known), torch.from_numpy(unknown))
    return Questions(most_telling(root, noise, chance, closed, query.n, rule), part)


def most_telling(root: Tensor, noise: Tensor, chance: Tensor, closed: Indices, n: int, rule: Rule) -> list[Asked]:
    """The rule itself: `root` (N, r) with root root' the covariance of tastes, `noise` (N,) the variance of a rating
    around the taste, `chance` (N,), and the local indices that must not be asked about."""
    crowd = chance.pow(rule.crowd)
    crowd = crowd / crowd.sum()
    middle = crowd @ root  # (r,)
    total = (root.mT * crowd) @ root - (1 - rule.level) * torch.outer(middle, middle)  # (r, r)
    left = torch.eye(root.shape[1])  # root left root' is the covariance that answers leave
    open_ = torch.ones(len(root), dtype=torch.bool)
    open_[torch.from_numpy(closed)] = False
    asked: list[Asked] = []
    for _ in range(min(n, int(open_.sum()))):
        spread = root @ left  # (N, r)
        falls = (spread @ total * spread).sum(1) / (noise + (spread * root).sum(1))  # (N,)
        i = int((chance * falls).masked_fill(~open_, -torch.inf).argmax())
        remaining = float((left * total).sum())
        share = float(falls[i]) / remaining if remaining > 0 else 0.0
        asked.append(Asked(i, float(chance[i]), min(max(share, 0.0), 1.0)))
        left = left - torch.outer(spread[i], spread[i]) / (noise[i] + spread[i] @ root[i])
        open_[i] = False
    return asked


def _asking(query: Query) -> Part | None:
    """The part whose posterior questions go by: one with a closed form if there is one, else the one that will weigh
    most once the questions are answered."""
    source_size = query.domain.source_size(query.known.positions)
    weights = query.domain.weights(query.support_size + query.n, source_size)
    able = [
        (part.served.recommender.exposure(part.served.table, part.rows) is not None, weight, -place)
        for place, (part, weight) in enumerate(zip(query.domain.parts, weights, strict=True))
        if part.served.recommender.draws_jointly
    ]
    return query.domain.parts[-max(able)[2]] if able else None


def _exposure(query: Query, part: Part) -> Exposure:
    """Who knows what, from the part that asks; else the live counts, beside those of the item that most people met."""
    learnt = part.served.recommender.exposure(part.served.table, part.rows)
    if learnt is not None:
        return Exposure(learnt.share.cpu(), learnt.loadings.cpu())
    share = _popularity(query).float()
    return Exposure(share, share.new_zeros(len(share), 0))


def _popularity(query: Query) -> Tensor:
    """(n,) events of each item beside the most of any, one more of both; 1/2 each where nothing has come in."""
    events = torch.from_numpy(query.counts[:, 2])
    return (1 + events) / (2 + events.max()) if len(events) else events


def _popular_and_diverse(query: Query, closed: Indices) -> list[Asked]:
    """Each the best by how popular it is, less how like it is to what was asked before."""
    rows = query.domain.content_rows  # (n, F)
    newcomer = query.domain.newcomer_order  # (n,) breaks ties of popularity
    worth = _popularity(query) + 1e-3 * newcomer
    open_ = torch.ones(len(rows), dtype=torch.bool)
    open_[torch.from_numpy(closed)] = False
    told = torch.from_numpy(np.concatenate([query.answered, query.skipped]))
    likeness = (rows @ rows[told].T).amax(1) if len(told) else torch.zeros(len(rows))
    asked: list[Asked] = []
    for _ in range(min(query.n, int(open_.sum()))):
        i = int((worth - likeness).masked_fill(~open_, -torch.inf).argmax())
        asked.append(Asked(i, None, None))
        likeness = torch.maximum(likeness, rows @ rows[i])
        open_[i] = False
    return asked

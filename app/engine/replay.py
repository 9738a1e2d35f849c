"""Slates of the log beside what a domain, as it is or as it would be, puts there: what off-policy evaluation needs.

A policy is evaluated that puts the best of what is left into a place, and in a share ε of the places an item drawn
uniformly from what is left. So the probability of the item that was shown is ε / m + (1 - ε) [it is the best of the m
left], exactly. Places weigh by the product of the ratios up to them, and so do the expectations of the doubly robust
estimate (Jiang and Li, "Doubly robust off-policy value evaluation for reinforcement learning", ICML 2016).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.engine.answering import Indices, Known, Question, answer
from app.engine.serving import ServedDomain
from models.evaluation.ope import Log, cross_fitted


@dataclass(frozen=True, slots=True)
class PastSlate:
    """The first places of a slate, and what was known when it was made."""

    user: int
    """Whose it was: slates of one user stand or fall together."""
    known: Known
    support_size: int
    seen: Indices
    """Local indices that it could not show."""
    shown: list[int]
    """Local indices of the items of its places."""
    propensities: list[float]
    """NaN where the policy could not say."""
    rewards: list[float]
    """NaN where nothing came of the place yet."""


def best_left(domain: ServedDomain, slates: Sequence[PastSlate]) -> list[list[int]]:
    """For each place of each slate the item that the domain would put there, given the places before; -1 for none."""
    questions = [Question(domain, s.known, s.support_size, len(s.shown), s.seen) for s in slates]
    found = []
    for slate, made in zip(slates, answer(questions), strict=True):
        order = made.local.tolist()
        found.append([next((i for i in order if i not in slate.shown[:j]), -1) for j in range(len(slate.shown))])
    return found


def log_of(domain: ServedDomain, slates: Sequence[PastSlate], best: Sequence[Sequence[int]], epsilon: float) -> Log:
    """The log as a policy sees it that takes `best` but for a share `epsilon`: a row for each place with a reward."""
    n_items = len(domain.shelf.items)
    available = np.ones(n_items)
    available[domain.shelf.unavailable] = 0
    predictions = _predictions(slates, n_items)  # (2, n)
    rows: list[tuple[float, float, float, int, float, float]] = []
    for slate, wanted in zip(slates, best, strict=True):
        open_ = available.copy()
        open_[slate.seen] = 0
        q = predictions[slate.user % 2]
        propensity = target = before = 1.0
        for place, item in enumerate(slate.shown):
            left = max(float(open_.sum()), 1.0)
            propensity *= slate.propensities[place]
            target *= epsilon * open_[item] / left + (1 - epsilon) * (item == wanted[place])
            greedy = float(q[wanted[place]]) if wanted[place] >= 0 else 0.0
            expected = before * (epsilon * float(open_ @ q) / left + (1 - epsilon) * greedy)
            reward = slate.rewards[place]
            if not np.isnan(reward):
                rows.append((reward, propensity, target, slate.user, float(q[item]), expected))
            before = target / propensity if propensity > 0 else np.nan
            open_[item] = 0
    columns = np.array(rows, np.float64).reshape(-1, 6).T
    rewards, propensities, targets, groups, predicted, expected_ = columns
    return Log(rewards, propensities, targets, groups.astype(np.int64), predicted, expected_)


def _predictions(slates: Sequence[PastSlate], n_items: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Mean rewards of items (2, n), each half of the users by the other half's slates."""
    told = [
        (item, reward, slate.user)
        for slate in slates
        for item, reward in zip(slate.shown, slate.rewards, strict=True)
        if not np.isnan(reward)
    ]
    items, rewards, groups = (np.array(column) for column in zip(*told, strict=True)) if told else [np.empty(0)] * 3
    return cross_fitted(items.astype(np.int64), rewards.astype(np.float64), groups.astype(np.int64), n_items)

"""The policies: from the scores of a catalogue to a slate. Each is a function that makes what `fill` goes by."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.engine.policies import slots
from app.engine.policies.arms import Arms
from app.engine.policies.linear import LinearArms, context
from app.engine.policies.settings import Exploration, Policy
from app.engine.policies.slots import Base, Choice, Drawn, Indices, Ranked

Floats = NDArray[np.float32]


class Taste(Protocol):
    """What a policy may ask about one user. All of it is on the domain's rating scale."""

    @property
    def has_posterior(self) -> bool:
        """Whether there are any `deviations`."""

    def spread(self, local: Indices) -> Floats | None:
        """Standard deviation (m,) that more evidence would remove, of some items; None where nobody knows it."""

    def deviations(self, n: int, local: Indices, generator: torch.Generator) -> Floats:
        """Joint draws (n, m) of how far from the mean is what the user thinks of some items."""

    def state(self) -> tuple[str, Floats]:
        """(digest, state) of the part that weighs most."""


@dataclass(frozen=True)
class Plan:
    """How one slate is to be chosen, with what its policy has to know beside the scores."""

    settings: Exploration
    seed: int
    arms: Arms
    scale: tuple[float, float]
    """Lowest and highest rating of the domain."""
    linear: dict[str, LinearArms] = field(default_factory=dict)
    """Matrices by the digest of their checkpoint."""
    item_keys: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    """(n,) storage's key of each item, by which matrices know it."""


@dataclass(frozen=True)
class _Situation:
    """One slate to fill."""

    plan: Plan
    mean: Floats
    """(n,) scores; minus infinity where an item must not be recommended."""
    greedy: Indices
    """The slate that greedy would give."""
    taste: Taste
    generator: np.random.Generator
    log: dict[str, Any]
    scale: tuple[float, float]
    """What scores lie between."""

    @property
    def k(self) -> int:
        """Places to fill."""
        return len(self.greedy)

    @property
    def draws(self) -> int:
        """Joint draws wanted: one a place, and those behind the propensities."""
        return self.k + self.plan.settings.samples

    def unit(self, mean: Floats) -> Floats:
        """Scores brought to 0..1."""
        low, high = self.scale
        return (mean - np.float32(low)) / np.float32(max(high - low, 1e-9))

    def best(self, index: Floats, items: Indices | None = None) -> Ranked:
        """Places go to the items with the largest index, which belongs to `items`, or to all."""
        top = _top(index, self.k)
        return Ranked((top if items is None else items[top]).tolist())

    def candidates(self) -> Indices:
        """The open items among which the policy chooses: half by score, half by score and how little they were shown.

        The bonus grows with all that is shown, so that an item that never is comes in one day, new ones at once.
        """
        n_open = int(np.count_nonzero(self.mean > -np.inf))
        size = max(self.plan.settings.candidates, 2 * self.k)
        if n_open <= size:
            chosen = np.flatnonzero(self.mean > -np.inf)
        else:
            by_score = _top(self.mean, size - size // 2)
            index = self.unit(self.mean) + self.plan.arms.bonus
            index[by_score] = -np.inf
            chosen = np.sort(np.concatenate([by_score, _top(index, size // 2)]))
        self.log["candidates_chosen"] = {"n": len(chosen), "digest": digest_of(chosen)}
        return chosen


def choose(plan: Plan, mean: Tensor, greedy: Indices, taste: Taste, rates: bool = True) -> Choice:
    """The slate of a policy. `mean` is (n,), minus infinity where an item must not be recommended.

    `rates`: whether the scores are ratings; else they lie between the lowest and the highest of them. The same seed,
    scores and arms give the same slate.
    """
    log: dict[str, Any] = {"seed": plan.seed}
    if not len(greedy):  # nothing is open
        return Choice(greedy, [], [], log)
    scores = mean.cpu().numpy()
    scale = plan.scale if rates else _range(scores)
    generator = np.random.default_rng(plan.seed)
    situation = _Situation(plan, scores, greedy, taste, generator, log, scale)
    base = _BASES[plan.settings.policy](situation)
    return slots.fill(base, len(greedy), plan.settings.mixed_in, scores > -np.inf, greedy, generator, log)


def digest_of(local: Indices) -> str:
    """What tells whether two sets of items, given in ascending order, are the same."""
    return hashlib.blake2b(local.tobytes(), digest_size=8).hexdigest()


def _range(scores: Floats) -> tuple[float, float]:
    open_ = scores[scores > -np.inf]
    return float(open_.min()), float(open_.max())


def _greedy(situation: _Situation) -> Base:
    return Ranked(situation.greedy.tolist())


def _ucb(situation: _Situation) -> Base:
    """The score and a bonus for what is not known: mean + scale · std, or unit score + scale · sqrt(2 ln N / n_i)."""
    settings = situation.plan.settings
    bonus = settings.bonus
    if bonus == "auto":
        bonus = "posterior" if situation.taste.has_posterior else "count"
    situation.log["bonus"] = bonus
    if bonus == "count":
        return situation.best(situation.unit(situation.mean) + settings.scale * situation.plan.arms.bonus)
    items = situation.candidates()
    spread = situation.taste.spread(items)
    mean = situation.mean[items]
    return situation.best(mean if spread is None else mean + settings.scale * spread, items)


def _thompson(situation: _Situation) -> Base:
    """Joint draws of the recommender's posterior; without one, each arm's own belief, which begins at the score."""
    settings, arms = situation.plan.settings, situation.plan.arms
    items = situation.candidates()
    if situation.taste.has_posterior:
        situation.log["posterior"] = "recommender"
        seeded = torch.Generator().manual_seed(situation.plan.seed)
        moved = situation.taste.deviations(situation.draws, items, seeded)
        return Drawn(items, situation.mean[items] + np.float32(settings.scale) * moved, situation.k)
    situation.log["posterior"] = settings.arms
    prior = situation.unit(situation.mean[items]).clip(0.01, 0.99).astype(np.float64)
    strength, judged, rewards = settings.prior_strength, arms.judged[items], arms.rewards[items]
    shape = (situation.draws, len(items))
    if settings.arms == "beta":
        won = rewards.clip(0, judged)
        alpha = (strength * prior + won) / max(settings.scale, 1e-3) ** 2
        beta = (strength * (1 - prior) + judged - won) / max(settings.scale, 1e-3) ** 2
        return Drawn(items, situation.generator.beta(alpha, beta, shape).astype(np.float32), situation.k)
    mean = (strength * prior + rewards) / (strength + judged)
    std = settings.scale * _NORMAL_STD / np.sqrt(strength + judged)
    noise = situation.generator.standard_normal(shape, dtype=np.float32)
    return Drawn(items, (mean + std * noise).astype(np.float32), situation.k)


_NORMAL_STD = 0.5
"""Of one reward, for `normal` arms: the most that one from 0 to 1 can have."""


def _linear(situation: _Situation) -> tuple[Indices, Floats, Floats]:
    """(candidates, expected reward, its standard deviation) under the linear model of each arm."""
    plan = situation.plan
    digest, state = situation.taste.state()
    x = context(digest, state)
    situation.log["context"] = {"digest": digest, "x": x}
    items = situation.candidates()
    model = plan.linear.get(digest) or LinearArms(len(x))
    mean, std = model.predict(plan.item_keys[items], np.array(x))
    expected = situation.unit(situation.mean[items]) + mean
    return items, expected.astype(np.float32), (plan.settings.scale * std).astype(np.float32)


def _lin_ucb(situation: _Situation) -> Base:
    items, expected, std = _linear(situation)
    return situation.best(expected + std, items)


def _lin_thompson(situation: _Situation) -> Base:
    """θ_i · x is drawn, a number an arm: arms are independent, so these draws are joint."""
    items, expected, std = _linear(situation)
    noise = situation.generator.standard_normal((situation.draws, len(items)), dtype=np.float32)
    return Drawn(items, expected + std * noise, situation.k)


_BASES: dict[Policy, Callable[[_Situation], Base]] = {
    "greedy": _greedy,
    "epsilon_greedy": _greedy,
    "ucb": _ucb,
    "thompson": _thompson,
    "lin_ucb": _lin_ucb,
    "lin_thompson": _lin_thompson,
}


def _top(index: Floats, k: int) -> Indices:
    """Places of the k largest, the largest first."""
    top: Indices = torch.topk(torch.from_numpy(index), k).indices.numpy()
    return top

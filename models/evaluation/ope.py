"""Off-policy evaluation: what a policy would have earned, from the log of another one that knew its propensities.

With w = π(a|x) / p the weight of an action a that was logged with propensity p and reward r, q a prediction of the
reward and v = Σ_a π(a|x) q(x, a):

    IPS     Σ w r / n                            unbiased (Horvitz and Thompson 1952)
    SNIPS   Σ w r / Σ w                          a little biased, less variance (Swaminathan and Joachims, NeurIPS 2015)
    DR      Σ [v + w (r - q)] / n                unbiased whatever q is (Dudík et al., ICML 2011)

and each with weights clipped at M, min(w, M), which trades a bias towards what was logged for variance (Bottou et al.,
JMLR 2013). Intervals come from a bootstrap over groups: rows of one group (the places of a slate, the slates of a user)
stand or fall together. How much such a log says is its effective sample size, (Σ w)² / Σ w² (Kong 1992).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.evaluation.significance import CHUNK, N_RESAMPLES

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Estimator = Literal["ips", "snips", "dr"]
ESTIMATORS: tuple[Estimator, ...] = ("ips", "snips", "dr")
CLIP = 10.0
"""Largest weight of the clipped variants."""


@dataclass(frozen=True)
class Log:
    """n actions that were logged, as a policy under evaluation sees them."""

    rewards: Floats
    """(n,)."""
    propensities: Floats
    """(n,) of the logged action under the policy that logged it; NaN where it is not known."""
    targets: Floats
    """(n,) of the same action under the policy that is evaluated."""
    groups: Ints
    """(n,) what a row stands or falls with."""
    predicted: Floats
    """(n,) q of the logged action; zeros where nothing predicts rewards, and DR is IPS."""
    expected: Floats
    """(n,) v: what the evaluated policy would earn if q were right."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(n,) whether the propensity is a probability above 0."""
        return np.isfinite(self.propensities) & (self.propensities > 0) & (self.propensities <= 1)

    def usable(self) -> "Log":
        """The rows whose propensity is valid."""
        return self.rows(self.valid)

    def rows(self, index: NDArray[np.bool_] | Ints) -> "Log":
        """Some of the rows."""
        return Log(**{name: values[index] for name, values in vars(self).items()})

    def weights(self, clip: float | None = None) -> Floats:
        """w (n,), at most `clip`."""
        weights: Floats = self.targets / self.propensities
        return weights if clip is None else np.minimum(weights, clip)


@dataclass(frozen=True)
class Estimate:
    """The value of a policy: reward per logged action."""

    estimator: Estimator
    clip: float | None
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """What a log says of a policy."""

    estimates: Sequence[Estimate]
    n: int
    """Actions with a valid propensity."""
    invalid_share: float
    """Share of the log without one; they say nothing and are left out."""
    effective_samples: float
    logged_value: float
    """What the logging policy earned on the same rows."""

    def of(self, estimator: Estimator, clip: float | None = None) -> Estimate:
        """One of the estimates. Raises StopIteration for one that was not made."""
        return next(e for e in self.estimates if (e.estimator, e.clip) == (estimator, clip))


def effective_samples(weights: Floats) -> float:
    """(Σ w)² / Σ w²: rows of equal weight that would say as much; 0 where no row has any weight.

    >>> effective_samples(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def evaluate(
    log: Log, *, clip: float | None = CLIP, level: float = 0.95, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Evaluation:
    """Every estimate with its interval; with `clip`, the clipped variants too. Raises ValueError for an empty log."""
    used = log.usable()
    if not len(used.rewards):
        raise ValueError("no row of the log has a valid propensity")
    clips = [None] if clip is None else [None, clip]
    asked = [(estimator, c) for c in clips for estimator in ESTIMATORS]
    estimates = []
    for estimator, c in asked:
        value, resampled = _resampled(used, estimator, c, seed, n_resamples)
        low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
        estimates.append(Estimate(estimator, c, value, float(low), float(high)))
    return Evaluation(
        estimates,
        len(used.rewards),
        float(1 - log.valid.mean()),
        effective_samples(used.weights()),
        float(used.rewards.mean()),
    )


@dataclass(frozen=True)
class Comparison:
    """What one policy would have earned more than another, on the same log."""

    difference: float
    low: float
    """Lower end of a one-sided interval of the confidence asked for."""
    effective_samples: float
    """The smaller of the two policies'."""


def compare(
    candidate: Log,
    present: Log,
    *,
    estimator: Estimator = "dr",
    clip: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Comparison:
    """Candidate less present; both logs have the same rows but for `targets` and `expected`.

    Paired: the same resamples for both. Raises ValueError where no row has a valid propensity.
    """
    one, other = candidate.usable(), present.usable()
    if not len(one.rewards):
        raise ValueError("no row of the log has a valid propensity")
    (value, resampled), (base, rebased) = (_resampled(log, estimator, clip, seed, n_resamples) for log in (one, other))
    samples = min(effective_samples(one.weights(clip)), effective_samples(other.weights(clip)))
    return Comparison(value - base, float(np.quantile(resampled - rebased, 1 - confidence)), samples)


def cross_fitted(actions: Ints, rewards: Floats, groups: Ints, n_actions: int, strength: float = 10.0) -> Floats:
    """q (2, n_actions): shrunken mean rewards of each action, for rows of even and of odd groups.

    Learnt from the other half each, for a prediction that has seen its own row would make DR biased.
    """
    predictions = np.zeros((2, n_actions))
    for half in (0, 1):
        others = groups % 2 != half
        mean = float(rewards[others].mean()) if others.any() else 0.0
        total = np.bincount(actions[others], rewards[others], n_actions)
        count = np.bincount(actions[others], minlength=n_actions)
        predictions[half] = (total + strength * mean) / (count + strength)
    return predictions


def without_predictions(log: Log) -> Log:
    """The log with q = 0, on which DR is IPS."""
    nothing = np.zeros(len(log.rewards))
    return replace(log, predicted=nothing, expected=nothing)


def _resampled(log: Log, estimator: Estimator, clip: float | None, seed: int, n_resamples: int) -> tuple[float, Floats]:
    """(the estimate, estimates on resamples of the groups): each is a ratio of two sums over rows."""
    weights = log.weights(clip)
    above = log.expected + weights * (log.rewards - log.predicted) if estimator == "dr" else weights * log.rewards
    below = weights if estimator == "snips" else np.ones(len(weights))
    _, group = np.unique(log.groups, return_inverse=True)
    n = int(group.max()) + 1
    totals, sizes = np.bincount(group, above, n), np.bincount(group, below, n)
    generator, shares = np.random.default_rng(seed), np.full(n, 1 / n)
    made = []
    for start in range(0, n_resamples, CHUNK):
        times = generator.multinomial(n, shares, size=min(CHUNK, n_resamples - start)).astype(np.float64)
        made.append(times @ totals / np.maximum(times @ sizes, 1e-12))
    return float(totals.sum() / max(sizes.sum(), 1e-12)), np.concatenate(made)

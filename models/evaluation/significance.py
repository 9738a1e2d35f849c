"""Paired bootstrap over users: is one recommender better than another, or were the users kind to it?

Users are resampled, with everything they were asked, because the ratings of one user stand or fall together; both
recommenders are measured on the same resample, so what the users have in common cancels (Efron & Tibshirani 1993,
chapter 16; Sakai, SIGIR 2006).
"""

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from models.evaluation.metrics import Floats, Ints

N_RESAMPLES = 2000
CHUNK = 200
"""Resamples drawn and added up at a time, which bounds memory."""

Statistic = Literal["root_mean", "mean"]


class Interval(BaseModel):
    """A difference, recommender minus baseline, with its confidence interval."""

    model_config = ConfigDict(frozen=True)

    difference: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def per_user(users: Ints, totals: Floats, counts: Floats) -> tuple[Ints, Floats, Floats]:
    """(users, their totals, their counts): tasks of one user added up, users ascending."""
    unique, inverse = np.unique(users, return_inverse=True)
    size = len(unique)
    return (
        unique,
        np.bincount(inverse, totals, size).astype(np.float64),
        np.bincount(inverse, counts, size).astype(np.float64),
    )


def paired_bootstrap(
    system: Floats,
    baseline: Floats,
    counts: Floats,
    statistic: Statistic,
    *,
    seed: int = 0,
    level: float = 0.95,
    n_resamples: int = N_RESAMPLES,
) -> Interval:
    """Percentile interval of `statistic(system) - statistic(baseline)` over resamples of the users.

    `system` and `baseline` hold one total per user (of squared errors for `root_mean`, of anything for `mean`) and
    `counts` how many ratings or tasks the totals are of. Raises ValueError where there is nothing to resample.
    """
    if not len(counts) or not counts.sum() > 0:
        raise ValueError("no user to resample")
    columns = np.stack([system, baseline, counts], 1)
    differences = []
    for times in np.array_split(_times_drawn(len(counts), n_resamples, seed), math.ceil(n_resamples / CHUNK)):
        ours, theirs, n = (times.astype(np.float64) @ columns).T
        n = np.maximum(n, 1e-12)
        differences.append(_value(ours / n, statistic) - _value(theirs / n, statistic))
    low, high = np.quantile(np.concatenate(differences), [(1 - level) / 2, (1 + level) / 2])
    total = counts.sum()
    observed = _value(system.sum() / total, statistic) - _value(baseline.sum() / total, statistic)
    return Interval(difference=float(observed), low=float(low), high=float(high))


@lru_cache(maxsize=4)
def _times_drawn(n_users: int, n_resamples: int, seed: int) -> npt.NDArray[np.uint16]:
    """(n_resamples, n_users), how often each resample has each user; drawn once for all rows of a table."""
    generator = np.random.default_rng(seed)
    shares = np.full(n_users, 1 / n_users)
    sizes = [min(CHUNK, n_resamples - start) for start in range(0, n_resamples, CHUNK)]
    return np.concatenate([generator.multinomial(n_users, shares, size).astype(np.uint16) for size in sizes])


def _value(mean: Floats, statistic: Statistic) -> Floats:
    return np.sqrt(mean) if statistic == "root_mean" else mean

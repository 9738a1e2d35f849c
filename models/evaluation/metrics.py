"""The measures of every table, from their definitions.

All take numpy arrays. In the ranking measures a row is a task (a user's list) and *ranked* means: arranged from the
highest to the lowest prediction by `rank`, never re-sorted afterwards. Relevance and gain always come from what users
did, never from a prediction.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

RELEVANT = 4.0
"""A rating of 4 or more (on five) means that the user liked it."""
COVERAGE_LEVELS = (0.5, 0.8, 0.9, 0.95)


def mse(predicted: Floats, truth: Floats) -> float:
    """Mean squared error."""
    return float(np.square(predicted - truth).mean())


def rmse(predicted: Floats, truth: Floats) -> float:
    """Root mean squared error, pooled over all ratings given (not a mean of users' errors)."""
    return float(np.sqrt(mse(predicted, truth)))


def mae(predicted: Floats, truth: Floats) -> float:
    """Mean absolute error."""
    return float(np.abs(predicted - truth).mean())


def rank(scores: Floats, ids: Ints, mask: Bools) -> Ints:
    """(B, Q) positions of each row from the highest score to the lowest, ties by the lower id, masked entries last.

    >>> rank(np.array([[1.0, 3.0, 3.0]]), np.array([[7, 9, 8]]), np.array([[True, True, True]])).tolist()
    [[2, 1, 0]]
    """
    order: Ints = np.lexsort((ids, -scores, ~mask), axis=-1)
    return order


def gain(ratings: Floats, kind: Literal["exponential", "binary"] = "exponential") -> Floats:
    """What an item is worth in a list: 2^r - 1, or 1 where the rating is 4 or more."""
    return np.exp2(ratings) - 1 if kind == "exponential" else (ratings >= RELEVANT).astype(np.float64)


def dcg_at(gains: Floats, k: int) -> Floats:
    """(B,) discounted cumulative gain of the first k: sum of gain / log2(place + 1), places counted from 1."""
    top = gains[:, :k]
    discounted: Floats = top @ (1 / np.log2(np.arange(2, top.shape[1] + 2)))
    return discounted


def ndcg_at(ranked_gains: Floats, all_gains: Floats, k: int) -> Floats:
    """(B,) DCG over the best DCG that any order of `all_gains` has; NaN where nothing has any gain.

    Järvelin & Kekäläinen (TOIS 2002), with the gain and discount of Burges et al. (ICML 2005).
    """
    ideal = dcg_at(-np.sort(-all_gains, axis=1), k)
    shares: Floats = dcg_at(ranked_gains, k) / np.where(ideal > 0, ideal, np.nan)
    return shares


def precision_at(ranked_relevant: Bools, k: int) -> Floats:
    """(B,) share of the first k places that hold a relevant item; an empty place holds none."""
    shares: Floats = ranked_relevant[:, :k].sum(1) / k
    return shares


def recall_at(ranked_relevant: Bools, n_relevant: Ints, k: int, truncated: bool = False) -> Floats:
    """(B,) share of the relevant items within the first k; NaN where there are none.

    `truncated` divides by min(k, n) as the top-N literature does (Liang et al., WWW 2018), so that 1 can be reached.
    """
    most = np.minimum(n_relevant, k) if truncated else n_relevant
    shares: Floats = ranked_relevant[:, :k].sum(1) / np.where(most > 0, most, np.nan)
    return shares


def hit_at(ranked_relevant: Bools, k: int) -> Floats:
    """(B,) 1 where a relevant item is among the first k, else 0; its mean is the hit rate."""
    return np.asarray(ranked_relevant[:, :k].any(1), dtype=np.float64)


def reciprocal_rank(ranked_relevant: Bools) -> Floats:
    """(B,) one over the place of the first relevant item, places counted from 1; 0 where there is none.

    >>> reciprocal_rank(np.array([[False, True], [False, False]])).tolist()
    [0.5, 0.0]
    """
    first: Floats = 1.0 / (1 + ranked_relevant.argmax(1))
    return np.where(ranked_relevant.any(1), first, 0.0)


def covered(errors: Floats, std: Floats, level: float) -> Floats:
    """1 where the central interval of a normal with this std holds the truth, else 0; its mean is the coverage.

    `errors` are prediction minus truth; `level` is the interval's promise, 0.9 for a 90 % interval.
    """
    return np.asarray(np.abs(errors) <= norm.ppf((1 + level) / 2) * std, dtype=np.float64)


def negative_log_likelihood(errors: Floats, std: Floats) -> Floats:
    """Of each truth under a normal around the prediction, in nats: (log 2 pi s^2 + e^2 / s^2) / 2."""
    return 0.5 * (np.log(2 * np.pi * np.square(std)) + np.square(errors / std))

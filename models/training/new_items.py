"""What to expect of an item that nobody has rated yet.

    (b_i, v_i) ~ N(W' [1, f_i], Λ)        f_i the item's content; it counts n_i / (n_i + reg), n_i ratings
    b_i ~ level + slope W_b' [1, f_i]     as over ratings: an item counts n_i

People rate what is good, so the number of an item's ratings tells of quality, and `models.training.factor_em` goes by
it. Of a new item there is no number, and the first line is the same regression without. In it items count alike once
they are known well, which learns most of content; but most items are rated by few, and those one is asked about are
rated by many. So bias is put on the scale of ratings by the second line, fitted to what the first says of each item
*without that item*: by leave-one-out, in closed form (Allen, "The relationship between variable selection and data
augmentation and a method for prediction", Technometrics 1974). The slope takes away what was made too much of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.training.gaussian import FieldRegression

RELIABLE = 5.0
"""reg: ratings at which an item counts half."""
STEPS = 10
"""Of EM, from where the regression that knows the counts has arrived."""
MOST_LEVERAGE = 0.95
"""An item says at most this share of what is expected of itself."""


@dataclass(frozen=True)
class NewItemPrior:
    """The prior of a new item's (b, v), P entries, given its F features."""

    weights: Tensor
    """(1 + F, P), of an intercept and the features."""
    covariance: Tensor
    """(1 + F, 1 + F) of the bias's weights, in units of `spread`'s first entry."""
    spread: Tensor
    """(P, P), Λ."""


def fit_new_items(
    known: FieldRegression, features: Tensor, widths: Sequence[int], means: Tensor, covariances: Tensor, counts: Tensor
) -> NewItemPrior:
    """Learn it from n items with posteriors N(`means` (n, P), `covariances` (n, P, P)) and `counts` (n,) of ratings.

    `features` (n, F) are content, of fields as wide as `widths`; `known` is the regression on the number of ratings and
    these.
    """
    regression = FieldRegression(means.shape[1], widths, known.use_features)
    regression.variance, regression.noise = known.variance[:, 1:].clone(), known.noise
    reliable = counts / (counts + RELIABLE)
    reliable *= reliable.sum() / reliable.square().sum()  # as many items' worth as they are evidence
    for _ in range(STEPS):
        regression.update(features, means, torch.einsum("n,npq->pq", reliable, covariances), reliable)
    design, bias = regression.design(features), means[:, 0]
    leverage = reliable * ((design @ regression.covariance) * design).sum(1)
    without = bias - (bias - design @ regression.weights[:, 0]) / (1 - leverage).clamp(min=1 - MOST_LEVERAGE)
    share = counts / counts.sum()
    expected, level = share @ without, share @ bias
    told = share @ (without - expected).square()
    slope = ((share * (without - expected)) @ bias / told.clamp(min=1e-12)).clamp(0, 1)
    weights = regression.weights.clone()
    weights[:, 0] *= slope
    weights[0, 0] += level - slope * expected
    return NewItemPrior(weights, slope.square() * regression.covariance, regression.noise)

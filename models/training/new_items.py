"""What to expect of an item that nobody has rated yet.

    (b_i, v_i) ~ N(W' [1, e_i, f_i], Λ)   e_i how often it was rated, around what a rating is typically of; f_i content
    b_i ~ level + slope W_b' [1, 0, f_i]  as over ratings: an item counts as often as it was rated

People rate what is good, so the number of an item's ratings tells of quality, and the first line, which is that of
`models.training.factor_em`, goes by it. Of a new item there is no number, and at e_i = 0 stands what a rating is
typically of. But the line is learnt from all items, most of which few people rate, and lies too low where most ratings
are. So bias is put on the scale of ratings by the second line, fitted to what the first says of each item *without that
item*: by leave-one-out, in closed form (Allen, "The relationship between variable selection and data augmentation and a
method for prediction", Technometrics 1974). The slope takes away what was made too much of.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.training.gaussian import FieldRegression

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
    """(P, P), Λ and what not knowing e_i adds to it."""


def expected_of_new(
    known: FieldRegression, features: Tensor, bias: Tensor, counts: Tensor, exposure_variance: Tensor
) -> NewItemPrior:
    """Make it of the regression for `known` items: n items with `features` (n, 1 + F), of which the first is e_i,
    posterior means `bias` (n,) and `counts` (n,) of ratings, over which e_i has the variance (); n may be 0.

    A regression without features has no e_i.
    """
    weights, covariance, spread = known.weights.clone(), known.covariance, known.noise
    if known.use_features:
        kept = torch.arange(len(weights)) != 1
        weights, covariance = weights[kept], covariance[kept][:, kept]
        spread = spread + exposure_variance * torch.outer(known.weights[1], known.weights[1])
    if not len(bias):
        return NewItemPrior(weights, covariance, spread)
    design = known.design(features)
    leverage = ((design @ known.covariance) * design).sum(1).clamp(max=MOST_LEVERAGE)
    without = bias - (bias - design @ known.weights[:, 0]) / (1 - leverage)
    if known.use_features:
        without -= features[:, 0] * known.weights[1, 0]
    share = counts / counts.sum()
    expected, level = share @ without, share @ bias
    told = share @ (without - expected).square()
    slope = ((share * (without - expected)) @ bias / told.clamp(min=1e-12)).clamp(0, 1)
    weights[:, 0] *= slope
    weights[0, 0] += level - slope * expected
    return NewItemPrior(weights, slope.square() * covariance, spread)

"""What items teach while serving: the closed forms that recommenders share.

A bias is a mean; the ratings that come in continue it where the fit left off:

    b_i <- b_i + sum_m w_m e_m / (count_i + reg + sum_m w_m)

with count_i the ratings that b_i was learnt from and e_m what the recommender, with the row as it was, leaves
unexplained of rating m. In ratings' worth, so that for a recommender of nothing but a shrunken mean it is that mean.
"""

import torch
from torch import Tensor

from models.recommender import ItemEvidence, ItemTable, Recommender


def surprises(recommender: Recommender, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Tensor:
    """How far ratings of the items at `rows` (n,) lie from what was to be expected, (M,), on the domains' scales."""
    expected = recommender.means(evidence.states, table, rows)  # (M, n)
    return evidence.values - expected.gather(1, evidence.index[:, None])[:, 0]


def learnt_bias(bias: Tensor, strength: Tensor, evidence: ItemEvidence, residual: Tensor) -> Tensor:
    """Biases (n,) after M residuals, in their units; `strength` (n,) is count_i + reg, in ratings."""
    total = torch.zeros_like(bias).index_add(0, evidence.index, evidence.weights * residual)
    weight = torch.zeros_like(bias).index_add(0, evidence.index, evidence.weights)
    return bias + total / (strength + weight).clamp(min=1e-9)

"""How somebody rates, whatever it is that they rate: what of a history carries over to another catalogue."""

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.recommender import Evidence
from models.training.statistics import item_counts

SHRINKAGE = 5.0
"""Interactions' worth of belief that somebody rates as others do."""
HABITS = 9
"""Columns of `habits`."""
SPREAD, MIDDLING = 2, 4
"""Which of them say how far apart somebody's ratings lie, and how many lie in the middle."""


def exposures(data: Dataset) -> Tensor:
    """(N,) log count of each item, around the mean over the interactions of its domain: 0 is typical of a rating."""
    log_count, counts = item_counts(data).log1p(), item_counts(data)
    n_domains = len(data.schema.domains)
    total = torch.zeros(n_domains).index_add_(0, data.items.domain, counts * log_count)
    weight = torch.zeros(n_domains).index_add_(0, data.items.domain, counts)
    return log_count - (total / weight.clamp(min=1e-9))[data.items.domain]


def habits(evidence: Evidence, deviation: Tensor, bias: Tensor, exposure: Tensor) -> Tensor:
    """(B, 9): level, generosity, spread, shares of high, middling and low ratings, quality and popularity of what was
    chosen, and how much there is.

    `deviation` (B, L) are ratings less the mean of the domain and `bias` (B, L) those of their items, in steps of a
    five-point scale; `exposure` (B, L) as in `exposures`. All but the last are shrunken towards what is usual: zero.
    """
    weights = evidence.weights
    n = weights.sum(dim=1)  # (B,)

    def mean(values: Tensor) -> Tensor:
        """Shrunken to zero."""
        return (weights * values.where(evidence.mask, 0)).sum(dim=1) / (n + SHRINKAGE)

    level = mean(deviation)
    return torch.stack(
        [
            level,
            mean(deviation - bias),
            mean((deviation - level[:, None]).square() - 1),
            mean((deviation > 0.5).to(n)),
            mean((deviation.abs() <= 0.5).to(n)),
            mean((deviation <= -1.5).to(n)),
            mean(bias),
            mean(exposure),
            n.log1p(),
        ],
        dim=1,
    )

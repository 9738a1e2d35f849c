"""How good what somebody chooses is, and what that says of things nobody has rated.

    q_u = sum_i (b_i - b̄) / (n_u + κ)     over the n_u things that u has rated in a domain, b̄ the mean over its ratings
    b_i = E[b_i | content] + γ q_u + …    over ratings: of those who rate i, q_u without i

Some choose what is good and others what is at hand, and they go on to. Of a thing that is known this says nothing more;
of a new one it says how good it is *if they choose it*, which is all that a rating is ever given to. κ is the variance
of b within people over that between them, by moments; γ is by least squares over ratings.
"""

import torch
from torch import Tensor, nn

from models.datasets.dataset import Dataset

MOST_SHRINKAGE = 1000.0
"""Ratings; κ where people choose alike."""


class Quality(nn.Module):
    """b̄, κ and γ of D domains."""

    usual: Tensor
    shrinkage: Tensor
    slope: Tensor

    def __init__(self, n_domains: int) -> None:
        super().__init__()
        self.register_buffer("usual", torch.zeros(n_domains))  # b̄
        self.register_buffer("shrinkage", torch.ones(n_domains))  # κ
        self.register_buffer("slope", torch.zeros(n_domains))  # γ, from 0 to 1; 0: choices say nothing

    def fit(self, data: Dataset, bias: Tensor, expected: Tensor) -> None:
        """Learn from items' biases b (N,) and what their content alone says of those (N,)."""
        bias, expected = bias.double(), expected.double()
        for d in range(len(self.usual)):
            self.usual[d], self.shrinkage[d], self.slope[d] = _of_domain(data, d, bias, expected)

    def of(self, counted: Tensor, domain: Tensor, bias: Tensor) -> Tensor:
        """γ q_u in each domain (B, D), of L choices each: how much they count, in their domain's column, (B, L, D);
        `domain` (B, L) and `bias` (B, L) of what was chosen."""
        total = ((bias - self.usual[domain])[:, None] @ counted).squeeze(1)
        return self.slope * total / (counted.sum(1) + self.shrinkage)


def _of_domain(data: Dataset, d: int, bias: Tensor, expected: Tensor) -> tuple[float, float, float]:
    """b̄, κ and γ of a domain."""
    seen = data.interactions.rows(data.items.domain[data.interactions.items] == d)
    weights = seen.weights.double()
    if not len(seen):
        return 0.0, MOST_SHRINKAGE, 0.0
    usual = (weights @ bias[seen.items]) / weights.sum()
    better = bias[seen.items] - usual  # (M,)
    n = torch.zeros(data.n_users, dtype=torch.double).index_add_(0, seen.users, weights)
    total = torch.zeros_like(n).index_add_(0, seen.users, weights * better)
    squares = torch.zeros_like(n).index_add_(0, seen.users, weights * better.square())
    several = n > 1
    mean = total[several] / n[several]
    within = (squares[several] - n[several] * mean.square()).sum() / (n[several] - 1).sum().clamp(min=1e-9)
    between = (mean.square() - within / n[several]).mean() if several.any() else within.new_zeros(())
    shrinkage = (within / between.clamp(min=1e-9)).clamp(max=MOST_SHRINKAGE) if between > 0 else MOST_SHRINKAGE
    others = (total[seen.users] - weights * better) / (n[seen.users] - weights + shrinkage)  # q_u without i
    others = others - (weights @ others) / weights.sum()
    slope = (weights * others) @ (bias - expected)[seen.items] / (weights @ others.square()).clamp(min=1e-9)
    return float(usual), float(shrinkage), float(slope.clamp(0, 1))

"""What people choose to rate tells of their taste before any rating is read.

    p(i | w) = p_i exp(z_i . w) / sum_j p_j exp(z_j . w)

with p_i the share that item i has of its domain's ratings. To second order around μ, the mean taste behind a rating,
n choices are Gaussian evidence on w: precision n C and precision times mean sum_i z_i + n C μ, where the z are centred
and C is their covariance under p. At its maximum z_i is where the item's raters stand, seen from the spread of all
raters: z_i = Σ^-1 (mean_i - μ), the vector of a linear discriminant. It is the closed-form kin of the implicit feedback
of SVD++ (Koren, "Factorization meets the neighborhood", KDD 2008).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.datasets.dataset import Dataset

SHRINKAGE = 20.0
"""Ratings' worth of belief that an item's raters are like all others."""


@dataclass(frozen=True)
class Choices:
    """What choices say of w: N items, D domains, P entries of w."""

    vectors: Tensor
    """z (N, P); zeros for items that nobody chose."""
    spread: Tensor
    """C (D, P, P)."""
    pull: Tensor
    """C μ (D, P)."""


def fit_choices(data: Dataset, user_mean: Tensor, user_covariance: Tensor) -> Choices:
    """Choices in a data set, given posterior means (U, P) and covariances (U, P, P) of its users."""
    seen, size, n_domains = data.interactions, user_mean.shape[1], len(data.schema.domains)
    weights = seen.weights.to(user_mean)
    counts = user_mean.new_zeros(data.n_items).index_add_(0, seen.items, weights)  # (N,)
    vectors = user_mean.new_zeros(data.n_items, size)
    spread, pull = user_mean.new_zeros(n_domains, size, size), user_mean.new_zeros(n_domains, size)
    for d in range(n_domains):
        of_d = data.items.domain == d
        rows = of_d[seen.items]
        if not rows.any():
            continue
        share = user_mean.new_zeros(data.n_users).index_add_(0, seen.users[rows], weights[rows])  # (U,)
        share = share / share.sum()
        centre = share @ user_mean
        around = user_mean - centre
        total = (around.T * share) @ around + torch.einsum("u,upq->pq", share, user_covariance)
        raters = torch.zeros_like(vectors).index_add_(
            0, seen.items[rows], weights[rows, None] * around[seen.users[rows]]
        )
        z = torch.linalg.solve(total, raters[of_d].T).T / (counts[of_d, None] + SHRINKAGE)
        popularity = counts[of_d] / counts[of_d].sum()
        z = z - popularity @ z
        vectors[of_d] = z * (counts[of_d, None] > 0)
        spread[d] = (z.T * popularity) @ z
        pull[d] = spread[d] @ centre
    return Choices(vectors, spread, pull)

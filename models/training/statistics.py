"""Shrunken means that most recommenders start from."""

import torch
from torch import Tensor

from models.datasets.dataset import Dataset


def domain_means(data: Dataset) -> Tensor:
    """Weighted mean rating of each domain, (D,); the middle of the scale where nothing was rated."""
    low, high = data.schema.scales()
    seen = data.interactions
    domain = data.items.domain[seen.items]
    total = torch.zeros(len(low)).index_add_(0, domain, seen.weights * seen.values)
    weight = torch.zeros(len(low)).index_add_(0, domain, seen.weights)
    return torch.where(weight > 0, total / weight.clamp(min=1e-9), (low + high) / 2)


def item_counts(data: Dataset) -> Tensor:
    """Evidence on each item, (N,): the sum of its interactions' weights."""
    seen = data.interactions
    return torch.zeros(data.n_items).index_add_(0, seen.items, seen.weights)


def shrunken_item_biases(data: Dataset, means: Tensor, reg: float) -> Tensor:
    """How far each item's ratings lie from its domain's mean, shrunken by `reg` ratings of zero, (N,)."""
    seen = data.interactions
    residual = seen.weights * (seen.values - means[data.items.domain[seen.items]])
    total = torch.zeros(data.n_items).index_add_(0, seen.items, residual)
    return total / (item_counts(data) + reg).clamp(min=1e-9)


def ridge(x: Tensor, y: Tensor, weights: Tensor, reg: float) -> Tensor:
    """Coefficients (F, T) of the weighted ridge regression of y (n, T) on x (n, F): every column of x is penalised.

        argmin_B sum_n weights_n |y_n - x_n B|^2 + reg |B|^2

    Solved in double precision: correlated columns, such as the genres of films, make the normal equations stiff.

    >>> ridge(torch.ones(2, 1), torch.tensor([[1.0], [3.0]]), torch.ones(2), reg=2.0).tolist()
    [[1.0]]
    """
    weighted = x.double() * weights.double()[:, None]
    gram = weighted.T @ x.double() + reg * torch.eye(x.shape[1], dtype=torch.double, device=x.device)
    return torch.cholesky_solve(weighted.T @ y.double(), torch.linalg.cholesky(gram)).to(y)

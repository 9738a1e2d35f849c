"""Where items stand beside each other, by who rates them and by what the same people think of them.

Both are starts for similarities that episodes then tune. Scaled by their degrees, the singular vectors of the users ×
items matrix are a spectral embedding of who rates what (Dhillon, "Co-clustering documents and words", KDD 2001). The
eigenvectors of the items' covariance of residuals, each pair shrunken by how many people rated both as in Koren,
"Factorization meets the neighborhood" (KDD 2008), 2.2, are what a neighbourhood model would know.
"""

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import eigsh, svds
from torch import Tensor

from models.datasets.dataset import Dataset

SHRINKAGE = 20.0
"""Ratings' worth of belief that an item is rated by the same people as all others."""
PAIR_SHRINKAGE = 600.0
"""People's worth of belief that two items have nothing to do with each other, beyond what the base says."""
MAX_ITEMS = 8192
"""Items whose pairs are counted, the most rated: there are at most 67 million pairs."""


def co_rating_vectors(data: Dataset, size: int) -> Tensor:
    """(N, size) float32: directions of items by who rates them, of norm 1 for those rated often, less for others.

    The first singular pair, which only says how often items are rated, is left out.
    """
    seen = data.interactions
    weights = _matrix(seen.users, seen.items, seen.weights, (data.n_users, data.n_items))
    n_user, n_item = np.asarray(weights.sum(1)).ravel(), np.asarray(weights.sum(0)).ravel()
    scaled = sparse.diags(1 / np.sqrt(n_user + 1)) @ weights @ sparse.diags(1 / np.sqrt(n_item + SHRINKAGE))
    rank = min(size, min(scaled.shape) - 2)
    if rank < 1:
        return torch.zeros(data.n_items, size)
    _, singular, right = svds(scaled, k=rank + 1, v0=np.ones(min(scaled.shape)))
    order = np.argsort(-singular)[1:]
    vectors = right[order].T * singular[order]  # (N, rank)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12
    return _columns(vectors * np.sqrt(n_item / (n_item + SHRINKAGE))[:, None], size)


def co_opinion_vectors(users: Tensor, items: Tensor, residuals: Tensor, n_items: int, size: int) -> Tensor:
    """(N, size) float32: f with f_i · f_j the shrunken covariance of two items' residuals, at low rank.

    users, items and residuals (M,) are of ratings; an item that is rated more than once by a user counts their sum.
    """
    shape = (int(users.max()) + 1 if len(users) else 1, n_items)
    counts = _matrix(users, items, torch.ones_like(residuals), shape)
    often = np.sort(np.argsort(-np.asarray(counts.sum(0)).ravel(), kind="stable")[:MAX_ITEMS])
    counts, values = counts[:, often], _matrix(users, items, residuals, shape)[:, often]
    rank = min(size, len(often) - 1)
    if rank < 1:
        return torch.zeros(n_items, size)
    both = (counts.T @ counts).tocsr()
    both.data = 1 / (both.data + PAIR_SHRINKAGE)
    covariance = (values.T @ values).multiply(both).tocsr()
    covariance.setdiag(0)  # how noisy an item is says nothing of its neighbours
    eigenvalues, eigenvectors = eigsh(covariance, k=rank, which="LA", v0=np.ones(len(often)))
    vectors = np.zeros((n_items, rank))
    vectors[often] = eigenvectors * np.sqrt(np.maximum(eigenvalues, 0))
    return _columns(vectors[:, ::-1], size)


def _matrix(users: Tensor, items: Tensor, values: Tensor, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((values.double().numpy(), (users.numpy(), items.numpy())), shape=shape)


def _columns(vectors: np.ndarray, size: int) -> Tensor:
    """Vectors in float32, with columns of zeros up to `size`."""
    found = torch.from_numpy(np.ascontiguousarray(vectors)).float()
    return torch.nn.functional.pad(found, (0, size - found.shape[1]))

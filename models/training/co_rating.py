"""Where items stand by who rates them together: a start for similarities that episodes then tune.

The truncated singular value decomposition of the users × items matrix of weights, each side scaled by the square root
of its degree (the normalised Laplacian's spectral embedding; Dhillon, "Co-clustering", KDD 2001). The first pair, which
only says how often items are rated, is left out.
"""

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import svds
from torch import Tensor

from models.datasets.dataset import Dataset

SHRINKAGE = 20.0
"""Ratings' worth of belief that an item is rated like all others."""


def co_rating_vectors(data: Dataset, size: int) -> Tensor:
    """(N, size) float32: directions of items by who rates them, of norm 1 for those rated often, less for others."""
    seen = data.interactions
    index = (seen.users.numpy(), seen.items.numpy())
    weights = sparse.csr_matrix((seen.weights.double().numpy(), index), shape=(data.n_users, data.n_items))
    n_user = np.asarray(weights.sum(1)).ravel()
    n_item = np.asarray(weights.sum(0)).ravel()
    scaled = sparse.diags(1 / np.sqrt(n_user + 1)) @ weights @ sparse.diags(1 / np.sqrt(n_item + SHRINKAGE))
    out = torch.zeros(data.n_items, size)
    rank = min(size, min(scaled.shape) - 2)
    if rank < 1:
        return out
    start = np.ones(min(scaled.shape))
    _, singular, right = svds(scaled, k=rank + 1, v0=start)
    order = np.argsort(-singular)[1:]
    vectors = right[order].T * singular[order]  # (N, rank)
    norms = np.linalg.norm(vectors, axis=1)
    vectors = vectors / (norms + 1e-12)[:, None] * np.sqrt(n_item / (n_item + SHRINKAGE))[:, None]
    out[:, :rank] = torch.from_numpy(np.ascontiguousarray(vectors)).float()
    return out

"""Learning who knows what (`models.exposure`): the principal components of who has done anything with which item.

Tipping and Bishop, "Probabilistic principal component analysis" (JRSS B 1999), by power iterations on the centred
matrix of users and items, which is sparse and never made dense (Halko et al., SIAM Review 2011).
"""

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.exposure import Exposure

ROUNDS = 4
"""Power iterations."""


def fit_exposure(data: Dataset, n_factors: int, seed: int) -> Exposure:
    """Shares and loadings of all items, of each domain by the users who are in it."""
    seen = data.interactions
    share, loadings = torch.zeros(data.n_items), torch.zeros(data.n_items, n_factors)
    for d in range(len(data.schema.domains)):
        here = (data.items.domain[seen.items] == d).nonzero().flatten()
        users, user = torch.unique(seen.users[here], return_inverse=True)
        items, item = torch.unique(seen.items[here], return_inverse=True)
        rank = min(n_factors, len(users) - 1, len(items))
        if not len(here):
            continue
        pairs = torch.unique(torch.stack([user, item]), dim=1)  # of several interactions with an item one counts
        met = torch.sparse_coo_tensor(
            pairs, torch.ones(pairs.shape[1]), (len(users), len(items)), check_invariants=True
        )
        share[items] = torch.bincount(pairs[1], minlength=len(items)) / len(users)
        if rank > 0:
            loadings[items, :rank] = _principal(met.coalesce(), share[items], rank, seed)
    return Exposure(share, loadings)


def _principal(met: Tensor, share: Tensor, rank: int, seed: int) -> Tensor:
    """Loadings (n, rank): V S / sqrt(U) of the centred (U, n) matrix, which is sparse and never made dense."""
    n_users, n_items = met.shape
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(n_items, min(rank + 8, n_items), generator=generator)

    def centred(x: Tensor) -> Tensor:
        return met @ x - (share @ x)

    def centred_transposed(y: Tensor) -> Tensor:
        return met.T @ y - share[:, None] * y.sum(0)

    for _ in range(ROUNDS):
        basis = torch.linalg.qr(centred_transposed(centred(basis))).Q
    _, values, right = torch.linalg.svd(centred(basis), full_matrices=False)
    loadings: Tensor = basis @ right[:rank].T * (values[:rank] / n_users**0.5)
    # A component's sign is arbitrary; this makes it the same wherever it is computed.
    largest = loadings.gather(0, loadings.abs().argmax(0, keepdim=True))
    return loadings * torch.where(largest < 0, -1.0, 1.0)

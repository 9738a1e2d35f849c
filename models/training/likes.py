"""Likes: all that recommenders learn from that put items in order and predict no rating.

A like is an event worth a rating above a share of its domain's scale. It counts as its weight: 1 for a rating, less for
a click. Several events of a user on one item count together, but never as more than one like.
"""

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import Evidence, ItemTable, RecommenderConfig

LIKED_ABOVE = 0.625
"""The usual share of the scale: of 1 to 5, ratings above 3.5."""


class LikeSettings(RecommenderConfig):
    """The setting that recommenders of likes share."""

    liked_above: float = Field(LIKED_ABOVE, ge=0, lt=1)
    """Share of a domain's scale above which a rating is a like."""


class Likes(nn.Module):
    """Tells likes from other events.

    >>> from models.datasets.schema import Domain
    >>> likes = Likes(Schema(domains=[Domain(name="films")]))
    >>> likes(torch.tensor([3.5, 4.0, 5.0]), torch.tensor([1.0, 1.0, 0.2]), torch.tensor([0, 0, 0])).tolist()
    [0.0, 1.0, 0.20000000298023224]
    """

    threshold: Tensor

    def __init__(self, schema: Schema, liked_above: float = LIKED_ABOVE) -> None:
        super().__init__()
        low, high = schema.scales()
        self.register_buffer("threshold", low + liked_above * (high - low))  # (D,)

    def forward(self, values: Tensor, weights: Tensor, domain: Tensor) -> Tensor:
        """What each event counts as a like: its weight, or 0; all of one shape."""
        counted: Tensor = weights * (values > self.threshold[domain])
        return counted

    def of_evidence(self, evidence: Evidence, table: ItemTable) -> Tensor:
        """(B, L) what each event counts, shared out so that the events on one item are at most one like together."""
        weights = self(evidence.values, evidence.weights, table.domain[evidence.items])
        users = torch.arange(evidence.batch_size, device=weights.device)[:, None]
        _, place = torch.unique(users * len(table) + evidence.items, return_inverse=True)
        total = weights.new_zeros(place.numel()).index_add_(0, place.flatten(), weights.flatten())
        shared: Tensor = weights / total[place].clamp(min=1)
        return shared

    def only(self, data: Dataset) -> Dataset:
        """The data with nothing but likes."""
        seen = data.interactions
        return data.where(seen.values > self.threshold.cpu()[data.items.domain[seen.items]])

    def matrix(self, data: Dataset) -> sparse.csr_matrix:
        """(U, N) float32, the likes of a data set."""
        liked = self.only(data).interactions
        pairs = (liked.users.numpy(), liked.items.numpy())
        matrix = sparse.csr_matrix((liked.weights.numpy(), pairs), shape=(data.n_users, data.n_items))
        matrix.data = np.minimum(matrix.data, 1)
        return matrix

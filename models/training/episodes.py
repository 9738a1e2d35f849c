"""Episodes: few-shot tasks drawn from training users, as meta-learners practise on them.

Vinyals et al., "Matching Networks for One Shot Learning" (NeurIPS 2016): train the way it will be tested. A task is a
user; some of their interactions are the support, others the query.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from models.datasets.dataset import Dataset, Interactions
from models.recommender import Evidence


@dataclass(frozen=True)
class Episode:
    """B tasks of the same shape."""

    users: Tensor
    """(B,) int64, index of each task's user in the data set."""
    support: Evidence
    """(B, K) what the learner may see, in no particular order."""
    query: Evidence
    """(B, Q) what it is judged by; padded where its weight is 0."""


class Episodes:
    """Draws episodes from all users with two interactions or more, in batches, each user once an epoch.

    Support sizes are log-uniform from nothing to `max_support` (a newcomer with 1 rating is met as often as one with
    15), but never take a user's last interaction; up to `query_size` others are the query.
    """

    def __init__(
        self, data: Dataset, *, max_support: int, query_size: int, batch_size: int, generator: torch.Generator
    ) -> None:
        self.data = data
        self.max_support = max_support
        self.query_size = query_size
        self.batch_size = batch_size
        self.generator = generator
        self.counts = data.offsets.diff()
        self.users = torch.nonzero(self.counts >= 2).flatten()

    def __len__(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.users) / self.batch_size)

    def epoch(self) -> Iterator[Episode]:
        """All users in random order, each with a fresh support and query."""
        shuffled = self._shuffle_within_users()
        order = self.users[torch.randperm(len(self.users), generator=self.generator)]
        for users in torch.split(order, self.batch_size):
            yield self._episode(users, shuffled)

    def _shuffle_within_users(self) -> Tensor:
        """(M,) a permutation of the interactions that keeps each user's together and in their place."""
        users = self.data.interactions.users
        keys = users + torch.rand(len(users), generator=self.generator, dtype=torch.float64)
        return keys.argsort()

    def _episode(self, users: Tensor, shuffled: Tensor) -> Episode:
        counts = self.counts[users]
        draw = torch.rand(len(users), generator=self.generator)
        size = ((self.max_support + 1) ** draw).floor().long() - 1  # log-uniform on 0 … max_support
        n_support = torch.minimum(size, counts - 1)
        n_query = torch.minimum(counts - n_support, torch.tensor(self.query_size))
        start = self.data.offsets[users]
        attributes = self.data.user_attributes[users]
        support = self._evidence(shuffled, start, n_support, attributes)
        return Episode(users, support, self._evidence(shuffled, start + n_support, n_query, attributes))

    def _evidence(self, shuffled: Tensor, start: Tensor, count: Tensor, attributes: Tensor) -> Evidence:
        """`count` interactions of each task from its `start` in the shuffled order on."""
        place = torch.arange(int(count.max()) if len(count) else 0)
        mask = place < count[:, None]  # (B, L)
        rows = shuffled[torch.where(mask, start[:, None] + place, 0)]
        seen: Interactions = self.data.interactions
        return Evidence(
            items=seen.items[rows] * mask,
            values=seen.values[rows] * mask,
            weights=seen.weights[rows] * mask,
            kinds=seen.kinds[rows] * mask,
            times=seen.times[rows].where(mask, torch.nan),
            attributes=attributes,
        )

"""Episodes that go from one domain to another: practise being cold in the target with a history in the source.

Like `models.training.episodes`, except that what is known of somebody is drawn for each domain by itself: of the source
nothing, a part or all of it; of the target a number that is log-uniform from nothing on. All else is asked, in both
domains. People of one domain alone practise there.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.training.domains import domain_of
from models.training.episodes import Episode, Events, gather

NOTHING, EVERYTHING = 0.25, 0.5
"""Shares of the episodes that know nothing, and everything, of the source."""


class TransferEpisodes:
    """Draws episodes of all users with two interactions or more, in batches, each user once an epoch.

    At most `max_support` interactions of each domain are known and `query_size` of each are asked; at least one is.
    Supports are in the order of the data: oldest first.
    """

    def __init__(
        self,
        data: Dataset,
        target: int,
        *,
        max_support: int,
        query_size: int,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self.interactions = data.interactions
        self.max_support, self.query_size, self.batch_size = max_support, query_size, batch_size
        self.generator = generator
        self.in_target = domain_of(data) == target  # (M,)
        self.counts = torch.bincount(data.interactions.users, minlength=data.n_users)
        self.offsets = self.counts.cumsum(0) - self.counts
        self.users = torch.nonzero(self.counts >= 2).flatten()

    def __len__(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.users) / self.batch_size)

    def epoch(self) -> Iterator[Episode]:
        """All users in random order, each with a fresh support and query."""
        keys = self.interactions.users + torch.rand(
            len(self.interactions), generator=self.generator, dtype=torch.float64
        )
        shuffled = keys.argsort()  # (M,) user by user, at random within a user
        order = self.users[torch.randperm(len(self.users), generator=self.generator)]
        for users in torch.split(order, self.batch_size):
            yield self._episode(users, shuffled)

    def _episode(self, users: Tensor, shuffled: Tensor) -> Episode:
        place = torch.arange(int(self.counts[users].max()))
        mask = place < self.counts[users, None]  # (B, L)
        rows = shuffled[torch.where(mask, self.offsets[users, None] + place, 0)]
        target = self.in_target[rows] & mask
        source = mask & ~target
        n_target, n_source = target.sum(1), source.sum(1)  # (B,)

        draw, share, rest = torch.rand(3, len(users), generator=self.generator)
        known_target = (((self.max_support + 1) ** draw).floor().long() - 1).minimum(n_target)
        part = torch.where(share < NOTHING, 0, torch.where(share > 1 - EVERYTHING, 1, rest))
        known_source = (part * n_source).ceil().long()
        # Whoever has nothing left to be asked is asked about one interaction more.
        too_many = (known_source == n_source) & (known_target == n_target)
        known_target = known_target - (too_many & (n_target > 0)).long()
        known_source = known_source - (too_many & (n_target == 0)).long()

        rank = torch.where(target, target.cumsum(1), source.cumsum(1)) - 1  # within its domain
        known = torch.where(target, known_target[:, None], known_source[:, None])
        support = mask & (rank < known.clamp(max=self.max_support))
        query = mask & (rank >= known) & (rank < known + self.query_size)
        return Episode(users, self._events(rows, support), self._events(rows, query))

    def _events(self, rows: Tensor, chosen: Tensor) -> Events:
        """The chosen ones of `rows` (B, L), in the order of the data, as short as the longest."""
        kept = rows.masked_fill(~chosen, len(self.interactions)).sort(dim=1).values[:, : int(chosen.sum(1).max())]
        mask = kept < len(self.interactions)
        return gather(self.interactions, kept.where(mask, 0), mask)

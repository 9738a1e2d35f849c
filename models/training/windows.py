"""Windows of histories: episodes for those who read sequences, where the order of interactions must stay as it was."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.recommender import Evidence


@dataclass(frozen=True)
class Window:
    """Parts of B histories, and where to ask what comes next."""

    history: Evidence
    """Oldest first."""
    cut: Tensor
    """(B,) interactions at the beginning that are the support."""
    places: Tensor
    """(B, T) int64 positions of the history, none before the cut: each is to be told from all that stand before it."""
    weights: Tensor
    """(B, T) weights of the interactions there; 0 where there are fewer than T."""


class Windows:
    """Draws windows of up to `length` interactions of everybody who has two or more.

    Half of the windows of longer histories lie anywhere, the others at the beginning, where newcomers are. Cuts are
    log-uniform: no support, or little, is met as often as much.
    """

    def __init__(self, data: Dataset, length: int, n_targets: int, generator: torch.Generator) -> None:
        self.data, self.length, self.n_targets, self.generator = data, length, n_targets, generator
        self.counts = data.offsets.diff()  # (U,)
        self.users = torch.nonzero(self.counts >= 2).flatten()

    def n_batches(self, size: int) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.users) / size)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Users in random order, `size` at a time."""
        order = torch.randperm(len(self.users), generator=self.generator)
        yield from torch.split(self.users[order], size)

    def draw(self, users: Tensor) -> Window:
        """A window of each of the users."""
        counts, draw = self.counts[users], torch.rand(3, len(users), generator=self.generator)
        length = counts.clamp(max=self.length)
        anywhere = (draw[0] * (counts - length + 1)).long().minimum(counts - length)
        first = self.data.offsets[users] + torch.where(draw[1] < 0.5, anywhere, 0)
        rows = [torch.arange(int(a), int(a) + int(n)) for a, n in zip(first, length, strict=True)]
        history = self.data.evidence_of(rows, self.data.user_attributes[users])
        cut = (length ** draw[2]).long().minimum(length) - 1
        keys = torch.rand(history.items.shape, generator=self.generator)
        keys = keys.masked_fill(~history.mask | (torch.arange(keys.shape[1]) < cut[:, None]), 2.0)
        keys, places = keys.sort(dim=1)
        keys, places = keys[:, : self.n_targets], places[:, : self.n_targets]
        return Window(history, cut, places, history.weights.gather(1, places) * (keys < 1))

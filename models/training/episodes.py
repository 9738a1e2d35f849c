"""Episodes: few-shot tasks drawn from a data set, as meta-learners practise on them.

Vinyals et al., "Matching Networks for One Shot Learning" (NeurIPS 2016): train the way it will be tested. A task is a
user, or an item; some of its interactions are the support, others the query.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from models.datasets.dataset import Dataset, Interactions
from models.recommender import Evidence


@dataclass(frozen=True)
class Events:
    """L interactions of each of B tasks, (B, L) each, in no particular order; padded where the weight is 0."""

    users: Tensor
    items: Tensor
    values: Tensor
    weights: Tensor
    kinds: Tensor
    times: Tensor

    def evidence(self, attributes: Tensor) -> Evidence:
        """The same as evidence, where tasks are users with `attributes` (B, A)."""
        return Evidence(self.items, self.values, self.weights, self.kinds, self.times, attributes)

    def to(self, device: torch.device | str) -> "Events":
        """The same on another device."""
        return Events(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def gather(interactions: Interactions, rows: Tensor, mask: Tensor) -> Events:
    """The interactions at `rows` (B, L), padded where `mask` (B, L) is False."""
    return Events(
        users=interactions.users[rows] * mask,
        items=interactions.items[rows] * mask,
        values=interactions.values[rows] * mask,
        weights=interactions.weights[rows] * mask,
        kinds=interactions.kinds[rows] * mask,
        times=interactions.times[rows].where(mask, torch.nan),
    )


@dataclass(frozen=True)
class Episode:
    """B tasks of the same shape."""

    tasks: Tensor
    """(B,) int64, the user or the item that each task is."""
    support: Events
    """What the learner may see."""
    query: Events
    """What it is judged by."""


class Episodes:
    """Draws episodes from all tasks with two interactions or more, in batches, each task once an epoch.

    Support sizes are log-uniform from nothing to `max_support` (a newcomer with 1 rating is met as often as one with
    15), but never take a task's last interaction; up to `query_size` others are the query.
    """

    def __init__(
        self,
        data: Dataset,
        *,
        by: Literal["user", "item"] = "user",
        max_support: int,
        query_size: int,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self.interactions = data.interactions
        self.max_support, self.query_size, self.batch_size = max_support, query_size, batch_size
        self.generator = generator
        self.task_of = data.interactions.users if by == "user" else data.interactions.items
        self.counts = torch.bincount(self.task_of, minlength=data.n_users if by == "user" else data.n_items)
        self.offsets = self.counts.cumsum(0) - self.counts
        self.tasks = torch.nonzero(self.counts >= 2).flatten()

    def __len__(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.tasks) / self.batch_size)

    def epoch(self) -> Iterator[Episode]:
        """All tasks in random order, each with a fresh support and query."""
        keys = self.task_of + torch.rand(len(self.task_of), generator=self.generator, dtype=torch.float64)
        shuffled = keys.argsort()  # (M,) task by task, at random within a task
        order = self.tasks[torch.randperm(len(self.tasks), generator=self.generator)]
        for tasks in torch.split(order, self.batch_size):
            draw = torch.rand(len(tasks), generator=self.generator)
            size = ((self.max_support + 1) ** draw).floor().long() - 1  # log-uniform on 0 … max_support
            n_support = torch.minimum(size, self.counts[tasks] - 1)
            n_query = (self.counts[tasks] - n_support).clamp(max=self.query_size)
            start = self.offsets[tasks]
            yield Episode(
                tasks, self._events(shuffled, start, n_support), self._events(shuffled, start + n_support, n_query)
            )

    def _events(self, shuffled: Tensor, start: Tensor, count: Tensor) -> Events:
        """`count` interactions of each task, from its `start` in the shuffled order on."""
        place = torch.arange(int(count.max()))
        mask = place < count[:, None]  # (B, L)
        return gather(self.interactions, shuffled[torch.where(mask, start[:, None] + place, 0)], mask)

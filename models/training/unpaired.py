"""Batches of people of several domains side by side, whether or not anybody is in more than one."""

from collections.abc import Iterator

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.recommender import Evidence

LONGEST = 100
"""Interactions of one person that a step asks about, at most."""


def batches_of(users: Tensor, n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """n batches of users in random order, again from the beginning at their end; empty ones of nobody."""
    drawn: list[Tensor] = []
    while len(users) and sum(map(len, drawn)) < n * size:
        drawn.append(users[torch.randperm(len(users), generator=generator)])
    order = torch.cat(drawn) if drawn else users
    for step in range(n):
        yield order[step * size : (step + 1) * size]


def split_history(data: Dataset, users: Tensor, generator: torch.Generator, share: float) -> tuple[Evidence, Evidence]:
    """A random `share` of what each user did is asked, `LONGEST` interactions at most; the rest is known: (known in
    order, asked)."""
    known, asked = [], []
    for user in users.tolist():
        rows = torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        n = round(share * len(rows))
        asked.append(shuffled[:n][:LONGEST])
        known.append(shuffled[n:].sort().values)
    attributes = data.user_attributes[users]
    return data.evidence_of(known, attributes), data.evidence_of(asked, attributes)

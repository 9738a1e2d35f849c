"""Ratings summed up by what attributes can tell apart.

A model that reads a person's attributes alone answers alike for all who share them, so that its squared error on their
ratings of one item is, but for a constant, that on the mean of these ratings: one cell each. MovieLens-1M has 241 such
profiles in place of 4,832 people, and a third of the terms.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from models.datasets.dataset import Dataset


@dataclass(frozen=True)
class Cells:
    """C pairs of a profile and an item that somebody rated."""

    attributes: Tensor
    """(P, A) the profiles."""
    profiles: Tensor
    """(C,) int64."""
    items: Tensor
    """(C,) int64."""
    values: Tensor
    """(C,) weighted mean of what is to be explained."""
    weights: Tensor
    """(C,) sum of the weights behind it."""

    def __len__(self) -> int:
        return len(self.profiles)

    @classmethod
    def of(cls, data: Dataset, values: Tensor) -> "Cells":
        """Cells of a data set, from one value (M,) for each interaction."""
        seen = data.interactions
        attributes, profile = torch.unique(data.user_attributes, dim=0, return_inverse=True)
        cells, place = torch.unique(profile[seen.users] * data.n_items + seen.items, return_inverse=True)
        weights = torch.zeros(len(cells)).index_add_(0, place, seen.weights)
        total = torch.zeros(len(cells)).index_add_(0, place, seen.weights * values)
        return cls(attributes, cells // data.n_items, cells % data.n_items, total / weights, weights)

    def to(self, device: torch.device | str) -> "Cells":
        """The same on another device."""
        return Cells(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def rows(self, index: Tensor) -> "Cells":
        """Some of the cells, of the same profiles."""
        parts = {name: tensor[index] for name, tensor in vars(self).items() if name != "attributes"}
        return Cells(attributes=self.attributes, **parts)

    def batches(self, size: int, generator: torch.Generator) -> Iterator["Cells"]:
        """All cells once, in random order, `size` at a time."""
        order = torch.randperm(len(self), generator=generator).to(self.items.device)
        for index in torch.split(order, size):
            yield self.rows(index)

"""What the parts of a domain together believe about one user: what exploration works with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.engine.serving import Part

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Mixture:
    """The parts that were asked, with the user's states and the weights under which their scores make the order."""

    parts: Sequence[Part]
    states: Sequence[Tensor]
    """(1, S) of each part."""
    weights: Sequence[float]

    @property
    def has_posterior(self) -> bool:
        """Whether any part that counts knows how sure it is."""
        return any(part.has_posterior for part, _, _ in self._counted())

    def spread(self, local: Indices) -> Floats | None:
        """Standard deviation (m,) of the user's taste for some items; None where no part knows it.

        Mixed linearly, as if the parts erred together, for they see the same evidence. Parts that do not know theirs
        are taken to be as sure as the others.
        """
        found = []
        for part, state, weight in self._counted():
            std = part.served.recommender.taste_std(state, part.served.table, self._rows(part, local))
            if std is not None:
                found.append((weight, _numpy(std[0])))
        known = sum(weight for weight, _ in found)
        return _weighted(found, sum(self.weights) / known) if found else None

    def deviations(self, n: int, local: Indices, generator: torch.Generator) -> Floats:
        """Joint draws (n, m) less their mean: each part's own, mixed as its means are. A part that does not know how
        sure it is does not move."""
        found = []
        for part, state, weight in self._counted():
            rows = self._rows(part, local)
            moved = part.served.recommender.deviations(state, part.served.table, n, generator, rows)  # (n, 1, m)
            if moved is not None:
                found.append((weight, _numpy(moved[:, 0])))
        return _weighted(found) if found else np.zeros((n, len(local)), np.float32)

    def state(self) -> tuple[str, Floats]:
        """(digest, state (S,)) of the part that weighs most, the first of those that weigh the same."""
        part, state, _ = max(self._counted(), key=lambda counted: counted[2])
        return part.served.digest, state[0].float().cpu().numpy()

    def _counted(self) -> list[tuple[Part, Tensor, float]]:
        return [c for c in zip(self.parts, self.states, self.weights, strict=True) if c[2] > 0]

    @staticmethod
    def _rows(part: Part, local: Indices) -> Tensor:
        index = torch.from_numpy(local).to(part.served.table.domain.device)
        return index if part.rows is None else part.rows[index]


def _numpy(tensor: Tensor) -> Floats:
    """Policies work on the CPU, in numpy: a user and some hundred items are too little for torch to be fast."""
    array: Floats = tensor.cpu().numpy()
    return array


def _weighted(found: Sequence[tuple[float, Floats]], factor: float = 1.0) -> Floats:
    """The sum of one array a part, at least one, each times its weight and the factor."""
    (weight, first), *others = found
    total = first * np.float32(weight * factor)
    for weight, array in others:
        total += array * np.float32(weight * factor)
    return total

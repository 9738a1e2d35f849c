"""Gaussian beliefs of a single user about a few items, in numpy: `bayes` at batch size 1.

The same formulas as in `models.recommenders.bayes`, and up to rounding the same numbers. An operation of torch costs
several microseconds however small it is, and one of numpy about one; a policy asks about one user and some hundred
items, so that this is most of what a slate costs.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """What is believed of m items."""

    loadings: Floats
    """φ (m, P)."""
    covariance: Floats
    """S (m, P (P + 1) / 2), packed."""


@dataclass(frozen=True)
class User:
    """What is believed of one user."""

    mean: Floats
    """w (P,)."""
    root: Floats
    """R (P, P) with covariance R' R."""

    @classmethod
    def of(cls, state: Floats, size: int) -> "User":
        """The beginning of a state: the mean and the packed root."""
        triangle = _triangle(size)
        root = np.zeros(size * size, np.float32)
        root[triangle.flat] = state[size : size + len(triangle.flat)]
        return cls(state[:size], root.reshape(size, size))

    def taste_std(self, items: Rows) -> Floats:
        """Standard deviation (m,) of φ'w + x'θ for independent w and θ: |R φ|² + E[x' S x]."""
        triangle = _triangle(len(self.mean))
        x = self.mean.copy()
        x[0] = 1
        moments = np.multiply.outer(x, x)
        inner = self.root[:, 1:]
        moments[1:, 1:] += inner.T @ inner
        projected = items.loadings @ self.root.T  # (m, P)
        variance: Floats = np.einsum("mp,mp->m", projected, projected)
        variance += items.covariance @ (moments.ravel()[triangle.flat] * triangle.twice)
        np.sqrt(np.maximum(variance, 0, out=variance), out=variance)
        return variance

    def deviations(self, n: int, items: Rows, generator: torch.Generator) -> Floats:
        """Joint draws (n, m) of φ'w + x'θ, less their mean. Under one taste what is not known of an item is a number by
        itself, N(0, x' S x)."""
        triangle = _triangle(len(self.mean))
        moved = _noise((n, len(self.mean)), generator) @ self.root  # (n, P)
        x = self.mean + moved
        x[:, 0] = 1
        moments = x.take(triangle.rows, 1)
        moments *= x.take(triangle.columns, 1)
        moments *= triangle.twice
        doubt: Floats = moments @ items.covariance.T  # (n, m)
        np.sqrt(np.maximum(doubt, 0, out=doubt), out=doubt)
        doubt *= _noise(doubt.shape, generator)
        doubt += moved @ items.loadings.T
        return doubt


def _noise(shape: tuple[int, ...], generator: torch.Generator) -> Floats:
    noise: Floats = torch.randn(shape, generator=generator).numpy()
    return noise


class _Triangle:
    """Where the entries of a packed lower triangle are."""

    def __init__(self, size: int) -> None:
        self.rows, self.columns = np.tril_indices(size)
        self.flat = self.rows * size + self.columns
        self.twice = np.where(self.rows == self.columns, 1, 2).astype(np.float32)


@lru_cache(maxsize=64)
def _triangle(size: int) -> _Triangle:
    return _Triangle(size)

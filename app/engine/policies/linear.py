"""A linear model of each arm on the user's state: what `lin_ucb` and `lin_thompson` learn from rewards.

    reward_ui - m_ui = θ_i · x_u + noise,    θ_i ~ N(A_i⁻¹ b_i, A_i⁻¹),    A_i = I + Σ x x',  b_i = Σ (reward - m) x

m_ui is the recommender's own score, brought to 0..1 on the domain's scale: an arm without rewards is worth what the
recommender says, and rewards move it from there. x_u is a constant and a fixed random projection of the state, of
length at most √2. Li et al., "A contextual-bandit approach to personalized news article recommendation" (WWW 2010);
Agrawal and Goyal, "Thompson sampling for contextual bandits with linear payoffs" (ICML 2013).

States of two checkpoints have nothing in common, so the matrices belong to one checkpoint, by digest.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH = 8
"""Numbers of a context, the constant included."""

Floats = NDArray[np.float64]


def width(digest: str) -> int:
    """Numbers of a context made of that checkpoint's states."""
    return WIDTH if digest else 1


def context(digest: str, state: NDArray[np.float32]) -> list[float]:
    """x_u of a state, as it is logged. Without a checkpoint, whose digest is empty, it is the constant alone."""
    if not digest:
        return [1.0]
    seed = int.from_bytes(hashlib.blake2b(digest.encode(), digest_size=8).digest(), "big")
    projection = np.random.default_rng(seed).standard_normal((WIDTH - 1, len(state)))
    projected = projection @ state
    length = float(np.linalg.norm(projected))
    return [1.0, *(round(v, 6) for v in (projected / max(length, 1e-9)).tolist())]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A reward of an item that was shown in a context."""

    item_key: int
    context: tuple[float, ...]
    residual: float
    """Reward less m_ui; only the reward where the place had one before."""
    again: bool = False
    """Whether the place had a reward before: it adds to that one and is no new observation."""


class LinearArms:
    """A and b of the arms of one checkpoint that have rewards; the others have A = I and b = 0."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._row: dict[int, int] = {}
        self._precision = np.empty((0, width, width))
        self._shift = np.empty((0, width))
        self._covariance = np.empty((0, width, width))

    def __len__(self) -> int:
        return len(self._row)

    def learn(self, lessons: Iterable[Lesson]) -> "LinearArms":
        """The matrices with more rewards in them. What was there stays as it is: a request may be reading it."""
        lessons = list(lessons)
        made = LinearArms(self.width)
        made._row = dict(self._row)
        for lesson in lessons:
            made._row.setdefault(lesson.item_key, len(made._row))
        more = len(made._row) - len(self._row)
        made._precision = np.concatenate([self._precision, np.tile(np.eye(self.width), (more, 1, 1))])
        made._shift = np.concatenate([self._shift, np.zeros((more, self.width))])
        touched = set()
        for lesson in lessons:
            row, x = made._row[lesson.item_key], np.array(lesson.context)
            if not lesson.again:
                made._precision[row] += np.outer(x, x)
            made._shift[row] += lesson.residual * x
            touched.add(row)
        made._covariance = np.concatenate([self._covariance, np.tile(np.eye(self.width), (more, 1, 1))])
        at = sorted(touched)
        made._covariance[at] = np.linalg.inv(made._precision[at])
        return made

    def predict(self, item_keys: NDArray[np.int64], x: Floats) -> tuple[Floats, Floats]:
        """(mean, standard deviation) (m,) of θ_i · x of each item."""
        rows = np.array([self._row.get(key, -1) for key in item_keys.tolist()], dtype=np.int64)
        mean = np.zeros(len(rows))
        variance = np.full(len(rows), float(x @ x))
        known = np.flatnonzero(rows >= 0)
        if len(known):
            spread = self._covariance[rows[known]] @ x  # (r, d)
            mean[known] = (self._shift[rows[known]] * spread).sum(1)
            variance[known] = spread @ x
        return mean, np.sqrt(np.maximum(variance, 0))

"""Filling a slate place by place, and the probability with which each place got its item.

    P(a at place j | earlier places) = ε / |open_j| + (1 - ε) p_j(a)

A policy is its p_j: which item it would put next, given those that are taken. Whatever it is, a share ε of the places
goes to an item drawn uniformly from all that are still open, so that everything has a chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
NOWHERE = -1
"""The column of an item that is no candidate."""


class Base(Protocol):
    """What a policy would do if nothing were mixed in, place after place. Items are local indices."""

    @property
    def samples(self) -> int | None:
        """Draws behind its probabilities; None where these are exact."""

    @property
    def random(self) -> bool:
        """Whether it is random, with probabilities that it knows."""

    def next(self) -> int:
        """The item for the next place."""

    def probability(self, item: int) -> float:
        """Probability that `next` gives that item."""

    def take(self, item: int) -> None:
        """The next place got that item; go on to the one behind it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A slate as a policy chose it."""

    local: Indices
    """Local indices, the first place first."""
    propensities: Sequence[float] | None
    """Probability of each place's item given the earlier places; None where the policy is deterministic."""
    explored: Sequence[bool]
    """Whether the greedy slate would not have had the item."""
    log: dict[str, Any]
    """What else the log needs to know of the choice."""


class Ranked:
    """Deterministic: the best of an order that are not taken."""

    samples: int | None = None
    random = False

    def __init__(self, order: Sequence[int]) -> None:
        """`order`: at least as many items as there are places, the best first."""
        self._order = order
        self._at = 0
        self._taken: set[int] = set()

    def next(self) -> int:
        """The first of the order that is not taken."""
        while self._order[self._at] in self._taken:
            self._at += 1
        return self._order[self._at]

    def probability(self, item: int) -> float:
        """1 for the next item, 0 for any other."""
        return float(item == self.next())

    def take(self, item: int) -> None:
        """Leave it out from now on."""
        self._taken.add(item)


class Drawn:
    """Thompson sampling: each place goes to the best item of a joint draw of its own.

    The probability of an item is estimated by `samples` further joint draws and the place's own one:

        p̂ = (1[own draw's best = a] + Σ_s 1[draw s's best = a]) / (samples + 1)

    That is unbiased for any fixed item, with variance p (1 - p) / (samples + 1), and never 0 for one that was drawn.
    """

    def __init__(self, items: Indices, draws: NDArray[np.float32], places: int) -> None:
        """`draws` is (places + samples, m), m ≥ places, for the m items; the first `places` are the places' own."""
        self._items = items
        self._own = draws[:places].copy()
        self._place = 0
        # Of each draw no more than its best `places` can matter: fewer are taken before the last place is filled.
        self._pool = _best(draws[places:], places)  # (samples, places)
        self._at = np.zeros(len(self._pool), np.int64)
        self._first = self._pool[:, 0].copy()  # (samples,) column of each draw's best that is not taken
        self._gone = np.zeros(len(items), bool)
        self._next: int | None = None  # column that the place's own draw says, once somebody has asked

    @property
    def samples(self) -> int | None:
        """Joint draws beside the place's own."""
        return len(self._pool)

    @property
    def random(self) -> bool:
        """Its probabilities are known where there are draws to count."""
        return len(self._pool) > 0

    def next(self) -> int:
        """The best item of the place's own draw."""
        if self._next is None:
            self._next = int(self._own[self._place].argmax())
        return int(self._items[self._next])

    def probability(self, item: int) -> float:
        """The estimate for that item at the next place."""
        hits = np.count_nonzero(self._first == self._column(item)) + (self.next() == item)
        return float(hits) / (len(self._pool) + 1)

    def take(self, item: int) -> None:
        """Leave it out of all draws from now on."""
        column = self._column(item)
        self._place += 1
        self._next = None
        if column == NOWHERE or self._place == len(self._own):
            return
        self._own[self._place :, column] = -np.inf
        if not len(self._pool):
            return
        self._gone[column] = True
        stale = np.flatnonzero(self._first == column)
        while len(stale):
            self._at[stale] += 1
            self._first[stale] = self._pool[stale, self._at[stale]]
            stale = stale[self._gone[self._first[stale]]]

    def _column(self, item: int) -> int:
        """Where an item is among the candidates: mostly the one that the place's own draw says."""
        if self._next is not None and self._items[self._next] == item:
            return self._next
        found = np.flatnonzero(self._items == item)
        return int(found[0]) if len(found) else NOWHERE


def _best(draws: NDArray[np.float32], k: int) -> Indices:
    """Columns of the k largest of each row, the largest first; draws is (n, m), k ≤ m."""
    n, m = draws.shape
    if not n:
        return np.empty((0, k), np.int64)
    some = np.argpartition(draws, -k, axis=1)[:, -k:] if k < m else np.tile(np.arange(m), (n, 1))
    order = np.argsort(-np.take_along_axis(draws, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def fill(
    base: Base,
    k: int,
    epsilon: float,
    is_open: NDArray[np.bool_],
    greedy: Indices,
    generator: np.random.Generator,
    log: dict[str, Any],
) -> Choice:
    """A slate of k items, fewer where fewer are open; `greedy` is the slate without exploration."""
    n_open = int(np.count_nonzero(is_open))
    k = min(k, n_open)
    uniform = generator.random(k) < epsilon
    known = epsilon > 0 or base.random
    chosen: list[int] = []
    propensities: list[float] = []
    for place in range(k):
        item = _any(is_open, chosen, generator) if uniform[place] else base.next()
        if known:
            propensities.append(epsilon / (n_open - place) + (1 - epsilon) * base.probability(item))
        chosen.append(item)
        base.take(item)
    usual = set(greedy.tolist())
    explored = [item not in usual for item in chosen]
    if base.samples is not None:
        log["samples"] = base.samples
    return Choice(np.array(chosen, np.int64), propensities if known else None, explored, log)


def _any(is_open: NDArray[np.bool_], taken: Sequence[int], generator: np.random.Generator) -> int:
    """An open item that is not taken, each as likely as any other."""
    for item in generator.integers(len(is_open), size=16).tolist():
        if is_open[item] and item not in taken:
            return int(item)
    return int(generator.choice(np.setdiff1d(np.flatnonzero(is_open), taken)))

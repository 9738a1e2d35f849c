"""The catalogue as one worker sees it: every item of every domain at a position that never changes.

A `Catalogue` is an immutable snapshot. Following storage makes a new one, so that a request that is being answered
keeps the one it began with.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.datasets.schema import Attributes, Domain, values_of


@dataclass(frozen=True, slots=True)
class CatalogueItem:
    """An item of the installation."""

    key: int
    """Its key in storage; ascending with the order of arrival."""
    domain: str
    item_id: str
    title: str
    attributes: Attributes
    available: bool
    """Whether it may be recommended; a deleted item is not, but old ratings of it still count as evidence."""
    deleted: bool = False


@dataclass(frozen=True)
class Shelf:
    """The items of one domain, in the order of their positions; `local` means an index into this order."""

    domain: Domain
    number: int
    """The shelf's place among the catalogue's."""
    items: list[CatalogueItem]
    positions: NDArray[np.int64]
    """(n,) position in the whole catalogue of each local index."""

    @cached_property
    def local_of(self) -> dict[str, int]:
        """Item id → local index, of items that are not deleted."""
        return {item.item_id: local for local, item in enumerate(self.items) if not item.deleted}

    @cached_property
    def position_of(self) -> dict[str, int]:
        """Item id → position in the whole catalogue, of items that are not deleted."""
        positions = self.positions.tolist()
        return {item_id: positions[local] for item_id, local in self.local_of.items()}

    @cached_property
    def keys(self) -> NDArray[np.int64]:
        """(n,) storage's key of each item."""
        return np.array([item.key for item in self.items], dtype=np.int64)

    @cached_property
    def unavailable(self) -> NDArray[np.int64]:
        """Local indices that are never recommended."""
        return np.array([local for local, item in enumerate(self.items) if not item.available], dtype=np.int64)

    @cached_property
    def _by_value(self) -> dict[tuple[str, str], NDArray[np.int64]]:
        found: dict[tuple[str, str], list[int]] = {}
        for local, item in enumerate(self.items):
            for name, cell in item.attributes.items():
                for value in values_of(cell):
                    found.setdefault((name, value), []).append(local)
        return {key: np.array(locals_, dtype=np.int64) for key, locals_ in found.items()}

    def where(self, attribute: str, values: Iterable[str]) -> NDArray[np.int64]:
        """Local indices of the items that have one of the values."""
        hits = [self._by_value[attribute, value] for value in values if (attribute, value) in self._by_value]
        return np.unique(np.concatenate(hits)) if hits else np.empty(0, np.int64)


@dataclass(frozen=True)
class Catalogue:
    """Every domain and item at one revision of storage."""

    revision: int = 0
    items: list[CatalogueItem] = field(default_factory=list)
    """By position."""
    position_of: dict[int, int] = field(default_factory=dict)
    """Storage key → position."""
    shelves: dict[str, Shelf] = field(default_factory=dict)
    local: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """(N,) index of each position within its own domain's shelf."""
    shelf_of: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """(N,) `Shelf.number` of the shelf that each position lies on."""

    def followed(
        self, revision: int, domains: Sequence[Domain], changed: Sequence[CatalogueItem]
    ) -> tuple["Catalogue", list[int]]:
        """(the catalogue at a later revision, the positions whose items are new or changed)."""
        items, position_of = list(self.items), dict(self.position_of)
        positions = []
        for item in changed:
            position = position_of.setdefault(item.key, len(items))
            if position == len(items):
                items.append(item)
            else:
                items[position] = item
            positions.append(position)
        number = {domain.name: i for i, domain in enumerate(domains)}
        shelf_of = np.array([number[item.domain] for item in items], dtype=np.int64)
        local = np.empty(len(items), np.int64)
        shelves = {}
        for i, domain in enumerate(domains):
            on_shelf = np.flatnonzero(shelf_of == i)
            local[on_shelf] = np.arange(len(on_shelf))
            shelves[domain.name] = Shelf(domain, i, [items[p] for p in on_shelf.tolist()], on_shelf)
        return Catalogue(revision, items, position_of, shelves, local, shelf_of), positions

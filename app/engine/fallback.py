"""What answers for a domain that has no checkpoint: content and live counts.

    r_ui = b_i + s * cos(p_u, f_i),    p_u = sum_j w_j (r_j - mean) f_j,    s = a quarter of the scale

b_i is the shrunken mean of the ratings that came in so far, plus a little for every doubling of the number of events,
so that well-known items come first while nothing is known of the user. f_i is the item's one-hot content.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from app.engine.catalogue import CatalogueItem, Shelf
from models.datasets.dataset import Dataset, item_content
from models.datasets.schema import AttributeEncoder, AttributeField, Schema, values_of, vocabulary
from models.recommender import (
    Columns,
    Evidence,
    FitOptions,
    Fitted,
    ItemContent,
    ItemTable,
    Recommender,
    RecommenderConfig,
    Role,
    Scores,
)

SHRINKAGE = 5.0
"""Ratings' worth of belief that an item is average."""
FAME = 0.02
"""Share of the scale that one doubling of an item's events is worth."""


class Fallback(Recommender):
    """Content and live counts of one domain; built from the catalogue, never trained or saved."""

    name: ClassVar[str] = "content-and-counts"
    role: ClassVar[Role] = "content"
    Config = RecommenderConfig
    middle: Tensor

    def __init__(self, config: RecommenderConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        low, high = schema.scales()
        self.register_buffer("middle", (low + high) / 2, persistent=False)
        self.spread = float(high[0] - low[0])

    @property
    def state_size(self) -> int:
        return max(1, self.schema.item_attributes.width)

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        raise TypeError("the fallback is built from the catalogue, not fitted")

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        n = len(content)
        features = content.features if content.features.shape[1] else torch.zeros(n, 1)
        return {"features": normalize(features), "bias": self.middle.expand(n).clone()}

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        taste = (evidence.values - self.middle) * evidence.weights  # (B, L)
        return torch.einsum("bl,blf->bf", taste, table["features"][evidence.items])  # (B, F)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        likeness = normalize(states) @ table["features"][rows].T  # (B, N) cosine
        return Scores(table["bias"][rows] + self.spread / 4 * likeness)


Values = dict[str, Counter[str]]
"""Name of an attribute → how many times each of its values is given."""


@dataclass(frozen=True)
class Described:
    """A shelf's items as the fallback knows them before anything is counted."""

    shelf: Shelf
    values: Values
    recommender: Fallback
    table: ItemTable

    @classmethod
    def of(cls, shelf: Shelf) -> "Described":
        """All items, described from the start."""
        values: Values = defaultdict(Counter)
        _count(values, shelf.items, 1)
        schema = Schema(domains=[shelf.domain], item_attributes=_encoder(values))
        recommender = Fallback(RecommenderConfig(), schema)
        recommender.eval().requires_grad_(False)
        columns = recommender.embed_items(_content(schema, shelf.items), 0)
        n = len(shelf.items)
        return cls(shelf, values, recommender, ItemTable(columns, torch.zeros(n).long(), torch.zeros(n).bool()))

    def following(self, shelf: Shelf) -> "Described":
        """The same for another state of the shelf: what changed is described, all of it where known values changed."""
        met = len(self.shelf.items)
        if shelf.domain != self.shelf.domain or len(shelf.items) < met:
            return Described.of(shelf)
        changed = [i for i, (was, now) in enumerate(zip(self.shelf.items, shelf.items, strict=False)) if was is not now]
        arrived = shelf.items[met:]
        values: Values = defaultdict(Counter, {name: counts.copy() for name, counts in self.values.items()})
        _count(values, [self.shelf.items[i] for i in changed], -1)
        _count(values, [shelf.items[i] for i in changed] + arrived, 1)
        schema = self.recommender.schema
        if _known(_encoder(values)) != _known(schema.item_attributes):
            return Described.of(shelf)
        table = self.table
        if changed:
            columns = self.recommender.embed_items(_content(schema, [shelf.items[i] for i in changed]), 0)
            table = table.with_rows(torch.tensor(changed), columns)
        if arrived:
            table = table.appended(self.recommender.embed_items(_content(schema, arrived), 0), 0)
        return Described(shelf, values, self.recommender, table)


def counted(described: Described, counts: NDArray[np.float64]) -> ItemTable:
    """The items' table by what users did; `counts` is (n, 3), by local index: ratings, their sum, all events."""
    ratings, total, events = torch.from_numpy(counts).float().unbind(1)
    recommender, table = described.recommender, described.table
    fame = FAME * recommender.spread * (1 + events).log() / math.log(2)
    bias = (total + SHRINKAGE * recommender.middle[0]) / (ratings + SHRINKAGE) + fame
    return replace(table, columns={**table.columns, "bias": bias})


def _count(values: Values, items: Iterable[CatalogueItem], times: int) -> None:
    """Count the values of items `times` times more."""
    for item in items:
        for name, cell in item.attributes.items():
            if isinstance(cell, list | str):
                for value in values_of(cell):
                    values[name][value] += times


def _encoder(values: Values) -> AttributeEncoder:
    fields = [AttributeField(name=name, kind="multi", vocabulary=vocabulary(counts)) for name, counts in values.items()]
    return AttributeEncoder(fields=fields)


def _known(encoder: AttributeEncoder) -> set[tuple[str, str]]:
    """(attribute, value) of each column. In which order they stand changes no answer."""
    return {(field.name, value) for field in encoder.fields for value in field.vocabulary}


def _content(schema: Schema, items: Sequence[CatalogueItem]) -> ItemContent:
    return item_content(schema.item_attributes, [item.title for item in items], [item.attributes for item in items])

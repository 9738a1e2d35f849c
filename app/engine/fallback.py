"""What answers for a domain that has no checkpoint: content and live counts.

    r_ui = b_i + s * cos(p_u, f_i),    p_u = sum_j w_j (r_j - mean) f_j,    s = a quarter of the scale

b_i is the shrunken mean of the ratings that came in so far, plus a little for every doubling of the number of events,
so that well-known items come first while nothing is known of the user. f_i is the item's one-hot content.
"""

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from app.engine.catalogue import Shelf
from models.datasets.dataset import Dataset
from models.datasets.schema import AttributeEncoder, AttributeKind, Schema
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


def build(shelf: Shelf) -> tuple[Fallback, ItemTable]:
    """The fallback for a shelf, before anything is counted."""
    schema = Schema(domains=[shelf.domain], item_attributes=_learn_encoder(shelf))
    recommender = Fallback(RecommenderConfig(), schema)
    recommender.eval().requires_grad_(False)
    texts = [item.title for item in shelf.items]
    content = ItemContent(schema.item_attributes.encode([item.attributes for item in shelf.items]), texts)
    columns = recommender.embed_items(content, 0)
    n = len(shelf.items)
    return recommender, ItemTable(columns, torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.bool))


def counted(recommender: Fallback, table: ItemTable, counts: NDArray[np.float64]) -> ItemTable:
    """The table by what users did; `counts` is (n, 3): ratings, their sum, events of any kind, by local index."""
    ratings, total, events = torch.from_numpy(counts).float().unbind(1)
    fame = FAME * recommender.spread * (1 + events).log() / math.log(2)
    bias = (total + SHRINKAGE * recommender.middle[0]) / (ratings + SHRINKAGE) + fame
    return replace(table, columns={**table.columns, "bias": bias})


def _learn_encoder(shelf: Shelf) -> AttributeEncoder:
    kinds: dict[str, AttributeKind] = {}
    for item in shelf.items:
        for name, value in item.attributes.items():
            if isinstance(value, list):
                kinds[name] = "multi"
            elif isinstance(value, str):
                kinds.setdefault(name, "categorical")
    return AttributeEncoder.learn(kinds, [item.attributes for item in shelf.items])

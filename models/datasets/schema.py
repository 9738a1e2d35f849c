"""What a data set says about itself: domains, rating scales, kinds of events, attributes.

A `Schema` is plain JSON. It travels in every checkpoint's card, so that the service encodes a newcomer's attributes and
a new item's content exactly as training did.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from models.datasets.images import pixels

AttributeKind = Literal["numeric", "categorical", "multi", "text", "image"]
Attributes = Mapping[str, Any]
"""Raw attributes of one user or item: name → number, string (of an `image` its thumbnail), or strings (`multi`)."""

MULTI_SEPARATOR = "|"
MIN_COUNT = 2
"""Times that a value must be seen to become a column."""
MAX_VOCABULARY = 400
"""Columns that one attribute may have."""
GREATEST = 1e15
"""Size of a number at which the mean and the deviation of its attribute stop following it."""
FARTHEST = 1e6
"""Standard deviations from the mean at which an encoded number ends: what lies beyond is a slip, and its square would
overflow."""


class Kind(BaseModel):
    """What one kind of event (`click`, `view`, `purchase`, …) is worth in a domain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    """The rating, on the domain's scale, that the event stands for as evidence."""
    weight: float = Field(1.0, gt=0, le=1)
    """How much evidence it is, as a share of an explicit rating."""
    reward: float = 0.0
    """What it is worth when it follows a shown item."""


class Domain(BaseModel):
    """A catalogue with its own items and rating scale."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    rating_min: float = 1.0
    rating_max: float = 5.0
    kinds: dict[str, Kind] = {}
    """Kinds other than `rating`, whose value is its own."""

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> "Domain":
        if not self.rating_min < self.rating_max:
            raise ValueError("rating_min must be below rating_max")
        return self

    def evidence_of(self, kind: str, value: float | None) -> tuple[float, float] | None:
        """(rating it stands for, weight) of an event, or None where the domain gives that kind no meaning.

        >>> Domain(name="m", kinds={"click": Kind(value=4, weight=0.25)}).evidence_of("click", None)
        (4.0, 0.25)
        """
        if kind == "rating":
            return None if value is None else (value, 1.0)
        worth = self.kinds.get(kind)
        return None if worth is None else (worth.value, worth.weight)


class AttributeField(BaseModel):
    """How one attribute becomes columns."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: AttributeKind
    vocabulary: list[str] = []
    """Known values, one column each (`categorical`, `multi`)."""
    mean: float = Field(0.0, allow_inf_nan=False)
    std: float = Field(1.0, gt=0, allow_inf_nan=False)

    @property
    def width(self) -> int:
        """Columns taken; texts and pictures take none, who reads those has `ItemContent.texts` and `images`."""
        return {"numeric": 1, "text": 0, "image": 0}.get(self.kind, len(self.vocabulary))


class AttributeEncoder(BaseModel):
    """Raw attributes → a float row. One-hot and multi-hot over a learnt vocabulary, standardised numbers.

    What is missing or was never seen in training is zeros, so an unknown value changes nothing.
    """

    model_config = ConfigDict(frozen=True)

    fields: list[AttributeField] = []

    @property
    def width(self) -> int:
        """Columns of an encoded row."""
        return sum(field.width for field in self.fields)

    @classmethod
    def learn(
        cls,
        kinds: Mapping[str, AttributeKind],
        rows: Sequence[Attributes],
        min_count: int = MIN_COUNT,
        max_vocabulary: int = MAX_VOCABULARY,
    ) -> "AttributeEncoder":
        """Vocabularies (values seen `min_count` times or more, the most frequent first) and scales, from raw rows."""
        return cls(fields=[_learn_field(name, kind, rows, min_count, max_vocabulary) for name, kind in kinds.items()])

    def encode(self, rows: Sequence[Attributes]) -> Tensor:
        """(n, width) float32.

        >>> encoder = AttributeEncoder.learn({"genres": "multi"}, [{"genres": ["a", "b"]}, {"genres": ["a"]}], 1)
        >>> encoder.encode([{"genres": ["b", "never seen"]}, {}]).tolist()
        [[0.0, 1.0], [0.0, 0.0]]
        """
        out = torch.zeros(len(rows), self.width)
        start = 0
        for field in self.fields:
            if field.kind == "numeric":
                for i, row in enumerate(rows):
                    number = row.get(field.name)
                    if isinstance(number, int | float):
                        out[i, start] = max(-FARTHEST, min(FARTHEST, (number - field.mean) / field.std))
            elif field.vocabulary:
                column = {value: start + j for j, value in enumerate(field.vocabulary)}
                hits = [
                    (i, column[value])
                    for i, row in enumerate(rows)
                    for value in values_of(row.get(field.name))
                    if value in column
                ]
                if hits:
                    out[tuple(torch.tensor(hits).T)] = 1.0
            start += field.width
        return out

    def texts(self, rows: Sequence[Attributes]) -> list[str]:
        """The text attributes of each row, joined; empty where there are none."""
        names = [field.name for field in self.fields if field.kind == "text"]
        return [" ".join(str(row[name]) for name in names if row.get(name)) for row in rows]

    def images(self, rows: Sequence[Attributes]) -> Tensor | None:
        """(n, 3, 32, 32) uint8, the first picture that each row has, zeros where it has none; None where rows never
        have one."""
        names = [field.name for field in self.fields if field.kind == "image"]
        if not names:
            return None
        return pixels([next((str(row[name]) for name in names if row.get(name)), None) for row in rows])


def values_of(cell: Any) -> list[str]:
    """The values of a categorical or multi attribute: none, one, or several."""
    if cell is None or cell == "":
        return []
    return [str(value) for value in cell] if isinstance(cell, list | tuple) else [str(cell)]


def vocabulary(counts: Counter[str], min_count: int = MIN_COUNT, max_vocabulary: int = MAX_VOCABULARY) -> list[str]:
    """The values of an attribute that become columns: seen `min_count` times or more, the most frequent first."""
    known = sorted((v for v, n in counts.items() if n >= min_count), key=lambda v: (-counts[v], v))
    return known[:max_vocabulary]


def _learn_field(
    name: str, kind: AttributeKind, rows: Sequence[Attributes], min_count: int, max_vocabulary: int
) -> AttributeField:
    if kind == "numeric":
        given = [float(row[name]) for row in rows if isinstance(row.get(name), int | float)]
        numbers = torch.tensor(given).clamp(-GREATEST, GREATEST)
        if len(numbers) < 2:
            return AttributeField(name=name, kind=kind)
        return AttributeField(name=name, kind=kind, mean=float(numbers.mean()), std=float(numbers.std()) or 1.0)
    if kind in ("text", "image"):
        return AttributeField(name=name, kind=kind)
    counts = Counter(value for row in rows for value in values_of(row.get(name)))
    return AttributeField(name=name, kind=kind, vocabulary=vocabulary(counts, min_count, max_vocabulary))


class Schema(BaseModel):
    """All that a recommender must know of a data set to be rebuilt from its card and to encode new users and items."""

    model_config = ConfigDict(frozen=True)

    domains: list[Domain]
    user_attributes: AttributeEncoder = AttributeEncoder()
    item_attributes: AttributeEncoder = AttributeEncoder()
    """One encoder for the items of all domains: an attribute that two domains share has the same columns in both."""
    kinds: list[str] = ["rating"]
    """Kinds of interactions, by their index in `Evidence.kinds`."""

    def domain_index(self, name: str) -> int:
        """Index of a domain. Raises KeyError for a name the data set does not have."""
        for i, domain in enumerate(self.domains):
            if domain.name == name:
                return i
        raise KeyError(name)

    def scales(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest rating of each domain, (n_domains,) each."""
        return (
            torch.tensor([d.rating_min for d in self.domains]),
            torch.tensor([d.rating_max for d in self.domains]),
        )

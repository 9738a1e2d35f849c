"""Data sets of a few ratings, written out in the test that uses them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.datasets.dataset import Dataset, Interactions, Items
from models.datasets.schema import AttributeEncoder, AttributeField, Domain, Kind, Schema
from models.recommender import Evidence, ItemContent

FILMS = Domain(name="films", kinds={"click": Kind(value=4, weight=0.25)})
BOOKS = Domain(name="books", rating_min=0, rating_max=8)  # a step is two


def tiny(
    ratings: Sequence[tuple[int, int, float] | tuple[int, int, float, float]],
    domain: Sequence[int],
    *,
    features: Tensor | None = None,
    attributes: Tensor | None = None,
    texts: Sequence[str] | None = None,
    n_users: int | None = None,
) -> Dataset:
    """A data set of (user, item, value[, weight]) rows; `domain` has an entry for each item."""
    n_users = n_users or max(row[0] for row in ratings) + 1
    features = torch.zeros(len(domain), 0) if features is None else features
    attributes = torch.zeros(n_users, 0) if attributes is None else attributes
    weights = torch.tensor([row[3] if len(row) == 4 else 1.0 for row in ratings])
    schema = Schema(
        domains=[FILMS, BOOKS][: max(domain) + 1],
        user_attributes=_numbers(attributes.shape[1]),
        item_attributes=_numbers(features.shape[1]),
        kinds=["rating", "click"],
    )
    return Dataset(
        name="tiny",
        schema=schema,
        user_ids=[f"u{i}" for i in range(n_users)],
        user_attributes=attributes,
        items=Items(
            ids=[f"i{i}" for i in range(len(domain))],
            titles=[f"Item {i}" for i in range(len(domain))],
            domain=torch.tensor(domain),
            attributes=[{} for _ in domain],
            content=ItemContent(features, list(texts or [""] * len(domain))),
        ),
        interactions=Interactions.sorted(
            torch.tensor([row[0] for row in ratings]),
            torch.tensor([row[1] for row in ratings]),
            torch.tensor([float(row[2]) for row in ratings]),
            weights,
            (weights < 1).long(),
            torch.full((len(ratings),), torch.nan, dtype=torch.float64),
        ),
    )


def evidence(
    *events: tuple[int, float] | tuple[int, float, float], attributes: Sequence[float] | None = None
) -> Evidence:
    """Evidence of one user from (item, value[, weight]) events."""
    n = len(events)
    return Evidence(
        items=torch.tensor([[e[0] for e in events]], dtype=torch.long).view(1, n),
        values=torch.tensor([[float(e[1]) for e in events]]).view(1, n),
        weights=torch.tensor([[e[2] if len(e) == 3 else 1.0 for e in events]]).view(1, n),
        kinds=torch.zeros(1, n, dtype=torch.long),
        times=torch.full((1, n), torch.nan, dtype=torch.float64),
        attributes=torch.tensor([list(attributes or [])]).view(1, -1),
    )


def _numbers(width: int) -> AttributeEncoder:
    return AttributeEncoder(fields=[AttributeField(name=f"x{i}", kind="numeric") for i in range(width)])

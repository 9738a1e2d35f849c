"""Book-Crossing (Ziegler et al., "Improving Recommendation Lists Through Topic Diversification", WWW 2005).

Explicit ratings 1 to 10 as prepared for CLOVER (T. Wei and J. He, "Comprehensive Fair Meta-learned Recommender System",
KDD 2022): 3,488 users, 109,487 ratings; users have an age group and a location, books an author, a publisher and a
year, all of them labels. No titles, no times. It shares nothing with films: the hostile source for a transfer.
"""

import polars as pl

from models.datasets.description import Description, DomainDescription
from models.datasets.folder import Tables
from models.datasets.schema import AttributeKind
from models.datasets.sources import Files

DOMAIN = "books"
USER_ATTRIBUTES: dict[str, AttributeKind] = {"age_over_40": "categorical", "location": "categorical"}
ITEM_ATTRIBUTES: dict[str, AttributeKind] = {"author": "categorical", "publisher": "categorical", "year": "categorical"}


def from_files(files: Files) -> Tables:
    """The tables of `interactions.csv`, `users.csv` and `items.csv`. Raises KeyError where one is missing."""
    interactions, users, items = (pl.read_csv(files[f"{n}.csv"], infer_schema=False) for n in _COLUMNS)
    return Tables(
        Description(
            name="book-crossing",
            source="Book-Crossing, C.-N. Ziegler (WWW 2005), as prepared for CLOVER (KDD 2022); for research",
            domains={DOMAIN: DomainDescription(rating_min=1, rating_max=10, item_attributes=ITEM_ATTRIBUTES)},
            user_attributes=USER_ATTRIBUTES,
        ),
        interactions.select(*_COLUMNS["interactions"]),
        users.select(*_COLUMNS["users"]),
        items.select(*_COLUMNS["items"]),
    )


_COLUMNS = {
    "interactions": ("user_id", "domain", "item_id", "value", "occurred_at"),
    "users": ("user_id", *USER_ATTRIBUTES),
    "items": ("domain", "item_id", "title", *ITEM_ATTRIBUTES),
}

"""Small data set folders for the tests."""

from pathlib import Path

import polars as pl

from models.datasets.dataset import Dataset
from models.datasets.description import Description, DomainDescription
from models.datasets.folder import Tables, read
from models.datasets.schema import Kind

TWO_DOMAINS = """
name = "films and books"

[domains.films]
rating_min = 1
rating_max = 5

[domains.films.kinds]
click = {value = 4.0, weight = 0.2, reward = 1.0}

[domains.films.item_attributes]
year = "numeric"
genres = "multi"
plot = "text"

[domains.books]
rating_min = 0
rating_max = 10

[domains.books.kinds]
view = {value = 6.0, weight = 0.1}

[domains.books.item_attributes]
genres = "multi"

[user_attributes]
age = "numeric"
city = "categorical"
"""
INTERACTIONS = """user_id,domain,item_id,value,occurred_at,kind
ann,films,7,4.5,1970-01-01T00:01:40Z,
ann,films,007,2,50,rating
ann,books,7,9,,
bob,films,7,,60,click
bob,books,7,,70,view
"""
USERS = """user_id,age,city
bob,40,Oslo
cid,20,Oslo
"""
ITEMS = """domain,item_id,title,year,genres,plot,same_as
films,7,Seven,1995,crime|drama,Two detectives.,books/7
films,8,Eight,,crime,,
books,7,Seven (the book),,drama,,
"""
FILES = {"dataset.toml": TWO_DOMAINS, "interactions.csv": INTERACTIONS, "users.csv": USERS, "items.csv": ITEMS}


def write_files(folder: Path, **changed: str | None) -> Path:
    """The two-domain folder with some files (named without suffix) replaced, or left out where None."""
    folder.mkdir(exist_ok=True)
    for name, content in FILES.items():
        text = changed.get(name.split(".")[0], content)
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def two_domains(folder: Path) -> Dataset:
    """The two-domain data set, read."""
    return read(write_files(folder))


def grid_tables(n_users: int = 30, n_items: int = 12) -> Tables:
    """One domain in which user u rates item i with 1 + (2u + 3i) mod 5, unless u + i is a multiple of 4."""
    pairs = [(u, i) for u in range(n_users) for i in range(n_items) if (u + i) % 4]
    return Tables(
        Description(
            name="grid",
            domains={
                "movies": DomainDescription(
                    rating_min=1,
                    rating_max=5,
                    kinds={"click": Kind(value=4, weight=0.2, reward=1)},
                    item_attributes={"genre": "categorical"},
                )
            },
            user_attributes={"group": "categorical"},
        ),
        pl.DataFrame(
            {
                "user_id": [f"u{u}" for u, _ in pairs],
                "domain": ["movies"] * len(pairs),
                "item_id": [f"i{i}" for _, i in pairs],
                "value": [1 + (2 * u + 3 * i) % 5 for u, i in pairs],
                "occurred_at": [1_000_000 + 60 * u + i for u, i in pairs],
            }
        ),
        pl.DataFrame({"user_id": [f"u{u}" for u in range(n_users)], "group": ["ab"[u % 2] for u in range(n_users)]}),
        pl.DataFrame(
            {
                "domain": ["movies"] * n_items,
                "item_id": [f"i{i}" for i in range(n_items)],
                "title": [f"Item {i}" for i in range(n_items)],
                "genre": [("x", "y", "z")[i % 3] for i in range(n_items)],
            }
        ),
    )

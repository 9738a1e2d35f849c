"""Richer content for films than MovieLens has itself, from a file with a row a film, named by `Title (Year)`.

    title,mpaa,genres,director,writer,actors,plot

Cells of several values are separated by `|`. Films that the file does not have keep what they had.
"""

from dataclasses import replace
from pathlib import Path

import polars as pl

from models.datasets.description import DatasetError
from models.datasets.folder import Tables
from models.datasets.schema import AttributeKind
from models.datasets.sheet import Sheet

CONTENT: dict[str, AttributeKind] = {
    "mpaa": "categorical",
    "genres": "multi",
    "director": "multi",
    "writer": "multi",
    "actors": "multi",
    "plot": "text",
}


def with_content(tables: Tables, file: Path) -> Tables:
    """The same tables with the file's attributes for each film whose title it has. Raises DatasetError."""
    sheet = Sheet.open(file, ("title", *CONTENT), ())
    titles = sheet.identifiers("title")
    sheet.require(titles.is_first_distinct(), "the film has a row already", "title")
    assert tables.items is not None
    if not tables.items["title"].is_in(titles.implode()).any():
        raise DatasetError(file.name, None, "it has none of the films")
    rows = sheet.frame.select(titles, *(pl.col(name).alias(f"file {name}") for name in CONTENT))
    items = tables.items.join(rows, on="title", how="left", maintain_order="left")
    own = set(tables.items.columns)
    merged = [pl.coalesce(f"file {name}", *[name] * (name in own)).alias(name) for name in CONTENT]
    items = items.with_columns(merged).drop(f"file {name}" for name in CONTENT)
    domains = {
        name: domain.model_copy(update={"item_attributes": {**domain.item_attributes, **CONTENT}})
        for name, domain in tables.description.domains.items()
    }
    return replace(tables, description=tables.description.model_copy(update={"domains": domains}), items=items)

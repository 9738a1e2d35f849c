"""A data set folder of one domain, made of CSV files as people have them: with columns of their own names."""

from pathlib import Path

import polars as pl

from models.datasets.dataset import Dataset
from models.datasets.description import RESERVED, DatasetError, Description, DomainDescription
from models.datasets.folder import Tables, write
from models.datasets.schema import MULTI_SEPARATOR, AttributeKind

FEW = 0.2
"""An attribute with fewer different values than this share of its rows is categorical, otherwise text."""


def make(
    ratings: Path,
    out: Path,
    *,
    domain: str,
    user: str,
    item: str,
    rating: str,
    time: str | None = None,
    items: Path | None = None,
    scale: tuple[float, float] | None = None,
) -> Dataset:
    """Write the folder `out` and return it as read back.

    `user`, `item`, `rating` and `time` name columns of `ratings`; `items` has the same `item` column, perhaps titles,
    and attributes, whose kinds follow from their values. Without a `scale` it is from the lowest rating to the highest.
    Raises DatasetError, and FileExistsError where `out` has something in it.
    """
    if len({user, item, rating, time}) < 4:
        raise DatasetError(ratings.name, 1, "one column cannot be two things")
    columns = {user: "user_id", item: "item_id", rating: "value"} | ({time: "occurred_at"} if time else {})
    events = _columns(ratings, columns).with_columns(pl.lit(domain).alias("domain"))
    low, high = scale or _range(events["value"], ratings, rating)
    about, attributes = None, {}
    if items is not None:
        about = _table(items, (item,)).rename({item: "item_id"}).with_columns(pl.lit(domain).alias("domain"))
        attributes = {name: _kind(about[name]) for name in about.columns if name not in RESERVED}
    described = DomainDescription(rating_min=low, rating_max=high, item_attributes=attributes)
    return write(Tables(Description(name=domain, domains={domain: described}), events, None, about), out)


def _columns(path: Path, names: dict[str, str]) -> pl.DataFrame:
    """The columns of a file that are wanted, under the names that a folder has for them."""
    return _table(path, tuple(names)).select(pl.col(there).alias(here) for there, here in names.items())


def _table(path: Path, required: tuple[str, ...]) -> pl.DataFrame:
    """A CSV file, cells as they stand there."""
    try:
        table = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DatasetError(path.name, None, f"cannot be read as CSV: {error}") from error
    for column in required:
        if column not in table.columns:
            raise DatasetError(path.name, 1, f"there is no column {column!r}, only {', '.join(table.columns)}")
    return table


def _range(values: pl.Series, path: Path, column: str) -> tuple[float, float]:
    numbers = values.cast(pl.Float64, strict=False).drop_nulls()
    low, high = numbers.min(), numbers.max()
    if not isinstance(low, float) or not isinstance(high, float) or low >= high:
        raise DatasetError(path.name, None, f"the column {column!r} has no ratings that differ; give the scale")
    return low, high


def _kind(values: pl.Series) -> AttributeKind:
    """What an attribute is, by its values.

    >>> _kind(pl.Series(["1815", "1854"])), _kind(pl.Series(["novel|satire", "novel"]))
    ('numeric', 'multi')
    """
    there = values.drop_nulls().filter(values.drop_nulls() != "")
    if not there.is_empty() and there.cast(pl.Float64, strict=False).is_not_null().all():
        return "numeric"
    if there.str.contains(MULTI_SEPARATOR, literal=True).any():
        return "multi"
    return "categorical" if there.n_unique() <= max(FEW * len(there), 10) else "text"

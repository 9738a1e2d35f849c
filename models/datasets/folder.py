"""The data set folder: what `warmstart train` and `warmstart evaluate` read, and every fetcher writes.

    dataset.toml       name, domains with their scales and kinds of events, attributes
    interactions.csv   user_id, domain, item_id, value[, occurred_at, kind, dwell_seconds, device, location]
                       (or interactions.parquet)
    users.csv          user_id, attributes…                            (optional)
    items.csv          domain, item_id, title, attributes…[, same_as]  (optional)
    …                  pictures, which items.csv names by their paths  (optional)

Ids are opaque strings. Cells of several values are separated by `|`; `same_as` is `domain/item_id` of the same thing in
another catalogue. Times are Unix seconds or RFC 3339, or empty. A bad row stops the reader with file, line and reason.

Of several ratings that a user gave one item only the last one counts.

The order of rows in the files carries no meaning, but among a user's interactions of one moment: users are indexed by
id, items by domain and id.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from models.datasets.dataset import Dataset, Interactions, Items, item_content
from models.datasets.description import FILE, DatasetError, Description, format_description, read_description
from models.datasets.images import PictureError, content_of, thumbnail
from models.datasets.schema import MULTI_SEPARATOR, AttributeEncoder, AttributeKind, Attributes, Schema
from models.datasets.sheet import Sheet
from models.recommender import Progress, no_progress

CONTEXT = ("dwell_seconds", "device", "location")
"""Columns of interactions that travel with the data and that a `Dataset` does not hold."""
MAX_PICTURE_BYTES = 64 << 20


@dataclass(frozen=True)
class Tables:
    """The contents of a folder, cells as they stand in its files: what a fetcher or an export makes."""

    description: Description
    interactions: pl.DataFrame
    users: pl.DataFrame | None = None
    items: pl.DataFrame | None = None


def read(folder: Path, progress: Progress = no_progress) -> Dataset:
    """Read a data set folder. Raises DatasetError with file, line and reason."""
    description = read_description(folder)
    progress("reading", 0.0, {})
    events = Sheet.open(
        _interactions_file(folder), ("user_id", "domain", "item_id", "value"), ("occurred_at", "kind", *CONTEXT)
    )
    progress("reading", 0.4, {})
    users = _sheet(folder / "users.csv", ("user_id",), description.user_attributes)
    items = _sheet(folder / "items.csv", ("domain", "item_id"), ("title", *description.item_attributes, "same_as"))

    event_keys = _keys(events, description)
    item_keys = _keys(items, description) if items else pl.Series([], dtype=pl.String)
    user_keys = users.identifiers("user_id") if users else pl.Series([], dtype=pl.String)
    for sheet, keys, what in ((users, user_keys, "user"), (items, item_keys, "item")):
        if sheet:
            sheet.require(keys.is_first_distinct(), f"the {what} has a row already")
    event_users = events.identifiers("user_id")
    all_users = pl.concat([user_keys, event_users.unique()]).unique().sort()
    all_items = _in_catalogue_order(pl.concat([item_keys, event_keys.unique()]).unique(), description)

    progress("reading", 0.6, {})
    interactions = _interactions(events, description, _index(event_users, all_users), _index(event_keys, all_items))
    user_rows = _attribute_rows(users, description.user_attributes, user_keys, all_users)
    user_encoder = AttributeEncoder.learn(description.user_attributes, user_rows)
    encoded = _items(items, description, item_keys, all_items)
    schema = Schema(
        domains=description.schema_domains(),
        user_attributes=user_encoder,
        item_attributes=encoded.encoder,
        kinds=description.kinds,
    )
    progress("reading", 1.0, {})
    return Dataset(
        description.name, schema, all_users.to_list(), user_encoder.encode(user_rows), encoded.items, interactions
    )


def user_rows(folder: Path) -> dict[str, Attributes]:
    """Raw attributes by user id, as users.csv has them; empty without that file. Raises DatasetError."""
    kinds = read_description(folder).user_attributes
    sheet = _sheet(folder / "users.csv", ("user_id",), kinds)
    if sheet is None:
        return {}
    ids = sheet.identifiers("user_id")
    return dict(zip(ids, _attribute_rows(sheet, kinds, ids, ids), strict=True))


def event_rows(folder: Path) -> pl.DataFrame:
    """Interactions with their context, in the order of the file: ids and kind as text, value and time as numbers."""
    events = Sheet.open(
        _interactions_file(folder), ("user_id", "domain", "item_id", "value"), ("occurred_at", "kind", *CONTEXT)
    )
    return pl.DataFrame(
        {
            **{name: events.text(name) for name in ("user_id", "domain", "item_id", "device", "location")},
            "kind": events.text("kind").fill_null("rating"),
            "value": events.numbers("value"),
            "occurred_at": events.times("occurred_at"),
            "dwell_seconds": events.numbers("dwell_seconds"),
        }
    )


def write(tables: Tables, folder: Path) -> Dataset:
    """Write a folder, all or nothing, and return it as read back, so that whatever stands there is readable.

    Raises DatasetError where the tables break the format, FileExistsError where `folder` has something in it.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists; a data set is never overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        (aside / FILE).write_text(format_description(tables.description), encoding="utf-8")
        for frame, name in ((tables.interactions, "interactions"), (tables.users, "users"), (tables.items, "items")):
            if frame is not None:
                frame.write_csv(aside / f"{name}.csv")
        data = read(aside)
        aside.chmod(0o755)
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return data


def _interactions_file(folder: Path) -> Path:
    found = [path for suffix in ("csv", "parquet") if (path := folder / f"interactions.{suffix}").exists()]
    if not found:
        raise DatasetError("interactions.csv", None, f"{folder} has neither interactions.csv nor interactions.parquet")
    if len(found) > 1:
        raise DatasetError("interactions.csv", None, "stands beside interactions.parquet; keep one of them")
    return found[0]


def _sheet(path: Path, required: tuple[str, ...], optional: Mapping[str, Any] | tuple[str, ...]) -> Sheet | None:
    return Sheet.open(path, required, list(optional)) if path.exists() else None


def _keys(sheet: Sheet, description: Description) -> pl.Series:
    """`domain/item_id` of each row: unique, as a domain's name has no slash."""
    domains = sheet.identifiers("domain")
    names = ", ".join(description.domains)
    sheet.require(domains.is_in(list(description.domains)), f"{FILE} has no such domain, only {names}", "domain")
    return domains + "/" + sheet.identifiers("item_id")


def _in_catalogue_order(keys: pl.Series, description: Description) -> pl.Series:
    order = {name: i for i, name in enumerate(description.domains)}
    domain = keys.str.extract("^([^/]*)/").replace_strict(order, return_dtype=pl.Int64)
    return pl.DataFrame({"domain": domain, "key": keys}).sort("domain", "key")["key"]


def _index(keys: pl.Series, order: pl.Series) -> Tensor:
    """Position of each key in `order`, (n,) int64."""
    return _tensor(keys.cast(pl.Enum(order)).to_physical(), torch.int64)


def _tensor(series: pl.Series, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(series.to_numpy(writable=True)).to(dtype)


def _interactions(events: Sheet, description: Description, users: Tensor, items: Tensor) -> Interactions:
    kinds = events.text("kind").fill_null("rating")
    values = events.numbers("value")
    times = events.times("occurred_at")
    events.numbers("dwell_seconds")
    rows = pl.DataFrame({"domain": events.text("domain"), "kind": kinds, "value": values})
    is_rating = kinds == "rating"
    events.require(~is_rating | values.is_not_null(), "value is empty, and the row is a rating")
    scales = pl.DataFrame(
        [(name, d.rating_min, d.rating_max) for name, d in description.domains.items()],
        schema=["domain", "low", "high"],
        orient="row",
    )
    rows = rows.join(scales, on="domain", how="left", maintain_order="left")
    within = values.is_between(rows["low"], rows["high"]).fill_null(True)
    events.require(~is_rating | within, "value is outside the domain's rating scale", "value")
    worths = pl.DataFrame(
        [
            (d, kind, worth.value, worth.weight)
            for d, of in description.domains.items()
            for kind, worth in of.kinds.items()
        ],
        schema={"domain": pl.String, "kind": pl.String, "worth": pl.Float64, "weight": pl.Float64},
        orient="row",
    )
    rows = rows.join(worths, on=["domain", "kind"], how="left", maintain_order="left")
    events.require(is_rating | rows["worth"].is_not_null(), f"{FILE} gives its kind no worth in its domain", "kind")
    order = {kind: i for i, kind in enumerate(description.kinds)}
    made = Interactions.sorted(
        users,
        items,
        _tensor(rows.select(pl.coalesce("worth", "value")).to_series(), torch.float32),
        _tensor(rows["weight"].fill_null(1.0), torch.float32),
        _tensor(kinds.replace_strict(order, return_dtype=pl.Int64), torch.int64),
        _tensor(times.fill_null(float("nan")), torch.float64),
    )
    return made.rows(_counts(made))


def _counts(interactions: Interactions) -> Tensor:
    """(M,) mask: of a user's ratings of one item only the last counts, as in the service; other events all do."""
    key = pl.DataFrame(
        {"user": interactions.users.numpy(), "item": interactions.items.numpy(), "kind": interactions.kinds.numpy()}
    )
    last = key.select(pl.struct("user", "item", "kind").is_last_distinct()).to_series()
    return torch.from_numpy(last.to_numpy(writable=True)) | (interactions.kinds != 0)


@dataclass(frozen=True)
class _EncodedItems:
    items: Items
    encoder: AttributeEncoder


def _items(sheet: Sheet | None, description: Description, keys: pl.Series, order: pl.Series) -> _EncodedItems:
    kinds = description.item_attributes
    domains, ids = zip(*(key.split("/", 1) for key in order), strict=True) if len(order) else ((), ())
    titles = dict(zip(keys, sheet.text("title"), strict=True)) if sheet else {}
    if sheet:
        _require_declared(sheet, description)
    rows = _attribute_rows(sheet, kinds, keys, order)
    encoder = AttributeEncoder.learn(kinds, rows)
    shown = [titles.get(key) or item_id for key, item_id in zip(order, ids, strict=True)]
    index = {name: i for i, name in enumerate(description.domains)}
    items = Items(
        ids=list(ids),
        titles=shown,
        domain=torch.tensor([index[name] for name in domains], dtype=torch.int64),
        attributes=rows,
        content=item_content(encoder, shown, rows),
        same_as=_same_as(sheet, keys, order) if sheet else {},
    )
    return _EncodedItems(items, encoder)


def _require_declared(sheet: Sheet, description: Description) -> None:
    """An attribute may belong to some domains only; a cell elsewhere is a mistake."""
    for name in description.item_attributes:
        of = [domain for domain, d in description.domains.items() if name in d.item_attributes]
        if len(of) < len(description.domains):
            undeclared = sheet.text(name).is_not_null() & ~sheet.text("domain").is_in(of)
            sheet.require(~undeclared, f"{FILE} gives the domain no item attribute {name!r}")


def _same_as(sheet: Sheet, keys: pl.Series, order: pl.Series) -> dict[int, int]:
    """Links between catalogues, in both directions; a link that the files name goes before one that is implied."""
    links = sheet.text("same_as")
    sheet.require(links.is_null() | links.is_in(order.implode()), "same_as names no known domain/item_id", "same_as")
    elsewhere = keys.str.extract("^([^/]*)/") != links.str.extract("^([^/]*)/")
    sheet.require(elsewhere.fill_null(True), "same_as names an item of the same domain", "same_as")
    index = {key: i for i, key in enumerate(order)}
    named = {index[key]: index[link] for key, link in zip(keys, links, strict=True) if link is not None}
    implied = {there: here for here, there in sorted(named.items(), reverse=True)}
    return dict(sorted({**implied, **named}.items()))


def _attribute_rows(
    sheet: Sheet | None, kinds: Mapping[str, AttributeKind], keys: pl.Series, order: pl.Series
) -> list[Attributes]:
    """Raw attributes of each user or item in `order`; nothing where the file has no row or the cell is empty."""
    if sheet is None:
        return [{} for _ in order]
    columns = {name: _attribute_cells(sheet, name, kind) for name, kind in kinds.items() if name in sheet}
    rows: dict[str, Attributes] = {}
    for key, *cells in zip(keys, *columns.values(), strict=True):
        rows[key] = {name: cell for name, cell in zip(columns, cells, strict=True) if cell is not None}
    return [rows.get(key, {}) for key in order]


def _attribute_cells(sheet: Sheet, name: str, kind: AttributeKind) -> list[Any]:
    if kind == "numeric":
        return [int(n) if n is not None and n.is_integer() else n for n in sheet.numbers(name)]
    if kind == "image":
        return _thumbnails(sheet, name)
    if kind == "multi":
        values = [
            cell and [value for value in dict.fromkeys(cell.split(MULTI_SEPARATOR)) if value]
            for cell in sheet.text(name)
        ]
        return [several or None for several in values]
    return sheet.text(name).to_list()


def _thumbnails(sheet: Sheet, name: str) -> list[str | None]:
    """The picture of each row: its cell is a path inside the folder, or a data URI, as an export writes it."""
    folder = sheet.path.parent.resolve()
    made: list[str | None] = []
    for at, cell in enumerate(sheet.text(name)):
        try:
            made.append(cell and thumbnail(content_of(cell) if cell.startswith("data:") else _inside(folder, cell)))
        except PictureError as error:
            shown = cell if len(cell) <= 100 else f"{cell[:97]}..."
            raise DatasetError(sheet.path.name, sheet.line(at), f"{name} {error} ({shown!r})") from error
    return made


def _inside(folder: Path, cell: str) -> bytes:
    """Content of a file that a cell names, relative to the folder. Raises PictureError."""
    try:
        path = (folder / cell).resolve()
        if not path.is_relative_to(folder):
            raise PictureError("must be a file inside the folder")
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise PictureError(f"must be a file of at most {MAX_PICTURE_BYTES >> 20} MiB")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise PictureError("must be a file that can be read") from error

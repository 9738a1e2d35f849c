"""Two data set folders as one with the domains of both."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from models.datasets.dataset import Dataset
from models.datasets.description import FILE, DatasetError, Description, read_description
from models.datasets.folder import Tables, write
from models.datasets.schema import AttributeKind

Kinds = Mapping[str, AttributeKind]


def join(first: Path, second: Path, out: Path, *, same_users: bool = False) -> Dataset:
    """Write the folder `out` with all that is in two others, and return it as read back.

    With `same_users` an id that stands in both is one person, whose attributes come from the first that has them.
    Otherwise ids say nothing about each other, and users become `<id>@<name of the data set>`: the two share nobody.
    An attribute that the two hold to be of different kinds becomes `<attribute>@<name>` in the second.

    Raises DatasetError where both have a domain of one name, or one has pictures, which are files beside the tables;
    FileExistsError where `out` has something in it.
    """
    parts = [_read(folder) for folder in (first, second)]
    parts[1] = _without_clashes(parts[1], parts[0].description)
    if not same_users:
        parts = [_apart(part) for part in parts]
    a, b = (part.description for part in parts)
    shared = sorted(set(a.domains) & set(b.domains))
    if shared:
        raise DatasetError(FILE, None, f"both data sets have a domain {shared[0]!r}")
    description = Description(
        name=f"{a.name}+{b.name}",
        source="; ".join(part.source for part in (a, b) if part.source),
        domains=a.domains | b.domains,
        user_attributes=a.user_attributes | b.user_attributes,
    )
    if "image" in description.item_attributes.values():
        raise DatasetError(FILE, None, "data sets with pictures cannot be joined")
    users = _stacked([part.users for part in parts])
    if users is not None:
        users = users.group_by("user_id", maintain_order=True).agg(pl.all().drop_nulls().first())
    interactions = _stacked([part.interactions for part in parts])
    assert interactions is not None
    return write(Tables(description, interactions, users, _stacked([part.items for part in parts])), out)


def _read(folder: Path) -> Tables:
    """The tables of a folder, every cell as text. What is wrong in them shows when the whole is read back."""
    description = read_description(folder)
    if (folder / "interactions.parquet").exists():
        interactions = pl.read_parquet(folder / "interactions.parquet").cast(pl.String)
    elif (folder / "interactions.csv").exists():
        interactions = pl.read_csv(folder / "interactions.csv", infer_schema=False)
    else:
        raise DatasetError("interactions.csv", None, f"{folder} has no interactions")
    users, items = (
        pl.read_csv(path, infer_schema=False) if (path := folder / f"{name}.csv").exists() else None
        for name in ("users", "items")
    )
    return Tables(description, interactions, users, items)


def _without_clashes(tables: Tables, other: Description) -> Tables:
    """The same with other names for attributes that the other data set holds to be of another kind."""
    own = tables.description

    def names(mine: Kinds, theirs: Kinds) -> dict[str, str]:
        return {n: f"{n}@{own.name}" for n, kind in mine.items() if theirs.get(n, kind) != kind}

    of_users = names(own.user_attributes, other.user_attributes)
    of_items = names(own.item_attributes, other.item_attributes)
    domains = {
        name: domain.model_copy(update={"item_attributes": _named(domain.item_attributes, of_items)})
        for name, domain in own.domains.items()
    }
    description = own.model_copy(update={"domains": domains, "user_attributes": _named(own.user_attributes, of_users)})
    users = None if tables.users is None else tables.users.rename(of_users, strict=False)
    items = None if tables.items is None else tables.items.rename(of_items, strict=False)
    return Tables(description, tables.interactions, users, items)


def _named(kinds: Kinds, names: Mapping[str, str]) -> dict[str, AttributeKind]:
    return {names.get(name, name): kind for name, kind in kinds.items()}


def _apart(tables: Tables) -> Tables:
    """The same with ids of users that no other data set has."""
    name = pl.col("user_id") + f"@{tables.description.name}"
    users = None if tables.users is None else tables.users.with_columns(name)
    return Tables(tables.description, tables.interactions.with_columns(name), users, tables.items)


def _stacked(frames: list[pl.DataFrame | None]) -> pl.DataFrame | None:
    there = [frame for frame in frames if frame is not None]
    return pl.concat(there, how="diagonal") if there else None

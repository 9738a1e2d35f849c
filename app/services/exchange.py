"""A running installation as a data set folder, and a data set folder into a running installation."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from app.engine.serving import imported_ids
from app.storage import catalogue, digests, domains, interactions, revisions, users
from app.storage.database import Connection, Database
from app.storage.records import ExportedInteraction, NewDomain, NewInteraction, NewItem, StoredDomain, StoredItem
from models.checkpoint import LearntThrough
from models.datasets import folder
from models.datasets.dataset import Dataset
from models.datasets.description import RESERVED, Description, DomainDescription, read_description
from models.datasets.schema import MULTI_SEPARATOR, AttributeKind, Attributes
from models.recommender import Progress, no_progress

PAGE = 5000
BATCH = 1000

T = TypeVar("T")


class ExchangeError(Exception):
    """What was asked for cannot be exported or imported; the message is a sentence for whoever asked."""


@dataclass(frozen=True)
class Moved:
    """How much went over."""

    users: int
    items: int
    interactions: int
    already_there: int = 0
    """Interactions of an import that an earlier, interrupted one had stored."""
    through: LearntThrough | None = None
    """How far an export goes."""


async def export(database: Database, path: Path, progress: Progress = no_progress) -> Moved:
    """Write everything the installation knows as a data set folder, as of one moment.

    Events of a kind that its domain gives no worth any more are left out: the format has no place for them. Raises
    ExchangeError where there is nothing to export, FileExistsError where the folder has something in it.
    """
    async with database.read(snapshot=True) as connection:
        declared = await domains.all(connection)
        stored = [item for item in await catalogue.items_since(connection, 0) if not item.deleted]
        progress("exporting users", 0.1, {})
        people = [user async for user in _pages(connection, users.export_since)]
        progress("exporting interactions", 0.3, {})
        events = [event async for event in _pages(connection, interactions.export_since)]
        number = await revisions.installation_id(connection)
    if not declared or not events:
        raise ExchangeError("the installation has no interactions yet; there is nothing to export.")
    tables = _tables(declared, stored, [(user.user_id, user.attributes) for user in people], events)
    progress("writing", 0.8, {})
    folder.write(tables, path)
    progress("writing", 1.0, {})
    through = LearntThrough(installation=number, key=events[-1].key)
    return Moved(len(people), len(stored), len(tables.interactions), through=through)


async def import_folder(database: Database, path: Path, progress: Progress = no_progress) -> Moved:
    """Take a data set folder in. The whole folder is checked first; then it goes in by batches.

    Events get ids made of the data's fingerprint and their row, so that an import that was interrupted is finished by
    running it again, with nothing stored twice. Raises DatasetError with file, line and reason.
    """
    data = folder.read(path, progress)
    description = read_description(path)
    await _import_domains(database, description)
    async with database.read() as connection:
        keys = {domain.name: domain.key for domain in await domains.all(connection)}
    names = [domain.name for domain in data.schema.domains]
    by_domain: dict[str, list[NewItem]] = {name: [] for name in names}
    for item_id, title, index, attributes in zip(
        data.items.ids, data.items.titles, data.items.domain.tolist(), data.items.attributes, strict=True
    ):
        by_domain[names[index]].append(NewItem(item_id, title, attributes))
    for name, items in by_domain.items():
        for batch in _batches(items, PAGE):
            await database.transact(_with(catalogue.put_items, keys[name], batch))
    people = folder.user_rows(path)
    for some in _batches(list(people.items()), PAGE):
        await database.transact(_with(users.put_many, dict(some)))
    accepted, duplicates = await _import_events(database, path, data, keys, progress)
    return Moved(data.n_users, data.n_items, accepted, duplicates)


async def _import_domains(database: Database, description: Description) -> None:
    async with database.read() as connection:
        known = {domain.name: domain for domain in await domains.all(connection)}
    for name, spec in description.domains.items():
        old = known.get(name)
        if old is not None and (old.rating_min, old.rating_max) != (spec.rating_min, spec.rating_max):
            raise ExchangeError(f"the domain {name!r} is here already, with another rating scale.")
        if old is None:
            new = NewDomain(name, spec.rating_min, spec.rating_max, spec.kinds, spec.item_attributes)
            await database.transact(_with(domains.put, new, time.time()))


async def _import_events(
    database: Database, path: Path, data: Dataset, keys: dict[str, int], progress: Progress
) -> tuple[int, int]:
    rows = folder.event_rows(path)
    async with database.read() as connection:
        keyed = await digests.of_installation(connection)
    accepted = duplicates = 0
    for start in range(0, len(rows), BATCH):
        progress("importing interactions", start / len(rows), {})
        batch = [
            NewInteraction(
                user_id=row["user_id"],
                domain_key=keys[row["domain"]],
                item_id=row["item_id"],
                kind=row["kind"],
                value=row["value"],
                occurred_at=row["occurred_at"],
                event_id=f"{imported_ids(data.fingerprint)}{start + i}",
                context={name: row[name] for name in folder.CONTEXT if row[name] is not None} or None,
            )
            for i, row in enumerate(rows[start : start + BATCH].iter_rows(named=True))
        ]
        added = await database.transact(_with(interactions.add, batch, time.time(), keyed))
        accepted += added.accepted
        duplicates += added.duplicates
    progress("importing interactions", 1.0, {})
    return accepted, duplicates


def _tables(
    declared: Sequence[StoredDomain],
    stored: Sequence[StoredItem],
    people: Sequence[tuple[str, Attributes]],
    events: Sequence[ExportedInteraction],
) -> folder.Tables:
    name_of = {domain.key: domain.name for domain in declared}
    rows_of: dict[str, list[Attributes]] = {domain.name: [] for domain in declared}
    for item in stored:
        rows_of[name_of[item.domain_key]].append(item.attributes)
    user_kinds = _kinds([attributes for _, attributes in people])
    item_kinds = _kinds([item.attributes for item in stored])
    for domain in declared:
        item_kinds |= {name: kind for name, kind in domain.attributes.items() if name in item_kinds}
    description = Description(
        name="installation",
        domains={
            domain.name: DomainDescription(
                rating_min=domain.rating_min,
                rating_max=domain.rating_max,
                kinds=dict(domain.kinds),
                item_attributes={
                    name: kind
                    for name, kind in item_kinds.items()
                    if any(name in attributes for attributes in rows_of[domain.name])
                },
            )
            for domain in declared
        },
        user_attributes=user_kinds,
    )
    worth = {(domain.name, kind) for domain in declared for kind in ("rating", *domain.kinds)}
    kept = [event for event in events if (event.domain, event.kind) in worth]
    interactions_frame = pl.DataFrame(
        {
            "user_id": [e.user_id for e in kept],
            "domain": [e.domain for e in kept],
            "item_id": [e.item_id for e in kept],
            "value": [e.value for e in kept],
            "occurred_at": [e.occurred_at for e in kept],
            "kind": [e.kind for e in kept],
            **{name: [(e.context or {}).get(name) for e in kept] for name in folder.CONTEXT},
        },
        schema_overrides={"value": pl.Float64, "dwell_seconds": pl.Float64, "device": pl.String, "location": pl.String},
    )
    users_frame = _frame({"user_id": [user_id for user_id, _ in people]}, user_kinds, [a for _, a in people])
    items_frame = _frame(
        {
            "domain": [name_of[item.domain_key] for item in stored],
            "item_id": [item.item_id for item in stored],
            "title": [item.title for item in stored],
        },
        item_kinds,
        [item.attributes for item in stored],
    )
    return folder.Tables(description, interactions_frame, users_frame, items_frame)


def _kinds(rows: Iterable[Attributes]) -> dict[str, AttributeKind]:
    """What each attribute is, by the values that it has most often; names that the format keeps are left out."""
    seen: dict[str, Counter[AttributeKind]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in RESERVED and value is not None:
                kind: AttributeKind = (
                    "multi" if isinstance(value, list) else "categorical" if isinstance(value, str) else "numeric"
                )
                seen.setdefault(name, Counter())[kind] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in sorted(seen.items())}


def _frame(ids: dict[str, list[Any]], kinds: dict[str, AttributeKind], rows: Sequence[Attributes]) -> pl.DataFrame:
    cells = {
        name: pl.Series([_cell(row.get(name), kind) for row in rows], dtype=pl.String) for name, kind in kinds.items()
    }
    return pl.DataFrame(ids | cells)


def _cell(value: Any, kind: AttributeKind) -> str | None:
    """A value as it stands in the folder; one that is not of the attribute's kind is left out."""
    if kind == "multi":
        several = value if isinstance(value, list) else [] if value is None else [str(value)]
        return MULTI_SEPARATOR.join(v for v in several if MULTI_SEPARATOR not in v) or None
    if kind == "numeric":
        return repr(value) if isinstance(value, int | float) else None
    return value if isinstance(value, str) else None


async def _pages(
    connection: Connection, page: Callable[[Connection, int, int], Awaitable[list[T]]]
) -> AsyncIterator[T]:
    after = 0
    while rows := await page(connection, after, PAGE):
        for row in rows:
            yield row
        after = rows[-1].key  # type: ignore[attr-defined]


def _batches(rows: list[T], size: int) -> Iterable[list[T]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _with(work: Callable[..., Awaitable[T]], *arguments: Any) -> Callable[[Connection], Awaitable[T]]:
    return lambda connection: work(connection, *arguments)

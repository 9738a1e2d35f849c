"""Items. Every change raises the catalogue's revision once, and the items that changed carry it.

All who change items raise the revision first. They so take turns, and what one reads after raising it stays true until
its own commit.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from sqlalchemy import Row, and_, bindparam, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import revisions, tables
from app.storage.batches import BulkInsert, Each, among, portions
from app.storage.records import ItemCounts, NewItem, StoredItem, Written

_ITEMS = tables.items
_INTERACTIONS = tables.interactions
_COLUMNS = ("domain_key", "item_id", "title", "attributes", "available", "deleted", "revision")
_IDENTITY = ("domain_key", "item_id")


def _bare(item: Any) -> Any:
    """Known by its id only."""
    return and_(item.title.is_(None), item.attributes.is_(None), item.deleted.is_(False))


def _replaced(insert: Any) -> Any:
    given = {name: insert.excluded[name] for name in _COLUMNS if name not in _IDENTITY}
    return insert.on_conflict_do_update(index_elements=_IDENTITY, set_=given)


def _filled_in(insert: Any) -> Any:
    given = {name: insert.excluded[name] for name in ("title", "attributes", "revision")}
    return insert.on_conflict_do_update(index_elements=_IDENTITY, set_=given, where=_bare(_ITEMS.c))


_PUT = BulkInsert(_ITEMS, _COLUMNS, _replaced)
_FILL_IN = BulkInsert(_ITEMS, _COLUMNS, _filled_in, returning=["key"])
_ADD = BulkInsert(_ITEMS, _COLUMNS, lambda insert: insert.on_conflict_do_nothing(index_elements=_IDENTITY))
_WANTED = Each.table("item_ids", _ITEMS.c.item_id.type)
# An outer join looks up both columns in the index of their pair, for one id after the other. Of items `among` the ids
# Postgres, while it has no statistics yet, expects few enough in the domain to read them all; and an inner join SQLite
# turns around, to look for every item of the domain among the ids.
_EXISTING = select(_ITEMS.c.item_id, _ITEMS.c.key, _bare(_ITEMS.c).label("bare"), _ITEMS.c.deleted).select_from(
    _WANTED.outerjoin(_ITEMS, and_(_ITEMS.c.domain_key == bindparam("domain_key"), _ITEMS.c.item_id == _WANTED.c.value))
)
_EVENTS = (
    select(
        _INTERACTIONS.c.item_key,
        _INTERACTIONS.c.value,
        and_(_INTERACTIONS.c.kind == "rating", _INTERACTIONS.c.value.is_not(None)).label("is_rating"),
        func.row_number()
        .over(
            partition_by=(_INTERACTIONS.c.item_key, _INTERACTIONS.c.user_key, _INTERACTIONS.c.kind),
            order_by=(_INTERACTIONS.c.occurred_at.desc(), _INTERACTIONS.c.key.desc()),
        )
        .label("age"),
    )
    .where(among(_INTERACTIONS.c.item_key, "item_keys"))
    .subquery()
)
_STANDING = and_(_EVENTS.c.is_rating, _EVENTS.c.age == 1)
_COUNTS = select(
    _EVENTS.c.item_key,
    func.sum(case((_STANDING, 1), else_=0)),
    func.sum(case((_STANDING, _EVENTS.c.value), else_=0.0)),
    func.count(),
).group_by(_EVENTS.c.item_key)
_TOUCHED = (
    select(_ITEMS.c.key)
    .where(
        _ITEMS.c.domain_key == bindparam("domain_key"),
        select(_INTERACTIONS.c.key).where(_INTERACTIONS.c.item_key == _ITEMS.c.key).exists(),
    )
    .limit(1)
)
_SINCE = select(_ITEMS).where(_ITEMS.c.revision > bindparam("revision")).order_by(_ITEMS.c.revision)


async def put_items(connection: AsyncConnection, domain_key: int, items: Sequence[NewItem]) -> Written:
    """Create items or replace what is known of them; deleted ones come back. Of an id given twice the last counts."""
    wanted = {item.item_id: item for item in items}
    if not wanted:
        return Written(0, 0)
    revision = await revisions.advance(connection, "catalogue")
    known = [row for row in await _existing(connection, domain_key, list(wanted)) if not row.deleted]
    await _PUT(connection, [_row(domain_key, item, revision) for item in wanted.values()])
    return Written(created=len(wanted) - len(known), updated=len(known))


async def add_missing(connection: AsyncConnection, domain_key: int, items: Sequence[NewItem]) -> int:
    """Create items that are not there and fill in those known only by their id; how many of both.

    What an operator put or deleted stays as it is.
    """
    wanted = {item.item_id: item for item in items}
    for row in await _existing(connection, domain_key, list(wanted)):
        item = wanted[row.item_id]
        if not (row.bare and (item.title is not None or item.attributes)):
            del wanted[row.item_id]
    if not wanted:
        return 0
    revision = await revisions.advance(connection, "catalogue")
    return len(await _FILL_IN(connection, [_row(domain_key, item, revision) for item in wanted.values()]))


async def keys_of(connection: AsyncConnection, domain_key: int, item_ids: Sequence[str]) -> dict[str, int]:
    """Keys of those of the items that are known, deleted ones too."""
    return {row.item_id: row.key for row in await _existing(connection, domain_key, item_ids)}


async def add_by_id(connection: AsyncConnection, item_ids: Sequence[tuple[int, str]]) -> None:
    """Create items of which only (domain key, id) is known; those already there stay as they are."""
    revision = await revisions.advance(connection, "catalogue")
    await _ADD(connection, [_row(domain_key, NewItem(item_id), revision) for domain_key, item_id in item_ids])


async def delete_item(connection: AsyncConnection, domain_key: int, item_id: str) -> bool:
    """Leave a tombstone. Whether there was an item to delete."""
    if await get_item(connection, domain_key, item_id) is None:
        return False
    revision = await revisions.advance(connection, "catalogue")
    deleted = await connection.execute(
        update(_ITEMS)
        .where(_ITEMS.c.domain_key == domain_key, _ITEMS.c.item_id == item_id, _ITEMS.c.deleted.is_(False))
        .values(deleted=True, revision=revision)
        .returning(_ITEMS.c.key)
    )
    return deleted.first() is not None


async def get_item(connection: AsyncConnection, domain_key: int, item_id: str) -> StoredItem | None:
    """The item, unless it is unknown or deleted."""
    found = select(_ITEMS).where(
        _ITEMS.c.domain_key == domain_key, _ITEMS.c.item_id == item_id, _ITEMS.c.deleted.is_(False)
    )
    row = (await connection.execute(found)).first()
    return None if row is None else _stored(row)


async def list_items(
    connection: AsyncConnection, domain_key: int, limit: int, cursor: int | None = None
) -> tuple[list[StoredItem], int | None]:
    """A page of the items of a domain, in order of their keys, and the cursor of the next page, None on the last."""
    page = (
        select(_ITEMS)
        .where(_ITEMS.c.domain_key == domain_key, _ITEMS.c.deleted.is_(False), _ITEMS.c.key > (cursor or 0))
        .order_by(_ITEMS.c.key)
        .limit(limit + 1)
    )
    found = [_stored(row) for row in await connection.execute(page)]
    return found[:limit], found[limit - 1].key if len(found) > limit else None


async def items_since(connection: AsyncConnection, revision: int) -> list[StoredItem]:
    """Items of all domains that changed after a revision, deleted ones too, in order of their keys."""
    # By revision SQLite would find them through the index and by key not, so the order is made here.
    found = [_stored(row) for row in await connection.execute(_SINCE, {"revision": revision})]
    return sorted(found, key=attrgetter("key"))


async def counts(connection: AsyncConnection, item_keys: Sequence[int]) -> list[ItemCounts]:
    """Of each of the items that anybody touched: ratings, their sum, and events."""
    return [ItemCounts(*row) for row in await connection.execute(_COUNTS, {"item_keys": list(item_keys)})]


async def is_touched(connection: AsyncConnection, domain_key: int) -> bool:
    """Whether there is an interaction with an item of the domain."""
    return (await connection.execute(_TOUCHED, {"domain_key": domain_key})).first() is not None


async def _existing(
    connection: AsyncConnection, domain_key: int, item_ids: Sequence[str]
) -> list[Row[Any, Any, Any, Any]]:
    found: list[Row[Any, Any, Any, Any]] = []
    for portion in portions(item_ids):
        rows = await connection.execute(_EXISTING, {"domain_key": domain_key, "item_ids": list(portion)})
        found.extend(row for row in rows if row.key is not None)
    return found


def _row(domain_key: int, item: NewItem, revision: int) -> dict[str, Any]:
    return {
        "domain_key": domain_key,
        "item_id": item.item_id,
        "title": item.title,
        "attributes": dict(item.attributes) or None,
        "available": item.available,
        "deleted": False,
        "revision": revision,
    }


def _stored(row: Row[Any]) -> StoredItem:
    return StoredItem(
        key=row.key,
        domain_key=row.domain_key,
        item_id=row.item_id,
        title=row.title,
        attributes=row.attributes or {},
        available=row.available,
        deleted=row.deleted,
        revision=row.revision,
    )

"""What users did with items, read from the item's side: for learning the rows of items while serving."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.batches import BulkInsert, among
from app.storage.records import Json

TOUCHED_PORTION = 200_000
"""Keys of events that are looked through at a time."""
SINCE_PAGE = 1_000
"""Rows of a log that are read at a time."""

_INTERACTIONS = tables.interactions
_WITHDRAWALS = tables.withdrawals
_EVENT = [_INTERACTIONS.c[name] for name in ("key", "user_key", "item_key", "kind", "value", "occurred_at", "event_id")]
_NEWEST_FIRST = (_INTERACTIONS.c.occurred_at.desc(), _INTERACTIONS.c.key.desc())
_OF_ITEM = (
    select(*_EVENT)
    .where(_INTERACTIONS.c.item_key == bindparam("item_key"))
    .order_by(*_NEWEST_FIRST)
    .limit(bindparam("size"))
)
_AGED = (
    select(*_EVENT, func.row_number().over(partition_by=_INTERACTIONS.c.user_key, order_by=_NEWEST_FIRST).label("age"))
    .where(among(_INTERACTIONS.c.user_key, "user_keys"))
    .subquery()
)
_OF_USERS = select(*[column for column in _AGED.c if column.name != "age"]).where(_AGED.c.age <= bindparam("size"))
_ATTRIBUTES = select(tables.users.c.key, tables.users.c.attributes).where(among(tables.users.c.key, "user_keys"))
_TOUCHED = (
    select(_INTERACTIONS.c.item_key)
    .where(_INTERACTIONS.c.key > bindparam("after_key"), _INTERACTIONS.c.key <= bindparam("last_key"))
    .distinct()
)
_SINCE = {
    # Ordered and limited, or Postgres, which does not know how few there are, would read the whole table.
    table.name: select(table.c.key, table.c.item_key)
    .where(table.c.key > bindparam("after_key"))
    .order_by(table.c.key)
    .limit(SINCE_PAGE)
    for table in (_INTERACTIONS, _WITHDRAWALS)
}
_WITHDRAW = BulkInsert(_WITHDRAWALS, ["item_key"])
_LAST = {table.name: select(func.max(table.c.key)) for table in (_INTERACTIONS, _WITHDRAWALS)}


class ItemEvent(NamedTuple):
    """One event; `occurred_at` in microseconds, as stored."""

    key: int
    user_key: int
    item_key: int
    kind: str
    value: float | None
    occurred_at: int
    event_id: str | None


async def of_item(connection: AsyncConnection, item_key: int, limit: int) -> list[ItemEvent]:
    """The events of an item that occurred last, oldest first."""
    rows = await connection.execute(_OF_ITEM, {"item_key": item_key, "size": limit})
    return [ItemEvent(*row) for row in rows][::-1]


async def of_users(connection: AsyncConnection, user_keys: Sequence[int], limit: int) -> dict[int, list[ItemEvent]]:
    """The `limit` events of each user that occurred last, oldest first."""
    found: dict[int, list[ItemEvent]] = {key: [] for key in user_keys}
    for row in await connection.execute(_OF_USERS, {"user_keys": list(user_keys), "size": limit}):
        found[row.user_key].append(ItemEvent(*row))
    return {key: sorted(events, key=moment) for key, events in found.items()}


def moment(event: ItemEvent) -> tuple[int, int]:
    """What events are in order of: when they occurred, then when they came."""
    return event.occurred_at, event.key


async def attributes(connection: AsyncConnection, user_keys: Sequence[int]) -> dict[int, Json]:
    """What users say of themselves."""
    rows = await connection.execute(_ATTRIBUTES, {"user_keys": list(user_keys)})
    return {row.key: row.attributes for row in rows}


async def touched(connection: AsyncConnection, after_key: int) -> set[int]:
    """Items with an event behind a key; read in portions, so that no statement takes long."""
    found: set[int] = set()
    for start in range(after_key, await last_key(connection), TOUCHED_PORTION):
        portion = {"after_key": start, "last_key": start + TOUCHED_PORTION}
        found.update((await connection.execute(_TOUCHED, portion)).scalars())
    return found


async def since(connection: AsyncConnection, log: str, after_key: int) -> list[tuple[int, int]]:
    """(key, item) of what came behind a key into a log: `interactions`, or `withdrawals` of such."""
    found: list[tuple[int, int]] = []
    while True:
        page = (await connection.execute(_SINCE[log], {"after_key": after_key})).all()
        found += [(row.key, row.item_key) for row in page]
        if len(page) < SINCE_PAGE:
            return found
        after_key = page[-1].key


async def last_key(connection: AsyncConnection, log: str = "interactions") -> int:
    """The newest key of a log, 0 where there is none."""
    return int((await connection.execute(_LAST[log])).scalar() or 0)


async def withdraw(connection: AsyncConnection, item_keys: Iterable[int]) -> None:
    """Put on record that events of the items are gone, so that their rows are learnt again without them."""
    await _WITHDRAW(connection, [{"item_key": item_key} for item_key in sorted(set(item_keys))])

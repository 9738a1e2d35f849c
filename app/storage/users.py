"""Users and what they did."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.batches import BulkInsert
from app.storage.errors import UserErasing
from app.storage.records import Event, Json, StoredUser, Written, seconds

_USERS = tables.users
_INTERACTIONS = tables.interactions


def _with_new_attributes(insert: Any) -> Any:
    raised = {"attributes": insert.excluded.attributes, "revision": _USERS.c.revision + 1}
    return insert.on_conflict_do_update(index_elements=["user_id"], set_=raised)


def _raised(insert: Any) -> Any:
    raised = {"revision": _USERS.c.revision + insert.excluded.revision}
    return insert.on_conflict_do_update(index_elements=["user_id"], set_=raised)


_COLUMNS = ("user_id", "attributes", "revision")
_PUT = BulkInsert(_USERS, _COLUMNS, _with_new_attributes, returning=["user_id", "revision", "erasing"])
_TOUCH = BulkInsert(_USERS, _COLUMNS, _raised, returning=["user_id", "key", "erasing"])
_GET = select(_USERS.c.key, _USERS.c.user_id, _USERS.c.attributes, _USERS.c.revision).where(
    _USERS.c.user_id == bindparam("user_id"), _USERS.c.erasing.is_(False)
)
_PAGE = (
    select(_USERS.c.key, _USERS.c.user_id, _USERS.c.attributes, _USERS.c.revision)
    .where(_USERS.c.key > bindparam("after_key"), _USERS.c.erasing.is_(False))
    .order_by(_USERS.c.key)
    .limit(bindparam("size"))
)
_HISTORY = (
    select(_INTERACTIONS)
    .where(_INTERACTIONS.c.user_key == bindparam("user_key"))
    .order_by(_INTERACTIONS.c.occurred_at.desc(), _INTERACTIONS.c.key.desc())
    .limit(bindparam("size"))
)
_HISTORY_BEFORE = _HISTORY.where(
    tuple_(_INTERACTIONS.c.occurred_at, _INTERACTIONS.c.key)
    < tuple_(bindparam("before_time", type_=_INTERACTIONS.c.occurred_at.type), bindparam("before_key"))
)


async def get(connection: AsyncConnection, user_id: str) -> StoredUser | None:
    """The user of that id, unless it is being erased."""
    row = (await connection.execute(_GET, {"user_id": user_id})).first()
    return None if row is None else StoredUser(row.key, row.user_id, row.attributes, row.revision)


async def export_since(connection: AsyncConnection, after_key: int, limit: int) -> list[StoredUser]:
    """The next `limit` users behind a key, 0 for the first ones, in order of their keys."""
    rows = await connection.execute(_PAGE, {"after_key": after_key, "size": limit})
    return [StoredUser(row.key, row.user_id, row.attributes, row.revision) for row in rows]


async def put(connection: AsyncConnection, user_id: str, attributes: Json) -> bool:
    """Create a user or replace the attributes. Whether the user was created. Raises UserErasing."""
    return (await put_many(connection, {user_id: attributes})).created == 1


async def put_many(connection: AsyncConnection, users: Mapping[str, Json]) -> Written:
    """`put` for many. Raises UserErasing, which names whom it is about."""
    rows = [{"user_id": user_id, "attributes": dict(users[user_id]), "revision": 1} for user_id in sorted(users)]
    revisions = [row.revision for row in _none_erasing(await _PUT(connection, rows))]
    return Written(created=revisions.count(1), updated=len(revisions) - revisions.count(1))


async def touch(connection: AsyncConnection, times: Mapping[str, int]) -> dict[str, int]:
    """Raise the revisions of users, user id → by how much, creating those who are not there; their keys.

    The users stay locked until the transaction ends. They are locked in order of their ids, so that two batches with
    the same users never wait for each other in a circle. Raises UserErasing, which names whom it is about.
    """
    rows = [{"user_id": user_id, "attributes": {}, "revision": times[user_id]} for user_id in sorted(times)]
    return {row.user_id: row.key for row in _none_erasing(await _TOUCH(connection, rows))}


async def history(
    connection: AsyncConnection, user_key: int, limit: int, before: tuple[int, int] | None = None
) -> list[Event]:
    """The newest `limit` events that count as evidence, oldest first; those before a moment (`item_events.moment`).

    Of several ratings of one item only the one that occurred last counts, of those that occurred at the same time the
    one received last; events of other kinds all do.
    """
    newest_first: list[Row[Any]] = []
    rated: set[int] = set()
    first = {"user_key": user_key, "size": limit}
    if before is None:
        page = (await connection.execute(_HISTORY, first)).all()
    else:
        first |= {"before_time": before[0], "before_key": before[1]}
        page = (await connection.execute(_HISTORY_BEFORE, first)).all()
    while page:
        for row in page:
            if row.kind == "rating":
                if row.item_key in rated:
                    continue
                rated.add(row.item_key)
            newest_first.append(row)
        if len(newest_first) >= limit or len(page) < limit:
            break
        last = {"before_time": page[-1].occurred_at, "before_key": page[-1].key}
        page = (await connection.execute(_HISTORY_BEFORE, {"user_key": user_key, "size": limit, **last})).all()
    return [_event(row) for row in reversed(newest_first[:limit])]


def _none_erasing(rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    # Read from the rows that were locked: whoever began to erase one before us has committed that by now.
    erasing = [row.user_id for row in rows if row.erasing]
    if erasing:
        raise UserErasing(erasing)
    return rows


def _event(row: Row[Any]) -> Event:
    return Event(row.item_key, row.kind, row.value, seconds(row.occurred_at), row.context)

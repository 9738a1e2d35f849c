"""Everything that is stored about one user: read a page at a time, or moved to another user."""

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import erasures, item_events, tables, users
from app.storage.batches import among
from app.storage.interactions import exported
from app.storage.records import ExportedInteraction, ExportedReward, Merged, seconds

_USERS, _INTERACTIONS, _SLATES, _REWARDS = tables.users, tables.interactions, tables.slates, tables.rewards
_EVENTS = (
    select(_INTERACTIONS, _USERS.c.user_id, tables.items.c.item_id, tables.domains.c.name.label("domain"))
    .join(_USERS, _USERS.c.key == _INTERACTIONS.c.user_key)
    .join(tables.items, tables.items.c.key == _INTERACTIONS.c.item_key)
    .join(tables.domains, tables.domains.c.key == tables.items.c.domain_key)
    .where(
        _INTERACTIONS.c.user_key == bindparam("user_key"),
        tuple_(_INTERACTIONS.c.occurred_at, _INTERACTIONS.c.key)
        > tuple_(bindparam("after_time", type_=_INTERACTIONS.c.occurred_at.type), bindparam("after_key")),
    )
    .order_by(_INTERACTIONS.c.occurred_at, _INTERACTIONS.c.key)
    .limit(bindparam("size"))
)
_GIVEN = (
    select(_REWARDS, tables.items.c.item_id)
    .join(tables.items, tables.items.c.key == _REWARDS.c.item_key)
    .where(among(_REWARDS.c.slate_id, "slate_ids"))
    .order_by(_REWARDS.c.key)
)
_FIND = select(_USERS).where(among(_USERS.c.user_id, "user_ids"))
_ITEMS = select(_INTERACTIONS.c.item_key).where(_INTERACTIONS.c.user_key == bindparam("user_key")).distinct()
_MOVE_EVENTS, _MOVE_SLATES = (
    update(table).where(table.c.user_key == bindparam("of_user")).values(user_key=bindparam("to_user"))
    for table in (_INTERACTIONS, _SLATES)
)
_CHANGE = update(_USERS).where(_USERS.c.key == bindparam("user_key")).values(attributes=bindparam("merged"))
_DELETE = delete(_USERS).where(_USERS.c.key == bindparam("user_key"))
START = (-1, 0)
"""Where reading a user's events begins: before the first."""


async def interactions(
    connection: AsyncConnection, user_key: int, limit: int, after: tuple[int, int] = START
) -> tuple[list[ExportedInteraction], tuple[int, int]]:
    """(the next `limit` events of a user behind a place, oldest first; the place behind them)."""
    where = {"user_key": user_key, "after_time": after[0], "after_key": after[1], "size": limit}
    rows = (await connection.execute(_EVENTS, where)).all()
    return [exported(row) for row in rows], (rows[-1].occurred_at, rows[-1].key) if rows else after


async def rewards(connection: AsyncConnection, slate_ids: Sequence[str]) -> list[ExportedReward]:
    """Rewards of these slates, in the order in which they came."""
    return [
        ExportedReward(
            slate_id=row.slate_id,
            item_id=row.item_id,
            kind=row.kind,
            micros=row.micros,
            received_at=seconds(row.received_at),
            event_id=row.event_id,
            interaction_id=row.interaction_id,
        )
        for row in await connection.execute(_GIVEN, {"slate_ids": list(slate_ids)})
    ]


async def merge(connection: AsyncConnection, user_id: str, from_id: str, now: float) -> Merged | None:
    """Make all that is known of `from_id` known of `user_id`, who is created if need be; `from_id` is gone then.

    Attributes that both have stay as `user_id` has them. None where there is neither; where there is only `user_id`,
    that was done before, or nothing was known. Raises UserErasing.
    """
    both = {"user_ids": [user_id, from_id]}
    found = {row.user_id: row for row in await connection.execute(_FIND, both)}
    if from_id not in found and not any(row.erasing for row in found.values()):
        return Merged(0, 0, 0) if user_id in found else None
    # Creates whoever is not there, and locks both in the order in which all who write about users do.
    await users.touch(connection, {user_id: 1, from_id: 1})
    found = {row.user_id: row for row in await connection.execute(_FIND, both)}
    source, target = found[from_id], found[user_id]
    if source.revision == 1:  # somebody else has merged them just now
        await connection.execute(_DELETE, {"user_key": source.key})
        return Merged(0, 0, 0)
    # Rows of items are learnt again: whose events they are learnt from has changed.
    await item_events.withdraw(connection, (await connection.execute(_ITEMS, {"user_key": source.key})).scalars())
    owners = {"of_user": source.key, "to_user": target.key}
    moved = [(await connection.execute(statement, owners)).rowcount for statement in (_MOVE_EVENTS, _MOVE_SLATES)]
    merged = {**source.attributes, **target.attributes}
    await connection.execute(_CHANGE, {"user_key": target.key, "merged": merged})
    await connection.execute(_DELETE, {"user_key": source.key})
    await erasures.retire(connection, source.key, now, erased=True)
    return Merged(interactions=moved[0], slates=moved[1], attributes=len(merged) - len(target.attributes))

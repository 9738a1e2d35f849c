"""Erasing a user, by small steps that can be gone on with after a crash.

`start` commits the intention; from then on nobody reads or writes the user. Each `step`, which must be a transaction by
itself, deletes a portion, and the last one deletes the user. Then nothing of them is left here but digests of what must
not come back, and the key by which caches are swept until `finish`.
"""

from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import ageing, item_events, revisions, tables, tombstones
from app.storage.batches import among
from app.storage.digests import Digests
from app.storage.errors import UserErasing
from app.storage.records import Erasure, microseconds, seconds

STEP = 500
"""Events, or slates, of one transaction."""

_USERS, _INTERACTIONS, _SLATES, _REWARDS = tables.users, tables.interactions, tables.slates, tables.rewards
_ERASURES = tables.erasures
_LOCK_BY_ID = select(_USERS.c.key, _USERS.c.erasing).where(_USERS.c.user_id == bindparam("wanted")).with_for_update()
_LOCK = select(_USERS.c.key).where(_USERS.c.key == bindparam("user_key")).with_for_update()
_HIDE = (
    update(_USERS)
    .where(_USERS.c.key == bindparam("user_key"))
    .values(erasing=True, attributes={}, revision=_USERS.c.revision + 1)
)
_SOME_SLATES = (
    select(_SLATES.c.slate_id)
    .where(_SLATES.c.user_key == bindparam("user_key"))
    .order_by(_SLATES.c.slate_id)
    .limit(bindparam("size"))
    .with_for_update()
)
_SOME_EVENTS = (
    select(*(_INTERACTIONS.c[name] for name in ("key", "event_id", "content_digest", "item_key")))
    .where(_INTERACTIONS.c.user_key == bindparam("user_key"))
    .order_by(_INTERACTIONS.c.key)
    .limit(bindparam("size"))
)
_OF_EVENTS = among(_REWARDS.c.interaction_id, "event_ids")
_LOCK_SLATES = (
    select(_SLATES.c.slate_id)
    .where(_SLATES.c.slate_id.in_(select(_REWARDS.c.slate_id).where(_OF_EVENTS)))
    .order_by(_SLATES.c.slate_id)
    .with_for_update()
)
_FORGET_IDS = update(_REWARDS).where(_OF_EVENTS).values(interaction_id=None)
_DELETE_EVENTS = delete(_INTERACTIONS).where(among(_INTERACTIONS.c.key, "keys"))
_DELETE_USER = delete(_USERS).where(_USERS.c.key == bindparam("user_key"))
_ERASED = (
    update(_ERASURES)
    .where(_ERASURES.c.user_key == bindparam("of_user"), _ERASURES.c.erased_at.is_(None))
    .values(erased_at=bindparam("now"))
)
_UNFINISHED = select(_ERASURES).where(_ERASURES.c.finished_at.is_(None)).order_by(_ERASURES.c.key)
_SINCE = select(_ERASURES).where(_ERASURES.c.key > bindparam("after_key")).order_by(_ERASURES.c.key)
_FINISH = update(_ERASURES).where(_ERASURES.c.key == bindparam("wanted")).values(finished_at=bindparam("now"))
_PRUNE = delete(_ERASURES).where(_ERASURES.c.finished_at < bindparam("before"))


async def start(connection: AsyncConnection, user_id: str, keyed: Digests, now: float) -> Erasure | None:
    """Begin to erase a user; None where there is none. Raises UserErasing where that has begun before."""
    user = (await connection.execute(_LOCK_BY_ID, {"wanted": user_id})).first()
    if user is None:
        return None
    if user.erasing:
        raise UserErasing([user_id])
    await connection.execute(_HIDE, {"user_key": user.key})
    await tombstones.bury(connection, [tombstones.of_user(keyed, user_id)], now)
    return await retire(connection, user.key, now)


async def retire(connection: AsyncConnection, user_key: int, now: float, *, erased: bool = False) -> Erasure:
    """Tell every worker's cache to forget a user's key; with `erased` there is nothing else left of it."""
    await revisions.advance(connection, "erasures")
    at = microseconds(now)
    row = {"user_key": user_key, "started_at": at, "erased_at": at if erased else None}
    made = await connection.execute(insert(_ERASURES).returning(_ERASURES.c.key), row)
    return Erasure(made.scalar_one(), user_key, now if erased else None)


async def step(connection: AsyncConnection, user_key: int, keyed: Digests, now: float, size: int = STEP) -> bool:
    """Delete a portion of what there is of a user who is being erased. Whether nothing is left.

    What their slates say of items goes to the base of the arms. A reward that an interaction of theirs gave to a slate
    of somebody else stays, without the event's id.
    """
    if (await connection.execute(_LOCK, {"user_key": user_key})).first() is None:
        return True
    portion = {"user_key": user_key, "size": size}
    slate_ids = list((await connection.execute(_SOME_SLATES, portion)).scalars())
    if slate_ids:
        await ageing.forget(connection, slate_ids)
        return False
    events = (await connection.execute(_SOME_EVENTS, portion)).all()
    if events:
        named = [(row.event_id, row.content_digest) for row in events if row.event_id is not None]
        await tombstones.bury(connection, [tombstones.of_event(keyed, *event) for event in named], now)
        event_ids = {"event_ids": [event_id for event_id, _ in named]}
        # Slates before rewards, as all who write to these do.
        await connection.execute(_LOCK_SLATES, event_ids)
        await connection.execute(_FORGET_IDS, event_ids)
        await item_events.withdraw(connection, [row.item_key for row in events])
        await connection.execute(_DELETE_EVENTS, {"keys": [row.key for row in events]})
        return False
    await connection.execute(_DELETE_USER, {"user_key": user_key})
    await connection.execute(_ERASED, {"of_user": user_key, "now": microseconds(now)})
    return True


async def unfinished(connection: AsyncConnection) -> list[Erasure]:
    """Users who are not wholly forgotten, in the order in which that began."""
    return [_erasure(row) for row in await connection.execute(_UNFINISHED)]


async def since(connection: AsyncConnection, after_key: int) -> list[Erasure]:
    """What was to be forgotten behind a key."""
    return [_erasure(row) for row in await connection.execute(_SINCE, {"after_key": after_key})]


async def last_key(connection: AsyncConnection) -> int:
    """The newest key, 0 where there is none."""
    return int((await connection.execute(select(func.max(_ERASURES.c.key)))).scalar() or 0)


async def finish(connection: AsyncConnection, erasure: Erasure, now: float) -> None:
    """Note that no cache has anything of the user either."""
    await connection.execute(_FINISH, {"wanted": erasure.key, "now": microseconds(now)})


async def prune(connection: AsyncConnection, before: float) -> None:
    """Forget erasures that were finished before a time."""
    await connection.execute(_PRUNE, {"before": microseconds(before)})


def _erasure(row: Row[Any]) -> Erasure:
    return Erasure(row.key, row.user_key, None if row.erased_at is None else seconds(row.erased_at))

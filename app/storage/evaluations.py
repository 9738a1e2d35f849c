"""Slates with what came of each place, newest first: of a domain, for evaluation, and of one user."""

from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from sqlalchemy import bindparam, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import slates, tables
from app.storage.batches import among
from app.storage.records import StoredSlate, StoredUser

PAGE = 1_000
_SLATES, _REWARDS, _USERS = tables.slates, tables.rewards, tables.users
_BEFORE = (
    select(_SLATES.c.slate_id, _SLATES.c.created_at)
    .where(
        tuple_(_SLATES.c.created_at, _SLATES.c.slate_id)
        < tuple_(bindparam("before_time", type_=_SLATES.c.created_at.type), bindparam("before_id"))
    )
    .order_by(_SLATES.c.created_at.desc(), _SLATES.c.slate_id.desc())
    .limit(bindparam("size"))
)
_NEWEST = _BEFORE.where(_SLATES.c.domain_key == bindparam("domain_key"))
_OF_USER = _BEFORE.where(_SLATES.c.user_key == bindparam("user_key"))
START = (2**62, "")
"""A place in the log after every slate: where reading begins."""
_GIVEN = (
    select(_REWARDS.c.slate_id, _REWARDS.c.item_key, func.sum(_REWARDS.c.micros).label("micros"))
    .where(among(_REWARDS.c.slate_id, "slate_ids"))
    .group_by(_REWARDS.c.slate_id, _REWARDS.c.item_key)
)
_OWNERS = select(_USERS).where(among(_USERS.c.key, "keys"))


class Judged(NamedTuple):
    """A slate and what came of it."""

    slate: StoredSlate
    rewards: Mapping[int, int]
    """Item key → millionths, of the places that have a reward, given or by default."""


async def newest(connection: AsyncConnection, domain_key: int, limit: int) -> AsyncIterator[list[Judged]]:
    """The newest `limit` slates of a domain, a page at a time, the newest first."""
    before = START
    while limit > 0:
        where = {"domain_key": domain_key, "before_time": before[0], "before_id": before[1], "size": min(PAGE, limit)}
        page = (await connection.execute(_NEWEST, where)).all()
        if not page:
            return
        yield await _with_rewards(connection, [row.slate_id for row in page])
        before, limit = (page[-1].created_at, page[-1].slate_id), limit - len(page)


async def of_user(
    connection: AsyncConnection, user_key: int, limit: int, before: tuple[int, str] = START
) -> list[Judged]:
    """A user's newest slates before a place in the log: microseconds and id of a slate."""
    where = {"user_key": user_key, "before_time": before[0], "before_id": before[1], "size": limit}
    return await _with_rewards(connection, [row.slate_id for row in await connection.execute(_OF_USER, where)])


async def owners(connection: AsyncConnection, keys: list[int]) -> dict[int, StoredUser]:
    """Users by key."""
    rows = await connection.execute(_OWNERS, {"keys": keys})
    return {row.key: StoredUser(row.key, row.user_id, row.attributes, row.revision) for row in rows}


async def _with_rewards(connection: AsyncConnection, slate_ids: list[str]) -> list[Judged]:
    """Those of the slates that are still there, in their order."""
    stored = await slates.get(connection, slate_ids)
    given: dict[str, dict[int, int]] = {}
    for row in await connection.execute(_GIVEN, {"slate_ids": slate_ids}):
        given.setdefault(row.slate_id, {})[row.item_key] = int(row.micros)
    return [_judged(stored[slate_id], given.get(slate_id, {})) for slate_id in slate_ids if slate_id in stored]


def _judged(slate: StoredSlate, given: dict[int, int]) -> Judged:
    default = slate.default_micros
    if default is None:
        return Judged(slate, given)
    return Judged(slate, {item.item_key: given.get(item.item_key, default) for item in slate.items})

"""The log as the linear policies read it: rewards of items that were shown in a context, page after page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, and_, bindparam, case, func, not_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.batches import among

PAGE = 2_000
_SLATES, _REWARDS = tables.slates, tables.rewards
_EARLIER = _REWARDS.alias("earlier")
_WITH_CONTEXT = _SLATES.c.policy["policy"].as_string().in_(["lin_ucb", "lin_thompson"])
_TELLS = and_(_SLATES.c.domain_key == bindparam("domain_key"), _WITH_CONTEXT).label("tells")
_JOINED = _REWARDS.join(_SLATES, _SLATES.c.slate_id == _REWARDS.c.slate_id)
_FIRST = (
    select(func.min(_EARLIER.c.key))
    .where(_EARLIER.c.slate_id == _REWARDS.c.slate_id, _EARLIER.c.item_key == _REWARDS.c.item_key)
    .scalar_subquery()
)
_AFTER_SETTLING = _REWARDS.c.received_at >= _SLATES.c.settled_at
_LAST_KEY = select(func.coalesce(func.max(_REWARDS.c.key), 0))
_GIVEN = (
    select(_REWARDS.c.key, _TELLS)
    .select_from(_JOINED)
    .where(_REWARDS.c.key > bindparam("key"))
    .order_by(_REWARDS.c.key)
    .limit(PAGE)
)
_OF_GIVEN = (
    select(
        _REWARDS.c.item_key,
        _REWARDS.c.micros,
        (_REWARDS.c.key > _FIRST).label("again"),
        case((_AFTER_SETTLING, _SLATES.c.default_micros)).label("instead_of"),
        _SLATES.c.policy,
        _SLATES.c["items"].label("places"),
    )
    .select_from(_JOINED)
    .where(among(_REWARDS.c.key, "keys"))
    .order_by(_REWARDS.c.key)
)
_SETTLED = (
    select(_SLATES.c.settled_at, _SLATES.c.slate_id, _TELLS)
    .where(tuple_(_SLATES.c.settled_at, _SLATES.c.slate_id) > tuple_(bindparam("settled_at"), bindparam("slate_id")))
    .order_by(_SLATES.c.settled_at, _SLATES.c.slate_id)
    .limit(PAGE)
)
_OF_SETTLED = select(
    _SLATES.c.slate_id, _SLATES.c.default_micros, _SLATES.c.policy, _SLATES.c["items"].label("places")
).where(among(_SLATES.c.slate_id, "slate_ids"))
_REWARDED_BEFORE = (
    select(_REWARDS.c.slate_id, _REWARDS.c.item_key)
    .select_from(_JOINED)
    .where(among(_REWARDS.c.slate_id, "slate_ids"), not_(_AFTER_SETTLING))
    .distinct()
)

Settled = tuple[int, str]
"""When a slate was settled, in microseconds, and its id: the order in which defaults are read."""


class Lesson(NamedTuple):
    """What came of an item that was shown in a context, given or by default."""

    digest: str
    """Of the checkpoint whose state the context is made of."""
    context: list[float]
    item_key: int
    score: float
    """The item's, as it was logged."""
    micros: int
    again: bool
    """Whether its place had a reward before."""


async def last_key(connection: AsyncConnection) -> int:
    """Of the newest reward; 0 where there is none."""
    return int((await connection.execute(_LAST_KEY)).scalar_one())


async def given_since(connection: AsyncConnection, domain_key: int, key: int) -> list[tuple[int, bool]]:
    """(key, whether it tells the domain's linear policies anything) of the next `PAGE` rewards behind a key, of all
    domains."""
    found = await connection.execute(_GIVEN, {"domain_key": domain_key, "key": key})
    return [(row.key, bool(row.tells)) for row in found]


async def given(connection: AsyncConnection, keys: Sequence[int]) -> list[Lesson]:
    """What rewards tell. One that took the place of the default tells only by how much it differs."""
    if not keys:
        return []
    rows = await connection.execute(_OF_GIVEN, {"keys": list(keys)})
    lessons = []
    for row in rows:
        replaced = not row.again and row.instead_of is not None
        micros = row.micros - row.instead_of if replaced else row.micros
        lessons.append(_lesson(row, row.item_key, micros, row.again or replaced))
    return lessons


async def settled_since(connection: AsyncConnection, domain_key: int, after: Settled) -> list[tuple[Settled, bool]]:
    """((when, slate id), whether it tells the domain's linear policies anything) of the next `PAGE` slates that were
    settled behind another, of all domains."""
    where = {"domain_key": domain_key, "settled_at": after[0], "slate_id": after[1]}
    return [((row.settled_at, row.slate_id), bool(row.tells)) for row in await connection.execute(_SETTLED, where)]


async def by_default(connection: AsyncConnection, slate_ids: Sequence[str]) -> list[Lesson]:
    """What the places of settled slates tell that had no reward then."""
    if not slate_ids:
        return []
    wanted = {"slate_ids": list(slate_ids)}
    rewarded = {(row.slate_id, row.item_key) for row in await connection.execute(_REWARDED_BEFORE, wanted)}
    return [
        _lesson(row, item_key, row.default_micros, False)
        for row in await connection.execute(_OF_SETTLED, wanted)
        for item_key, *_ in row.places
        if (row.slate_id, item_key) not in rewarded
    ]


def _lesson(row: Row[*tuple[Any, ...]], item_key: int, micros: int, again: bool) -> Lesson:
    context = row.policy["context"]
    score = next(place[2] for place in row.places if place[0] == item_key)
    return Lesson(context["digest"], context["x"], item_key, score, micros, bool(again))

"""The log as the linear policies read it: rewards of items that were shown in a context, page after page."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Row, bindparam, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.batches import among

PAGE = 2_000
_SLATES, _REWARDS = tables.slates, tables.rewards
_EARLIER = _REWARDS.alias("earlier")
_WITH_CONTEXT = _SLATES.c.policy["policy"].as_string().in_(["lin_ucb", "lin_thompson"])
_FIRST = (
    select(func.min(_EARLIER.c.key))
    .where(_EARLIER.c.slate_id == _REWARDS.c.slate_id, _EARLIER.c.item_key == _REWARDS.c.item_key)
    .scalar_subquery()
)
_GIVEN = (
    select(
        _REWARDS.c.key,
        _REWARDS.c.item_key,
        _REWARDS.c.micros,
        (_REWARDS.c.key > _FIRST).label("again"),
        _SLATES.c.policy,
        _SLATES.c["items"].label("places"),
    )
    .join(_SLATES, _SLATES.c.slate_id == _REWARDS.c.slate_id)
    .where(_REWARDS.c.key > bindparam("key"), _SLATES.c.domain_key == bindparam("domain_key"), _WITH_CONTEXT)
    .order_by(_REWARDS.c.key)
    .limit(PAGE)
)
_SETTLED = (
    select(
        _SLATES.c.slate_id,
        _SLATES.c.settled_at,
        _SLATES.c.default_micros,
        _SLATES.c.policy,
        _SLATES.c["items"].label("places"),
    )
    .where(
        tuple_(_SLATES.c.settled_at, _SLATES.c.slate_id) > tuple_(bindparam("settled_at"), bindparam("slate_id")),
        _SLATES.c.domain_key == bindparam("domain_key"),
        _WITH_CONTEXT,
    )
    .order_by(_SLATES.c.settled_at, _SLATES.c.slate_id)
    .limit(PAGE)
)
_REWARDED = select(_REWARDS.c.slate_id, _REWARDS.c.item_key).where(among(_REWARDS.c.slate_id, "slate_ids")).distinct()


class Cursor(NamedTuple):
    """How far the log has been read."""

    key: int = 0
    settled_at: int = 0
    slate_id: str = ""


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


class Told(NamedTuple):
    """A page of the log."""

    lessons: list[Lesson]
    cursor: Cursor
    complete: bool
    """Whether that is all there is."""


async def since(connection: AsyncConnection, domain_key: int, cursor: Cursor) -> Told:
    """The next page of a domain's log behind the cursor."""
    where = {"domain_key": domain_key, **cursor._asdict()}
    given = (await connection.execute(_GIVEN, where)).all()
    settled = (await connection.execute(_SETTLED, where)).all()
    rewarded = set()
    if settled:
        slate_ids = {"slate_ids": [row.slate_id for row in settled]}
        rewarded = {(row.slate_id, row.item_key) for row in await connection.execute(_REWARDED, slate_ids)}
    lessons = [_lesson(row, row.item_key, row.micros, row.again) for row in given]
    for row in settled:
        lessons += _by_default(row, rewarded)
    key = given[-1].key if given else cursor.key
    at = (settled[-1].settled_at, settled[-1].slate_id) if settled else cursor[1:]
    return Told(lessons, Cursor(key, *at), max(len(given), len(settled)) < PAGE)


def _by_default(row: Row[*tuple[Any, ...]], rewarded: set[tuple[str, int]]) -> Iterator[Lesson]:
    for item_key, *_ in row.places:
        if (row.slate_id, item_key) not in rewarded:
            yield _lesson(row, item_key, row.default_micros, False)


def _lesson(row: Row[*tuple[Any, ...]], item_key: int, micros: int, again: bool) -> Lesson:
    context = row.policy["context"]
    score = next(place[2] for place in row.places if place[0] == item_key)
    return Lesson(context["digest"], context["x"], item_key, score, micros, bool(again))

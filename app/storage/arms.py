"""Arms: what each policy showed of each item and what came of it, in integers.

    arms = base + log

The log is `slates` and `rewards`. Whoever writes there counts here, in the same transaction; what leaves the log (old
slates, the slates of an erased user) goes to the base. So arms can be made again from base and log at any time, and
come out the same to the last bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Select, bindparam, delete, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.batches import BulkInsert
from app.storage.records import Arm, ArmCounts

_ARMS = tables.arms
_KEY = ("domain_key", "policy", "item_key")
_COUNTS = ("shows", "judged", "micros")

PLACES = {
    "sqlite": "json_each(slates.items) AS place",
    "postgresql": "json_array_elements(slates.items) AS place",
}
"""The places of a slate as rows, to stand beside `slates` in a FROM."""

_TALLY = """
    SELECT domain_key, policy, item_key, COUNT(*) AS shows, COUNT(COALESCE(won, default_micros)) AS judged,
        CAST(COALESCE(SUM(COALESCE(won, default_micros)), 0) AS BIGINT) AS micros
    FROM (
        SELECT slates.domain_key, slates.policy ->> 'policy' AS policy, CAST(place.value ->> 0 AS BIGINT) AS item_key,
            slates.default_micros,
            (SELECT CAST(SUM(rewards.micros) AS BIGINT) FROM rewards WHERE rewards.slate_id = slates.slate_id
                AND rewards.item_key = CAST(place.value ->> 0 AS BIGINT)) AS won
        FROM slates, {places}
        WHERE {which}
    ) AS shown
    GROUP BY domain_key, policy, item_key
"""
"""What slates say of arms: the definition that `count` and `fold` keep up with."""

_FOLD = """
    INSERT INTO arms (domain_key, policy, item_key, shows, judged, micros, base_shows, base_judged, base_micros)
    SELECT domain_key, policy, item_key, 0, 0, 0, shows, judged, micros FROM ({tally}) AS tally
    WHERE true ORDER BY domain_key, policy, item_key
    ON CONFLICT (domain_key, policy, item_key) DO UPDATE SET base_shows = arms.base_shows + excluded.base_shows,
        base_judged = arms.base_judged + excluded.base_judged, base_micros = arms.base_micros + excluded.base_micros
"""


def _added(insert: Any) -> Any:
    sums = {name: _ARMS.c[name] + insert.excluded[name] for name in _COUNTS}
    return insert.on_conflict_do_update(index_elements=_KEY, set_=sums)


_COUNT = BulkInsert(_ARMS, (*_KEY, *_COUNTS), _added)
_REPLACE = BulkInsert(_ARMS, (*_KEY, *_COUNTS, *(f"base_{name}" for name in _COUNTS)))
_TOTALS = (
    select(
        _ARMS.c.item_key,
        *(func.sum(_ARMS.c[name]).label(name) for name in _COUNTS),
    )
    .where(_ARMS.c.domain_key == bindparam("domain_key"))
    .group_by(_ARMS.c.item_key)
)

Key = tuple[int, str, int]
"""(domain key, policy, item key)."""


async def count(connection: AsyncConnection, changes: Mapping[Key, ArmCounts]) -> None:
    """Add to the counts of arms; in order of their keys, so that two writers never wait for each other in a circle."""
    rows = [dict(zip((*_KEY, *_COUNTS), (*key, *changes[key]), strict=True)) for key in sorted(changes)]
    await _COUNT(connection, rows)


async def fold(connection: AsyncConnection, which: str, parameters: Mapping[str, Any]) -> None:
    """Take into the base what slates say that are about to leave the log; `which` is a condition on `slates`."""
    await connection.execute(text(_FOLD.format(tally=_tally(connection, which))), dict(parameters))


async def fold_slates(connection: AsyncConnection, slate_ids: Sequence[str]) -> None:
    """`fold` for these slates."""
    listed = (
        "json_each(:ids)" if connection.dialect.name == "sqlite" else "json_array_elements_text(CAST(:ids AS json))"
    )
    which = f"slates.slate_id IN (SELECT value FROM {listed})"
    await fold(connection, which, {"ids": orjson.dumps(list(slate_ids)).decode()})


async def totals(connection: AsyncConnection, domain_key: int) -> dict[int, ArmCounts]:
    """Counts of each item of a domain over all policies, by item key."""
    rows = await connection.execute(_TOTALS, {"domain_key": domain_key})
    return {row.item_key: ArmCounts(int(row.shows), int(row.judged), int(row.micros)) for row in rows}


async def page(
    connection: AsyncConnection, domain_key: int, limit: int, after: tuple[int, str] | None = None
) -> list[Arm]:
    """The next arms of a domain behind (item key, policy), in that order."""
    listed: Select[Any] = (
        select(_ARMS, tables.items.c.item_id)
        .join(tables.items, tables.items.c.key == _ARMS.c.item_key)
        .where(_ARMS.c.domain_key == domain_key)
        .order_by(_ARMS.c.item_key, _ARMS.c.policy)
        .limit(limit)
    )
    if after is not None:
        listed = listed.where(tuple_(_ARMS.c.item_key, _ARMS.c.policy) > after)
    return [
        Arm(row.item_key, row.item_id, row.policy, ArmCounts(row.shows, row.judged, row.micros))
        for row in await connection.execute(listed)
    ]


async def differences(connection: AsyncConnection) -> list[tuple[Key, ArmCounts, ArmCounts]]:
    """Arms whose counts are not base + log: (key, what they are, what they should be). Read it in one snapshot."""
    rows = list(await connection.execute(select(_ARMS)))
    stored = {(row.domain_key, row.policy, row.item_key): ArmCounts(row.shows, row.judged, row.micros) for row in rows}
    base = {
        (row.domain_key, row.policy, row.item_key): ArmCounts(row.base_shows, row.base_judged, row.base_micros)
        for row in rows
    }
    wanted = base.copy()
    for key, counts in (await _logged(connection)).items():
        wanted[key] = wanted.get(key, ArmCounts()) + counts
    every = sorted(stored.keys() | wanted.keys())
    pairs = ((key, stored.get(key, ArmCounts()), wanted.get(key, ArmCounts())) for key in every)
    return [(key, is_, should) for key, is_, should in pairs if is_ != should]


async def rebuild(connection: AsyncConnection) -> int:
    """Make all counts again from base and log; how many arms there are. Nobody else may write meanwhile."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("LOCK TABLE slates, rewards, arms IN SHARE ROW EXCLUSIVE MODE"))
    base = {
        (row.domain_key, row.policy, row.item_key): ArmCounts(row.base_shows, row.base_judged, row.base_micros)
        for row in await connection.execute(select(_ARMS))
    }
    logged = await _logged(connection)
    await connection.execute(delete(_ARMS))
    columns = (*_KEY, *_COUNTS, *(f"base_{name}" for name in _COUNTS))
    rows = []
    for key in sorted(base.keys() | logged.keys()):
        left = base.get(key, ArmCounts())
        rows.append(dict(zip(columns, (*key, *(left + logged.get(key, ArmCounts())), *left), strict=True)))
    await _REPLACE(connection, rows)
    return len(rows)


async def _logged(connection: AsyncConnection) -> dict[Key, ArmCounts]:
    rows = await connection.execute(text(_tally(connection, "true")))
    return {
        (row.domain_key, row.policy, row.item_key): ArmCounts(int(row.shows), int(row.judged), int(row.micros))
        for row in rows
    }


def _tally(connection: AsyncConnection, which: str) -> str:
    return _TALLY.format(places=PLACES[connection.dialect.name], which=which)

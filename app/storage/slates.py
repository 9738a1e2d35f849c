"""The log of slates: what was shown to whom, with what probability, by which checkpoints."""

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.batches import among
from app.storage.database import Database
from app.storage.records import NewSlate, ShownItem, StoredSlate, microseconds, seconds

_SLATES = tables.slates
_SLATE = """
    SELECT value ->> 0 AS slate_id, (SELECT key FROM users WHERE key = CAST(value ->> 1 AS BIGINT){lock}) AS user_key,
        CAST(value ->> 2 AS BIGINT) AS domain_key, CAST(value ->> 3 AS BIGINT) AS created_at, value -> 4 AS policy,
        value -> 5 AS items, value -> 6 AS parts, CAST(value ->> 7 AS BIGINT) AS settle_at
    FROM """
_INSERT = "INSERT INTO slates (slate_id, user_key, domain_key, created_at, policy, items, parts, settle_at)"
_COUNT = """
    INSERT INTO arms (domain_key, policy, item_key, shows, judged, micros)
    SELECT {domain_key}, {policy}, CAST(place.value ->> 0 AS BIGINT), COUNT(*), 0, 0
    FROM {places} AS place
    WHERE true GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (domain_key, policy, item_key) DO UPDATE SET shows = arms.shows + excluded.shows"""

_LOG_SQLITE = (
    _INSERT + _SLATE.format(lock="") + "json_each(:rows)",
    _COUNT.format(
        domain_key="slate.value ->> 2",
        policy="slate.value -> 4 ->> 'policy'",
        places="json_each(:rows) AS slate, json_each(slate.value, '$[5]')",
    ),
)
# One statement, which is one round trip. A user who is being deleted is waited for before any arm is locked.
_LOG_POSTGRES = (
    "WITH logged AS ("
    + _INSERT
    + _SLATE.format(lock=" FOR KEY SHARE")
    + "json_array_elements(CAST(:rows AS json)) RETURNING domain_key, policy, items)"
    + _COUNT.format(
        domain_key="logged.domain_key",
        policy="logged.policy ->> 'policy'",
        places="logged, json_array_elements(logged.items)",
    ),
)
_GET = select(_SLATES).where(among(_SLATES.c.slate_id, "slate_ids"))
_LOCK = _GET.order_by(_SLATES.c.slate_id).with_for_update()


def new_slate_id(now: float) -> str:
    """A fresh id, a UUID of version 7 (RFC 9562): sortable by time to the millisecond, 74 bits of it random.

    >>> new_slate_id(1700000000.0)[:15]
    '018bcfe5-6800-7'
    """
    milliseconds = int(now * 1000) & (1 << 48) - 1
    chance = secrets.randbits(74)
    number = milliseconds << 80 | 0x7 << 76 | chance >> 62 << 64 | 0b10 << 62 | chance & (1 << 62) - 1
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


async def log(database: Database, slates: Sequence[NewSlate]) -> None:
    """Log slates and count what they show, all or none; committed when this returns.

    They go as one JSON document, in one turn: every request waits for this, and its time is that of the turns it takes,
    not of the rows. A user who was deleted in the meantime leaves the slate without an owner.
    """
    rows = [
        [
            slate.slate_id,
            slate.user_key,
            slate.domain_key,
            microseconds(slate.created_at),
            slate.policy,
            [tuple(item) for item in slate.items],
            slate.parts,
            None if slate.settle_at is None else microseconds(slate.settle_at),
        ]
        for slate in slates
    ]
    await database.execute_alone(_LOG_SQLITE if database.is_sqlite else _LOG_POSTGRES, orjson.dumps(rows).decode())


async def lock(connection: AsyncConnection, slate_ids: Iterable[str]) -> dict[str, StoredSlate]:
    """`get`, and nobody else changes their rewards until the transaction ends. Locked in order of their ids."""
    wanted = sorted(slate_ids)
    if not wanted:
        return {}
    rows = await connection.execute(_LOCK, {"slate_ids": wanted})
    return {row.slate_id: _stored(row) for row in rows}


async def get(connection: AsyncConnection, slate_ids: Sequence[str]) -> dict[str, StoredSlate]:
    """Those of the slates that are on record, by id."""
    rows = await connection.execute(_GET, {"slate_ids": list(slate_ids)})
    return {row.slate_id: _stored(row) for row in rows}


def _stored(row: Row[Any]) -> StoredSlate:
    return StoredSlate(
        slate_id=row.slate_id,
        user_key=row.user_key,
        domain_key=row.domain_key,
        created_at=seconds(row.created_at),
        policy=row.policy,
        items=[ShownItem(*place) for place in row.items],
        parts=row.parts,
        settle_at=None if row.settle_at is None else seconds(row.settle_at),
        default_micros=row.default_micros,
    )

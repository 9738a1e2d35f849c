"""The log of slates: what was shown to whom, with what probability, by which checkpoints."""

import secrets
from collections import Counter
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
    SELECT CAST(value ->> 0 AS BIGINT), value ->> 1, CAST(value ->> 2 AS BIGINT), CAST(value ->> 3 AS BIGINT), 0, 0
    FROM {counts}
    WHERE {ready}
    ON CONFLICT (domain_key, policy, item_key) DO UPDATE SET shows = arms.shows + excluded.shows"""

_LOG_SQLITE = (
    _INSERT + _SLATE.format(lock="") + "json_each(:rows, '$.slates')",
    _COUNT.format(counts="json_each(:rows, '$.shows')", ready="true"),
)
# One statement, which is one round trip. Arms wait for the slates, and these for a user who is being deleted: he who
# deletes takes the same order.
_LOG_POSTGRES = (
    "WITH logged AS ("
    + _INSERT
    + _SLATE.format(lock=" FOR KEY SHARE")
    + "json_array_elements(CAST(:rows AS json) -> 'slates') RETURNING slate_id)"
    + _COUNT.format(
        counts="json_array_elements(CAST(:rows AS json) -> 'shows')", ready="(SELECT COUNT(*) FROM logged) > 0"
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
    shown = Counter(
        (slate.domain_key, slate.policy["policy"], item.item_key) for slate in slates for item in slate.items
    )
    # In order of their keys, so that two who count never wait for each other in a circle.
    document = {"slates": rows, "shows": [(*arm, shown[arm]) for arm in sorted(shown)]}
    await database.execute_alone(_LOG_SQLITE if database.is_sqlite else _LOG_POSTGRES, orjson.dumps(document).decode())


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

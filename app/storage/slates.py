"""The log of slates: what was shown to whom, with what probability, by which checkpoints."""

import secrets
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.batches import among
from app.storage.database import Database
from app.storage.records import NewSlate, ShownItem, StoredSlate, microseconds, seconds

_SLATES = tables.slates
_LOG = """
    INSERT INTO slates (slate_id, user_key, domain_key, created_at, policy, items, parts)
    SELECT value ->> 0, (SELECT key FROM users WHERE key = CAST(value ->> 1 AS BIGINT)), CAST(value ->> 2 AS BIGINT),
        CAST(value ->> 3 AS BIGINT), value -> 4, value -> 5, value -> 6
    FROM """
_LOG_SQLITE = _LOG + "json_each(:rows)"
_LOG_POSTGRES = _LOG + "json_array_elements(CAST(:rows AS json))"
_GET = select(_SLATES).where(among(_SLATES.c.slate_id, "slate_ids"))


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
    """Log slates, all or none; committed when this returns.

    One statement takes them all as one JSON document: every request waits for this, and its time is that of the turns
    it takes, not of the rows. A user who was deleted in the meantime leaves the slate without an owner.
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
        ]
        for slate in slates
    ]
    await database.execute_alone(_LOG_SQLITE if database.is_sqlite else _LOG_POSTGRES, orjson.dumps(rows).decode())


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
    )

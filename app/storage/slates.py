"""The log of slates: what was shown to whom, with what probability, by which checkpoints."""

import secrets
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.batches import BulkInsert, among
from app.storage.records import NewSlate, ShownItem, StoredSlate, microseconds, seconds

_SLATES = tables.slates
_ADD = BulkInsert(_SLATES, ("slate_id", "user_key", "domain_key", "created_at", "policy", "items", "parts"))
_GET = select(_SLATES).where(among(_SLATES.c.slate_id, "slate_ids"))
_NEWEST = (
    select(_SLATES)
    .where(_SLATES.c.user_key == bindparam("user_key"))
    .order_by(_SLATES.c.created_at.desc(), _SLATES.c.slate_id.desc())
    .limit(bindparam("size"))
)


def new_slate_id(now: float) -> str:
    """A fresh id, a UUID of version 7 (RFC 9562): sortable by time to the millisecond, 74 bits of it random.

    >>> new_slate_id(1700000000.0)[:15]
    '018bcfe5-6800-7'
    """
    milliseconds = int(now * 1000) & (1 << 48) - 1
    number = milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=number))


async def add(connection: AsyncConnection, slates: Sequence[NewSlate]) -> None:
    """Log slates."""
    rows = [
        {
            "slate_id": slate.slate_id,
            "user_key": slate.user_key,
            "domain_key": slate.domain_key,
            "created_at": microseconds(slate.created_at),
            "policy": dict(slate.policy),
            "items": [[i.item_key, i.item_id, i.score, i.propensity, i.explored] for i in slate.items],
            "parts": list(slate.parts),
        }
        for slate in slates
    ]
    await _ADD(connection, rows)


async def get(connection: AsyncConnection, slate_ids: Sequence[str]) -> dict[str, StoredSlate]:
    """Those of the slates that are on record, by id."""
    rows = await connection.execute(_GET, {"slate_ids": list(slate_ids)})
    return {row.slate_id: _stored(row) for row in rows}


async def newest_of_user(connection: AsyncConnection, user_key: int, limit: int = 1) -> list[StoredSlate]:
    """The last slates a user was shown, newest first."""
    return [_stored(row) for row in await connection.execute(_NEWEST, {"user_key": user_key, "size": limit})]


async def prune(connection: AsyncConnection, before: float) -> int:
    """Forget slates made before a time; how many."""
    gone = await connection.execute(delete(_SLATES).where(_SLATES.c.created_at < microseconds(before)))
    return gone.rowcount


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

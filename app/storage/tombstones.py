"""What must not come back: keyed digests of erased users' ids and of their events, kept for a while."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, case, delete, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.batches import BulkInsert, among
from app.storage.digests import Digests
from app.storage.records import microseconds

_TOMBSTONES = tables.tombstones


def _latest(insert: Any) -> Any:
    given, there = insert.excluded.erased_at, _TOMBSTONES.c.erased_at
    return insert.on_conflict_do_update(
        index_elements=["digest"], set_={"erased_at": case((given > there, given), else_=there)}
    )


ANY = exists(select(_TOMBSTONES.c.digest))
"""Whether there are any, for a WHERE."""
_BURY = BulkInsert(_TOMBSTONES, ("digest", "erased_at"), _latest)
_FIND = select(_TOMBSTONES.c.digest, _TOMBSTONES.c.erased_at).where(among(_TOMBSTONES.c.digest, "digests"))
_OLD = (
    select(_TOMBSTONES.c.digest)
    .where(_TOMBSTONES.c.erased_at < bindparam("before"))
    .order_by(_TOMBSTONES.c.erased_at)
    .limit(bindparam("size"))
    .with_for_update(skip_locked=True)
)
_FORGET = delete(_TOMBSTONES).where(among(_TOMBSTONES.c.digest, "digests"))


def of_user(keyed: Digests, user_id: str) -> str:
    """What stands for an erased user."""
    return keyed("erased user", user_id)


def of_event(keyed: Digests, event_id: str, content_digest: bytes) -> str:
    """What stands for an erased event: with other content its id is free again."""
    return keyed("erased event", event_id, content_digest)


async def bury(connection: AsyncConnection, digests: Iterable[str], now: float) -> None:
    """Keep digests from coming back."""
    await _BURY(connection, [{"digest": digest, "erased_at": microseconds(now)} for digest in sorted(set(digests))])


async def find(connection: AsyncConnection, digests: Sequence[str]) -> dict[str, int]:
    """Those of the digests that were erased, with the time, in microseconds."""
    rows = await connection.execute(_FIND, {"digests": list(digests)})
    return {row.digest: row.erased_at for row in rows}


async def prune(connection: AsyncConnection, before: float, limit: int) -> int:
    """Forget tombstones from before a time, `limit` at most; how many."""
    old = await connection.execute(_OLD, {"before": microseconds(before), "size": limit})
    digests = list(old.scalars())
    if digests:
        await connection.execute(_FORGET, {"digests": digests})
    return len(digests)

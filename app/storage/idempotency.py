"""Writes that their caller has named: done once, with the result kept beside what they stored, in one transaction."""

from collections.abc import Mapping

from sqlalchemy import BigInteger, bindparam, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.batches import among
from app.storage.errors import KeyReused, WriteInFlight
from app.storage.records import NamedWrite, microseconds

_WRITES = tables.idempotency
_GET = select(_WRITES.c.request, _WRITES.c.result).where(_WRITES.c.name == bindparam("wanted"))
_TRY_LOCK = select(func.pg_try_advisory_xact_lock(bindparam("number", type_=BigInteger())))
_OLD = (
    select(_WRITES.c.name)
    .where(_WRITES.c.created_at < bindparam("before"))
    .order_by(_WRITES.c.created_at)
    .limit(bindparam("size"))
    .with_for_update(skip_locked=True)
)
_FORGET = delete(_WRITES).where(among(_WRITES.c.name, "names"))


async def result_of(connection: AsyncConnection, write: NamedWrite) -> Mapping[str, int] | None:
    """What the write came to, if it was done. Raises KeyReused where another request was done under that name."""
    row = (await connection.execute(_GET, {"wanted": write.name})).first()
    if row is None:
        return None
    if row.request != write.request:
        raise KeyReused
    result: Mapping[str, int] = row.result
    return result


async def begin(connection: AsyncConnection, write: NamedWrite) -> Mapping[str, int] | None:
    """`result_of`, and until the transaction ends nobody else does a write of that name.

    Raises WriteInFlight where somebody is doing one now. SQLite has one writer at a time, whose turn this is.
    """
    if connection.dialect.name == "postgresql":
        number = int.from_bytes(bytes.fromhex(write.name[:16]), signed=True)
        if not (await connection.execute(_TRY_LOCK, {"number": number})).scalar_one():
            raise WriteInFlight
    return await result_of(connection, write)


async def keep(connection: AsyncConnection, write: NamedWrite, result: Mapping[str, int], now: float) -> None:
    """Keep what the write came to; it is there if and only if what was written is."""
    row = {"name": write.name, "request": write.request, "result": dict(result), "created_at": microseconds(now)}
    await connection.execute(insert(_WRITES), row)


async def prune(connection: AsyncConnection, before: float, limit: int) -> int:
    """Forget writes that were done before a time, `limit` at most; how many. Their names are free again."""
    old = await connection.execute(_OLD, {"before": microseconds(before), "size": limit})
    names = list(old.scalars())
    if names:
        await connection.execute(_FORGET, {"names": names})
    return len(names)

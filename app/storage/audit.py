"""The record of admin acts: one row each, begun before the act and completed before its answer."""

from sqlalchemy import bindparam, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.records import Act, RecordedAct, microseconds, seconds

_AUDIT = tables.audit
_END = (
    update(_AUDIT).where(_AUDIT.c.key == bindparam("row")).values(status=bindparam("told"), problem=bindparam("slug"))
)
_PAGE = select(_AUDIT).where(_AUDIT.c.key < bindparam("before")).order_by(_AUDIT.c.key.desc()).limit(bindparam("size"))
_ACTS = _PAGE.where(text(f"({tables.AUDIT_ACTS})"))
_OLD = select(_AUDIT.c.key).where(_AUDIT.c.at < bindparam("before")).limit(bindparam("size"))
_PRUNE = delete(_AUDIT).where(_AUDIT.c.key.in_(_OLD)).returning(_AUDIT.c.key)

COMMAND = "COMMAND"
"""Stands for the method of what was done on the command line; `DONE` for its status."""
SERVICE = "SERVICE"
"""The same for what the service did by itself."""
DONE = 200
NEWEST = 2**62
"""Comes after every key."""


async def add(
    connection: AsyncConnection, act: Act, now: float, status: int | None = None, problem: str | None = None
) -> int:
    """Record an act; the key of its row. Without a status it is one that has begun."""
    values = {
        "at": microseconds(now),
        "key_id": act.key_id,
        "method": act.method,
        "route": act.route,
        "request_id": act.request_id,
        "status": status,
        "problem": problem,
    }
    added = await connection.execute(insert(_AUDIT).values(values).returning(_AUDIT.c.key))
    return int(added.scalar_one())


async def end(connection: AsyncConnection, key: int, status: int, problem: str | None) -> None:
    """Say what came of an act that had begun."""
    await connection.execute(_END, {"row": key, "told": status, "slug": problem})


async def page(connection: AsyncConnection, before: int, limit: int, reads: bool = True) -> list[RecordedAct]:
    """The newest acts before one, which has the key `before`; newest first; `reads` that were answered too."""
    rows = await connection.execute(_PAGE if reads else _ACTS, {"before": before, "size": limit})
    return [
        RecordedAct(
            row.method, row.route, row.key_id, row.request_id, row.key, seconds(row.at), row.status, row.problem
        )
        for row in rows
    ]


async def prune(connection: AsyncConnection, before: float, limit: int) -> int:
    """Let the acts before a moment go, `limit` at most; how many did."""
    return len((await connection.execute(_PRUNE, {"before": microseconds(before), "size": limit})).all())

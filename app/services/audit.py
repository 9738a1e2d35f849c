"""The record of admin acts. None is done without a row, and the row says what the caller was told."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from app.errors import told
from app.services.installation import Installation
from app.storage import audit
from app.storage.database import Connection
from app.storage.errors import StorageUnavailable
from app.storage.records import Act, RecordedAct

log = structlog.get_logger()


async def refused(installation: Installation, act: Act, status: int, problem: str) -> None:
    """Record an act that was not begun."""

    async def work(connection: Connection) -> int:
        return await audit.add(connection, act, time.time(), status, problem)

    await installation.database.transact(work)


async def begin(installation: Installation, act: Act) -> int:
    """Record an act before it is done; its row. Raises StorageUnavailable: then it must not be done."""

    async def work(connection: Connection) -> int:
        return await audit.add(connection, act, time.time())

    return await installation.database.transact(work)


async def end(installation: Installation, row: int, status: int, problem: str | None = None) -> None:
    """Record what the caller is about to be told. Where that cannot be stored the act is done nevertheless, and its row
    goes on saying that it has begun."""

    async def work(connection: Connection) -> None:
        await audit.end(connection, row, status, problem)

    try:
        await installation.database.transact(work)
    except StorageUnavailable as failure:
        log.error("act_not_completed_on_record", row=row, status=status, reason=failure.reason)


@asynccontextmanager
async def of_the_service(installation: Installation, name: str) -> AsyncIterator[None]:
    """The block is an act that nobody asked for; what it comes to is on record. Raises StorageUnavailable."""
    row = await begin(installation, Act(audit.SERVICE, name))
    try:
        yield
    except Exception as error:
        await end(installation, row, *told(error))
        raise
    await end(installation, row, audit.DONE)


async def page(
    installation: Installation, limit: int, cursor: int | None, reads: bool = True
) -> tuple[list[RecordedAct], int | None]:
    """The newest acts before the cursor, and the cursor of those before them; `reads` that were answered too."""
    async with installation.database.read() as connection:
        found = await audit.page(connection, audit.NEWEST if cursor is None else cursor, limit + 1, reads)
    return found[:limit], found[limit - 1].key if len(found) > limit else None

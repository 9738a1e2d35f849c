"""A fault to install: transactions commit behind the reply, as code after a dependency's `yield` would do it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.database import Database
from app.storage.failures import connected

BEHIND_SECONDS = 0.02
"""How long after the block, and so about after the reply, the commit comes."""


def install() -> None:
    """Spoil `Database.write`."""
    Database.write = _write  # type: ignore[method-assign]


@asynccontextmanager
async def _write(self: Database) -> AsyncIterator[AsyncConnection]:
    turn = self._turn()
    await turn.__aenter__()
    connection = await connected(self._writer)
    try:
        await connection.begin()
        yield connection
    except BaseException:
        await connection.close()
        await turn.__aexit__(None, None, None)
        raise

    async def finish() -> None:
        await asyncio.sleep(BEHIND_SECONDS)
        await connection.commit()
        await connection.close()
        await turn.__aexit__(None, None, None)

    _under_way.add(task := asyncio.create_task(finish()))
    task.add_done_callback(_under_way.discard)


_under_way: set[asyncio.Task[None]] = set()

"""Counters that tell every worker whether something changed, in one tiny query on the hot path."""

import sqlite3
from collections.abc import Mapping
from typing import Literal

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.database import Database
from app.storage.errors import StorageUnavailable
from app.storage.records import Revisions

_REVISIONS = tables.revisions
_READ = select(_REVISIONS.c.name, _REVISIONS.c.value)
_INSTALLATION = select(_REVISIONS.c.value).where(_REVISIONS.c.name == "installation")
_ADVANCE = (
    update(_REVISIONS)
    .where(_REVISIONS.c.name == bindparam("counter"))
    .values(value=_REVISIONS.c.value + 1)
    .returning(_REVISIONS.c.value)
)


async def read(connection: AsyncConnection) -> Revisions:
    """Where the counters stand."""
    values = {row.name: row.value for row in await connection.execute(_READ)}
    return _revisions(values)


async def installation_id(connection: AsyncConnection) -> int:
    """A number that no other installation has; it tells their keys apart in a cache that they share."""
    return int((await connection.execute(_INSTALLATION)).scalar_one())


class Watch:
    """Reads the counters before every request.

    On SQLite that is a read of one page that the file system has in memory, made in place: handing it to a thread, as
    other queries are, takes ten times as long as the read. On Postgres it is a query like any other.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._file: sqlite3.Connection | None = None
        if database.is_sqlite:
            self._file = sqlite3.connect(f"file:{database.file}?mode=ro", uri=True, isolation_level=None, timeout=1)

    async def read(self) -> Revisions:
        """Where the counters stand. Raises StorageUnavailable."""
        if self._file is None:
            async with self._database.read() as connection:
                return await read(connection)
        try:
            values = dict(self._file.execute("SELECT name, value FROM revisions").fetchall())
        except sqlite3.Error as failure:
            raise StorageUnavailable("the file cannot be read") from failure
        return _revisions(values)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


async def advance(
    connection: AsyncConnection, name: Literal["catalogue", "deployments", "exploration", "keys", "erasures"]
) -> int:
    """Raise a counter by one; its new value.

    Others who would raise it wait until this transaction ends. So it comes before the changes it stands for (all
    writers lock in the same order), and whoever reads a revision finds all changes up to it.
    """
    return int((await connection.execute(_ADVANCE, {"counter": name})).scalar_one())


def _revisions(values: Mapping[str, int]) -> Revisions:
    names = ("catalogue", "deployments", "exploration", "keys", "erasures")
    return Revisions(*(values[name] for name in names))

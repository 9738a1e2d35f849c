"""The database: SQLite in a file or Postgres, behind one small interface.

    async with database.read() as connection: ...       # each statement sees what is committed then
    async with database.write() as connection: ...      # one transaction; committed when the block ends

SQLite has one connection that writes, behind a lock, and several that read (a read transaction that turns into a write
one ignores `busy_timeout`, so writing ones begin IMMEDIATE). Postgres has one pool. A commit, once begun, is waited for
even where the caller is cancelled.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import aiosqlite
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.storage import claims, engines, migrate
from app.storage.errors import StorageUnavailable, UnsafeDatabase
from app.storage.failures import connected, translated

log = structlog.get_logger()

T = TypeVar("T")

Connection = AsyncConnection
"""What storage's functions take; the services pass it on without looking inside."""

MIGRATION_WAIT_SECONDS = 300.0
"""How long a worker waits for another one that is migrating."""


class Database:
    """An open database. Made by `Database.open`, to be closed with `close`."""

    def __init__(self, reader: AsyncEngine, writer: AsyncEngine, lock_timeout: float) -> None:
        self._reader = reader
        self._writer = writer
        self._claiming = engines.unpooled(writer)
        self._lock_timeout = lock_timeout
        self._turns = asyncio.Lock() if self.is_sqlite else None

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        pool_size: int = 10,
        statement_timeout: float = 5.0,
        lock_timeout: float = 3.0,
        require_durability: bool = True,
    ) -> "Database":
        """Connect to `sqlite:///path` or `postgresql://user:password@host/name`; times are in seconds.

        Raises ValueError for another kind of URL, StorageUnavailable where nothing answers, and UnsafeDatabase where
        commits would not survive a crash (with `require_durability=False` that is only logged).
        """
        parsed = engines.database_url(url)
        if parsed.get_backend_name() == "sqlite":
            reader = engines.sqlite_reader(parsed, pool_size, lock_timeout)
            database = cls(reader, engines.sqlite_writer(parsed, lock_timeout), lock_timeout)
        else:
            engine = engines.postgres(parsed, pool_size, statement_timeout, lock_timeout)
            # READ COMMITTED shows each statement what is committed then, with a transaction around it or without.
            database = cls(engine.execution_options(isolation_level="AUTOCOMMIT"), engine, lock_timeout)
        try:
            await database._prepare(require_durability)
        except BaseException:
            await database.close()
            raise
        return database

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a SQLite file; Postgres otherwise."""
        return self._writer.dialect.name == "sqlite"

    @property
    def file(self) -> str:
        """Path of the SQLite file; for Postgres the name of the database."""
        return str(self._writer.url.database)

    @asynccontextmanager
    async def read(self, *, snapshot: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection to read with. With `snapshot` all statements see one and the same state of the database."""
        async with translated():
            connection = await connected(self._reader)
            try:
                if snapshot:
                    await self._begin_snapshot(connection)
                yield connection
            finally:
                await _to_its_end(connection.close())

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed when the block ends, rolled back when it raises.

        Raises StorageUnavailable. Where that happens in the commit itself, nobody can know whether it was done.
        """
        async with self._turn(), translated():
            connection = await connected(self._writer)
            try:
                await connection.begin()
                yield connection
                async with translated(committing=True):
                    await _to_its_end(connection.commit())
            finally:
                await _to_its_end(connection.close())

    async def transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` in a transaction; once more where the database asks for that and nothing was stored.

        `work` may thus run twice and must have no effect outside of the database.
        """
        try:
            async with self.write() as connection:
                return await work(connection)
        except StorageUnavailable as failure:
            if not failure.repeatable:
                raise
            log.info("transaction_repeated", reason=failure.reason)
        async with self.write() as connection:
            return await work(connection)

    async def execute_alone(self, statements: Sequence[str], rows: str) -> None:
        """Run statements, whose only parameter is `:rows`, as a transaction of its own; committed when this returns.

        It takes one turn of the driver's thread on SQLite and one round trip on Postgres, where `write` takes five. So
        for Postgres there must be one statement.
        """
        if not self.is_sqlite:
            (statement,) = statements
            async with self.read() as connection:  # where each statement commits by itself
                await connection.execute(text(statement), {"rows": rows})
            return
        async with self._turn(), translated(committing=True):
            connection = await connected(self._writer)
            try:
                raw = await connection.get_raw_connection()
                driver = cast(aiosqlite.Connection, raw.driver_connection)
                await _to_its_end(_executed(driver, statements, rows))
            finally:
                await connection.close()

    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[bool]:
        """Whether no other process on this database has claimed the name, which then is ours while the block lasts.

        Nobody waits, and a process that is killed has let go. Raises StorageUnavailable.
        """
        if self.is_sqlite:
            with claims.beside_file(self.file, name) as ours:
                yield ours
        else:
            async with claims.on_server(self._claiming, name) as ours:
                yield ours

    async def upgrade(self) -> None:
        """Bring the tables up to date. Safe when several workers start together: one migrates, the others wait."""
        async with self._turn(MIGRATION_WAIT_SECONDS), translated(), self._writer.connect() as connection:
            if self.is_sqlite:
                await engines.set_busy_timeout(connection, MIGRATION_WAIT_SECONDS)
                await connection.begin()
            else:
                await engines.take_migration_lock(connection)
            # Alembic keeps what it is at in global variables: take the database's lock first, then let it begin.
            await connection.run_sync(migrate.upgrade)
            await connection.commit()
            if self.is_sqlite:
                await engines.set_busy_timeout(connection, self._lock_timeout)

    async def scrub(self) -> bool:
        """Let nothing that was deleted outlive it in SQLite's log. Whether that was possible: nobody was reading.

        Postgres does so by itself, when it vacuums and recycles its log.
        """
        if not self.is_sqlite:
            return True
        async with self._turn(), translated(), self._writer.connect() as connection:
            return await engines.truncate_log(connection, self._lock_timeout)

    async def differences(self) -> list[str]:
        """What sets the database apart from the tables that this version works with; empty when it is up to date."""
        async with self.read() as connection:
            return await connection.run_sync(migrate.differences)

    async def close(self) -> None:
        """Close all connections, the writing one last: it is the one that checkpoints SQLite's log."""
        await self._reader.dispose()
        await self._writer.dispose()

    async def _prepare(self, require_durability: bool) -> None:
        if self.is_sqlite:
            async with translated():
                await engines.enter_wal_mode(self._writer.url, self._lock_timeout)
            return
        async with self.read() as connection:
            settings = await connection.execute(
                text("SELECT name, setting FROM pg_settings WHERE name IN ('synchronous_commit', 'fsync')")
            )
            unsafe = [name for name, setting in settings if setting == "off"]
        if unsafe and require_durability:
            raise UnsafeDatabase(f"{' and '.join(unsafe)} off: a crash would lose acknowledged writes")
        if unsafe:
            log.warning("database_loses_acknowledged_writes_in_a_crash", off=unsafe)

    async def _begin_snapshot(self, connection: AsyncConnection) -> None:
        if self.is_sqlite:
            await connection.exec_driver_sql("BEGIN")
        else:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @asynccontextmanager
    async def _turn(self, wait: float | None = None) -> AsyncIterator[None]:
        """On SQLite, the one place from which this process writes."""
        if self._turns is None:
            yield
            return
        try:
            async with asyncio.timeout(wait or self._lock_timeout):
                await self._turns.acquire()
        except TimeoutError as failure:
            raise StorageUnavailable("other writes took too long") from failure
        try:
            yield
        finally:
            self._turns.release()


async def _executed(driver: aiosqlite.Connection, statements: Sequence[str], rows: str) -> None:
    # The driver offers one statement a turn; several take its queue, where every one of its own methods ends as well.
    await driver._execute(_transaction, driver._conn, statements, rows)  # type: ignore[no-untyped-call]


def _transaction(driver: sqlite3.Connection, statements: Sequence[str], rows: str) -> None:
    driver.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            driver.execute(statement, {"rows": rows})
        driver.execute("COMMIT")
    except BaseException:
        if driver.in_transaction:
            driver.execute("ROLLBACK")
        raise


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for `work` even where the waiting task is cancelled; the cancellation takes effect when it is done."""
    task = asyncio.create_task(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        if not task.cancelled() and task.exception() is not None:
            log.warning("database_failed_for_a_cancelled_request", exc_info=task.exception())
        raise asyncio.CancelledError
    task.result()

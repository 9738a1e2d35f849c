"""Deployments: the newest decision counts, and going back is a decision too."""

import asyncio

from app.storage import deployments, revisions
from app.storage.database import Database
from app.storage.records import StoredDomain, Wanted
from tests.app.storage.conftest import NOW


async def deploy(database: Database, domain: StoredDomain, role: str, *checkpoints: str) -> None:
    for checkpoint in checkpoints:
        async with database.write() as connection:
            await deployments.deploy(connection, domain.key, role, checkpoint, f"sha256-{checkpoint}", NOW)


async def rollback(database: Database, domain: StoredDomain, role: str) -> str | None:
    async with database.read() as connection:
        earlier = await deployments.earlier(connection, domain.key, role)
    if earlier is None or earlier.checkpoint is None:
        return None
    await deploy(database, domain, role, earlier.checkpoint)
    return earlier.checkpoint


async def wanted(database: Database) -> list[Wanted]:
    async with database.read() as connection:
        return await deployments.wanted(connection)


async def test_the_newest_checkpoint_of_each_role_is_wanted(
    database: Database, movies: StoredDomain, books: StoredDomain
) -> None:
    assert await wanted(database) == []
    await deploy(database, movies, "content", "a", "b")
    await deploy(database, movies, "adaptive", "c")
    await deploy(database, books, "content", "a")
    assert await wanted(database) == [
        Wanted("movies", "adaptive", "c", "sha256-c"),
        Wanted("movies", "content", "b", "sha256-b"),
        Wanted("books", "content", "a", "sha256-a"),
    ]


async def test_rollback_goes_to_the_last_checkpoint_that_differs(database: Database, movies: StoredDomain) -> None:
    await deploy(database, movies, "content", "a", "b", "b")
    assert await rollback(database, movies, "content") == "a"
    assert await rollback(database, movies, "content") == "b"
    assert await wanted(database) == [Wanted("movies", "content", "b", "sha256-b")]


async def test_without_an_earlier_checkpoint_rollback_changes_nothing(database: Database, movies: StoredDomain) -> None:
    assert await rollback(database, movies, "content") is None
    await deploy(database, movies, "content", "a", "a")
    assert await rollback(database, movies, "content") is None
    assert await wanted(database) == [Wanted("movies", "content", "a", "sha256-a")]


async def test_every_decision_is_on_record(database: Database, movies: StoredDomain, books: StoredDomain) -> None:
    await deploy(database, books, "content", "x")
    await deploy(database, movies, "content", "a", "b")
    await rollback(database, movies, "content")
    async with database.read() as connection:
        history = await deployments.history(connection, movies.key)
        assert await deployments.history(connection, movies.key, 2) == history[:2]
    assert [decision.checkpoint for decision in history] == ["a", "b", "a"]
    assert {decision.domain for decision in history} == {"movies"}
    assert {decision.created_at for decision in history} == {NOW}


async def test_each_decision_raises_the_revision_and_the_last_one_stands(
    database: Database, movies: StoredDomain
) -> None:
    names = [f"c{i}" for i in range(20)]
    await asyncio.gather(*(deploy(database, movies, "content", name) for name in names))
    async with database.read() as connection:
        assert (await revisions.read(connection)).deployments == len(names)
        history = await deployments.history(connection, movies.key)
    assert sorted(decision.checkpoint or "" for decision in history) == sorted(names)
    assert [one.checkpoint for one in await wanted(database)] == [history[0].checkpoint]

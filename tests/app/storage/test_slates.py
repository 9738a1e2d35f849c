"""Slates: logged as shown, found by id and by user, forgotten when old."""

import uuid

import pytest

from app.storage import slates, users
from app.storage.database import Database
from app.storage.records import NewSlate, ShownItem, StoredDomain
from tests.app.storage.conftest import NOW

ITEMS = [
    ShownItem(7, "heat", 4.25, 0.9, explored=False),
    ShownItem(9, "'; DROP TABLE 🎬", 0.1 + 0.2, None, explored=True),
]
PARTS = [{"role": "adaptive", "checkpoint": "maml-1", "weight": 1 / 3, "adaptation": {"steps": 5}}]


def slate(domain: StoredDomain, user_key: int | None = None, at: float = NOW) -> NewSlate:
    policy = {"policy": "epsilon_greedy", "epsilon": 0.1}
    return NewSlate(slates.new_slate_id(at), user_key, domain.key, at, policy, ITEMS, PARTS)


async def log(database: Database, *shown: NewSlate) -> None:
    await slates.log(database, shown)


def test_ids_are_uuids_that_sort_by_time() -> None:
    times = [NOW + i / 1000 for i in range(100)]
    made = [slates.new_slate_id(at) for at in times]
    assert made == sorted(made)
    assert len({slates.new_slate_id(NOW) for _ in range(1000)}) == 1000
    number = uuid.UUID(made[0])
    assert (number.version, number.variant) == (7, uuid.RFC_4122)
    assert number.int >> 80 == int(NOW * 1000)


async def test_slates_come_back_as_shown(database: Database, movies: StoredDomain) -> None:
    shown = [slate(movies), slate(movies)]
    await log(database, *shown)
    async with database.read() as connection:
        found = await slates.get(connection, [shown[1].slate_id, shown[0].slate_id, "unknown"])
        assert found == {one.slate_id: one for one in shown}
        assert await slates.get(connection, []) == {}


async def test_the_newest_slates_of_a_user(database: Database, movies: StoredDomain) -> None:
    async with database.write() as connection:
        keys = await users.touch(connection, ["alice", "bob"])
    shown = [slate(movies, keys["alice"], NOW + i) for i in (1, 3, 2)]
    await log(database, *shown, slate(movies, keys["bob"], NOW + 9), slate(movies, None, NOW + 9))
    async with database.read() as connection:
        assert await slates.newest_of_user(connection, keys["alice"]) == [shown[1]]
        assert await slates.newest_of_user(connection, keys["alice"], 5) == [shown[1], shown[2], shown[0]]


async def test_a_user_deleted_meanwhile_leaves_a_slate_without_an_owner(
    database: Database, movies: StoredDomain
) -> None:
    shown = [slate(movies, 12345), slate(movies)]
    await log(database, *shown)
    async with database.read() as connection:
        found = await slates.get(connection, [one.slate_id for one in shown])
    assert [found[one.slate_id].user_key for one in shown] == [None, None]


async def test_all_slates_are_logged_or_none(database: Database, movies: StoredDomain) -> None:
    twice = slate(movies)
    with pytest.raises(Exception, match=r"(?i)unique|database error"):
        await log(database, slate(movies), twice, twice)
    async with database.read() as connection:
        assert await slates.get(connection, [twice.slate_id]) == {}


async def test_old_slates_are_forgotten(database: Database, movies: StoredDomain) -> None:
    old, new = slate(movies, at=NOW - 100), slate(movies, at=NOW)
    await log(database, old, new)
    async with database.write() as connection:
        assert await slates.prune(connection, NOW) == 1
    async with database.read() as connection:
        assert list(await slates.get(connection, [old.slate_id, new.slate_id])) == [new.slate_id]

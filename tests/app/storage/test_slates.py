"""Slates: logged as shown, found by id and by user, forgotten when old."""

import uuid

import pytest

from app.storage import slates
from app.storage.database import Database
from app.storage.records import ShownItem, StoredDomain, StoredSlate
from tests.app.storage.conftest import NOW

ITEMS = [
    ShownItem(7, "heat", 4.25, 0.9, explored=False),
    ShownItem(9, "'; DROP TABLE 🎬", 0.1 + 0.2, None, explored=True),
]
PARTS = [{"role": "adaptive", "checkpoint": "maml-1", "weight": 1 / 3, "adaptation": {"steps": 5}}]


def slate(domain: StoredDomain, user_key: int | None = None, at: float = NOW) -> StoredSlate:
    policy = {"policy": "epsilon_greedy", "epsilon": 0.1}
    return StoredSlate(slates.new_slate_id(at), user_key, domain.key, at, policy, ITEMS, PARTS)


async def log(database: Database, *shown: StoredSlate) -> None:
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

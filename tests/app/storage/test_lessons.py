"""What the log tells the linear policies, and that a reward which commits late is told too."""

from typing import Any

import pytest

from app.services.tail import Tail
from app.storage import ageing, catalogue, lessons, rewards, slates
from app.storage.database import Database
from app.storage.records import NewItem, NewReward, NewSlate, ShownItem, StoredDomain
from tests.app.storage.conftest import NOW


@pytest.fixture
async def slate(database: Database, movies: StoredDomain) -> NewSlate:
    """A slate of `lin_ucb` with three items, that settles ten seconds from now."""
    items = [NewItem(f"i{i}") for i in range(3)]
    await database.transact(lambda connection: catalogue.put_items(connection, movies.key, items))
    async with database.read() as connection:
        stored, _ = await catalogue.list_items(connection, movies.key, 10, None)
    shown = [ShownItem(item.key, item.item_id, 4.0, None, False) for item in stored]
    policy = {"policy": "lin_ucb", "context": {"digest": "d", "x": [1.0, 0.5]}}
    made = NewSlate(slates.new_slate_id(NOW), None, movies.key, NOW, policy, shown, [], NOW + 10)
    await slates.log(database, [made])
    return made


async def reward(database: Database, slate: NewSlate, item_id: str, micros: int, at: float = NOW) -> None:
    new = NewReward(slate.slate_id, item_id, micros, None)
    await database.transact(lambda connection: rewards.add(connection, [new], at))


async def given(database: Database, movies: StoredDomain, after: int = 0) -> list[tuple[int, int, bool]]:
    """(item key, millionths, whether they add to an earlier observation) of the rewards behind a key."""
    async with database.read() as connection:
        keys = [key for key, tells in await lessons.given_since(connection, movies.key, after) if tells]
        return [(one.item_key, one.micros, one.again) for one in await lessons.given(connection, keys)]


async def by_default(database: Database, movies: StoredDomain) -> list[tuple[int, int, bool]]:
    async with database.read() as connection:
        found = await lessons.settled_since(connection, movies.key, (0, ""))
        told = await lessons.by_default(connection, [slate_id for (_, slate_id), tells in found if tells])
    return [(one.item_key, one.micros, one.again) for one in told]


async def test_a_place_is_observed_once_whatever_comes_of_it(
    database: Database, movies: StoredDomain, slate: NewSlate
) -> None:
    """A second reward adds to the first; one that comes after the default tells by how much it differs from that."""
    a, b, c = (item.item_key for item in slate.items)
    await reward(database, slate, "i0", 500)
    await reward(database, slate, "i0", 70)
    assert await database.transact(lambda connection: ageing.settle(connection, {movies.key: 30}, NOW + 11, 10)) == 1
    await reward(database, slate, "i1", 200, at=NOW + 20)
    await reward(database, slate, "i1", 1, at=NOW + 21)
    assert await given(database, movies) == [(a, 500, False), (a, 70, True), (b, 170, True), (b, 1, True)]
    assert sorted(await by_default(database, movies)) == [(b, 30, False), (c, 30, False)]


async def test_slates_of_other_policies_tell_nothing_but_are_gone_past(
    database: Database, movies: StoredDomain, slate: NewSlate
) -> None:
    other = NewSlate(slates.new_slate_id(NOW), None, movies.key, NOW, {"policy": "greedy"}, slate.items, [], None)
    await slates.log(database, [other])
    await reward(database, other, "i0", 5)
    async with database.read() as connection:
        rows = await lessons.given_since(connection, movies.key, 0)
        assert [tells for _, tells in rows] == [False]
        assert await lessons.last_key(connection) == rows[0][0]


async def test_a_reward_that_commits_after_a_later_one_is_told(
    database: Database, movies: StoredDomain, slate: NewSlate
) -> None:
    """Two transactions on Postgres; on SQLite there is one at a time, and the second waits for the first."""
    if database.is_sqlite:
        pytest.skip("SQLite has one writer")
    other = NewSlate(slates.new_slate_id(NOW), None, movies.key, NOW, slate.policy, slate.items, [], None)
    await slates.log(database, [other])
    tail: Tail[int, Any] = Tail(0)

    async def new() -> list[int]:
        async with database.read() as connection:
            rows = await lessons.given_since(connection, movies.key, tail.after)
            keys = tail.new(((key, key) for key, _ in rows), now=0.0)
            return [one.micros for one in await lessons.given(connection, keys)]

    async with database.write() as early:
        first = NewReward(slate.slate_id, "i0", 1, None)
        await rewards.add(early, [first], NOW)  # has its key, and is not committed
        await reward(database, other, "i1", 2)
        assert await new() == [2]
    assert await new() == [1]
    assert await new() == []

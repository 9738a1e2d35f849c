"""Live counts: however they are followed, they are what a count of everything would say."""

from collections.abc import Sequence

import pytest

from app.services import counts as live
from app.services.counts import LiveCounts
from app.storage import catalogue, interactions, item_events, personal
from app.storage.database import Database
from app.storage.errors import StorageUnavailable
from app.storage.records import NewInteraction, StoredDomain
from tests.app.storage.conftest import DIGESTS, NOW, erase

ITEMS = [f"item{i}" for i in range(5)]


async def rate(database: Database, domain: StoredDomain, user_id: str, *values: float, event_id: str = "") -> None:
    events = [
        NewInteraction(user_id, domain.key, item, value=value, event_id=f"{event_id}-{item}" if event_id else None)
        for item, value in zip(ITEMS, values, strict=False)
    ]
    async with database.write() as connection:
        await interactions.add(connection, events, NOW, DIGESTS)


async def keys(database: Database, domain: StoredDomain) -> list[int]:
    async with database.read() as connection:
        found = await catalogue.keys_of(connection, domain.key, ITEMS)
    return [found[item] for item in ITEMS]


async def counted(followed: LiveCounts, item_keys: Sequence[int]) -> list[list[float]]:
    await followed.follow()
    made: list[list[float]] = followed.of(item_keys).tolist()
    return made


async def test_counts_follow_whatever_happens_to_interactions(database: Database, movies: StoredDomain) -> None:
    await rate(database, movies, "ada", 1, 2, 3, 4, 5, event_id="a")
    item_keys = await keys(database, movies)
    followed = LiveCounts(database)
    assert await counted(followed, item_keys) == [[1, 1, 1], [1, 2, 1], [1, 3, 1], [1, 4, 1], [1, 5, 1]]
    await rate(database, movies, "bob", 5, 5)
    await rate(database, movies, "bob", 3)  # instead of the 5
    assert (await counted(followed, item_keys))[:3] == [[2, 4, 3], [2, 7, 2], [1, 3, 1]]
    async with database.write() as connection:
        assert await interactions.remove(connection, "a-item4")
    assert (await counted(followed, item_keys))[4] == [0, 0, 0]
    async with database.write() as connection:
        assert await personal.merge(connection, "bob", "ada", NOW)
    merged = await counted(followed, item_keys)
    assert merged == await counted(LiveCounts(database), item_keys)
    assert merged[0][0] == 1, "one user now, who rates it once"
    assert await erase(database, "bob")
    assert await counted(followed, item_keys) == [[0, 0, 0]] * 5


async def test_what_was_there_before_is_counted_some_at_a_time(
    database: Database, movies: StoredDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PORTION", 2)
    await rate(database, movies, "ada", 1, 2, 3, 4, 5)
    item_keys = await keys(database, movies)
    whole = LiveCounts(database)
    await whole.catch_up(60.0)
    assert whole.of(item_keys)[:, 1].tolist() == [1, 2, 3, 4, 5]
    behind = LiveCounts(database)
    behind._waiting = dict.fromkeys(item_keys)
    behind._log = whole._log  # which has seen all of it
    assert [sum(row[0] for row in await counted(behind, item_keys)) for _ in range(3)] == [2, 4, 5]
    assert behind.of([-1]).tolist() == [[0, 0, 0]]
    assert behind.of([]).shape == (0, 3)


@pytest.mark.parametrize("step", ["counts", "since"])
async def test_nothing_is_missed_where_storage_fails_in_between(
    database: Database, movies: StoredDomain, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await rate(database, movies, "ada", 1, 2, 3, 4, 5)
    item_keys = await keys(database, movies)
    followed = LiveCounts(database)
    await followed.catch_up(60.0)
    await rate(database, movies, "bob", 5)
    with monkeypatch.context() as broken:

        async def unavailable(*given: object) -> list[tuple[int, int]]:
            if "interactions" in given:  # the first of the two logs can be read
                return await since(*given)  # type: ignore[arg-type]
            raise StorageUnavailable("gone")

        since = item_events.since
        broken.setattr({"counts": catalogue, "since": item_events}[step], step, unavailable)
        with pytest.raises(StorageUnavailable):
            await followed.follow()
    assert (await counted(followed, item_keys))[0] == [2, 6, 2]

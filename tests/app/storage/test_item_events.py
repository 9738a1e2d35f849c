"""Events from the item's side: the newest of an item and of its users, and what is gone."""

from app.storage import catalogue, interactions, item_events, users
from app.storage.database import Database
from app.storage.records import NewInteraction, StoredDomain
from tests.app.storage.conftest import DIGESTS, NOW, erase


async def rate(database: Database, domain: StoredDomain, *rows: tuple[str, str, float]) -> None:
    """Ratings (user, item, seconds before now); the event's id is user-item."""
    batch = [
        NewInteraction(user, domain.key, item, "rating", 4.0, NOW - ago, event_id=f"{user}-{item}")
        for user, item, ago in rows
    ]
    async with database.write() as connection:
        await interactions.add(connection, batch, NOW, DIGESTS)


async def key_of(database: Database, domain: StoredDomain, item_id: str) -> int:
    async with database.read() as connection:
        return (await catalogue.keys_of(connection, domain.key, [item_id]))[item_id]


async def test_of_an_item_the_events_that_occurred_last_oldest_first(database: Database, movies: StoredDomain) -> None:
    """By when they occurred, not when they came."""
    await rate(database, movies, ("ada", "heat", 10), ("bob", "heat", 30), ("cyd", "heat", 20), ("ada", "alien", 5))
    heat = await key_of(database, movies, "heat")
    async with database.read() as connection:
        newest = await item_events.of_item(connection, heat, 2)
    assert [event.event_id for event in newest] == ["cyd-heat", "ada-heat"]


async def test_of_each_user_the_events_that_occurred_last(database: Database, movies: StoredDomain) -> None:
    await rate(database, movies, *(("ada", f"film{n}", n) for n in range(5)), ("bob", "film0", 1))
    async with database.read() as connection:
        ada, bob = [await users.get(connection, name) for name in ("ada", "bob")]
        assert ada is not None
        assert bob is not None
        found = await item_events.of_users(connection, [ada.key, bob.key, 1_000_000], 2)
    assert [event.event_id for event in found[ada.key]] == ["ada-film1", "ada-film0"]
    assert [event.event_id for event in found[bob.key]] == ["bob-film0"]
    assert found[1_000_000] == []


async def test_a_history_up_to_a_moment_is_what_it_was_then(database: Database, movies: StoredDomain) -> None:
    await rate(database, movies, *(("ada", f"film{n}", n) for n in range(5)))
    async with database.read() as connection:
        ada = await users.get(connection, "ada")
        assert ada is not None
        every = (await item_events.of_users(connection, [ada.key], 10))[ada.key]
        before = await users.history(connection, ada.key, 2, item_events.moment(every[3]))
    assert [event.item_key for event in before] == [event.item_key for event in every[1:3]]


async def test_what_is_taken_back_or_erased_is_told_of(database: Database, movies: StoredDomain) -> None:
    """The items that lost an event, each time they did, and not whose it was."""
    await rate(database, movies, ("ada", "heat", 1), ("bob", "heat", 2), ("bob", "alien", 3))
    heat, alien = [await key_of(database, movies, item_id) for item_id in ("heat", "alien")]
    async with database.write() as connection:
        assert await interactions.remove(connection, "ada-heat")
        assert not await interactions.remove(connection, "ada-heat")
    assert await erase(database, "bob")
    async with database.read() as connection:
        gone = [item_key for _, item_key in await item_events.since(connection, "withdrawals", 0)]
        assert await item_events.of_item(connection, heat, 10) == []
    assert gone[0] == heat
    assert sorted(gone[1:]) == sorted([heat, alien])


async def test_items_touched_behind_a_key(database: Database, movies: StoredDomain) -> None:
    await rate(database, movies, ("ada", "heat", 1))
    async with database.read() as connection:
        first = await item_events.last_key(connection)
    await rate(database, movies, ("ada", "alien", 1), ("bob", "alien", 1))
    alien = await key_of(database, movies, "alien")
    async with database.read() as connection:
        assert await item_events.touched(connection, first) == {alien}
        assert len(await item_events.touched(connection, 0)) == 2
        assert await item_events.touched(connection, await item_events.last_key(connection)) == set()

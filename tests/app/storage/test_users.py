"""Users: attributes, revisions, and the history that counts as evidence."""

from typing import Any

from sqlalchemy import func, select

from app.storage import interactions, slates, tables, users
from app.storage.database import Database
from app.storage.records import Event, NewInteraction, NewSlate, StoredDomain, StoredUser, Written
from tests.app.storage.conftest import DIGESTS, NOW, erase


async def put(database: Database, user_id: str, **attributes: Any) -> bool:
    async with database.write() as connection:
        return await users.put(connection, user_id, attributes)


async def get(database: Database, user_id: str) -> StoredUser:
    async with database.read() as connection:
        found = await users.get(connection, user_id)
    assert found is not None
    return found


async def add(database: Database, *events: NewInteraction) -> None:
    async with database.write() as connection:
        await interactions.add(connection, events, NOW, DIGESTS)


async def history(database: Database, user_id: str, limit: int = 100) -> list[Event]:
    user = await get(database, user_id)
    async with database.read() as connection:
        return await users.history(connection, user.key, limit)


async def item_ids(database: Database, events: list[Event]) -> list[str]:
    async with database.read() as connection:
        names = {row.key: row.item_id for row in await connection.execute(select(tables.items))}
    return [names[event.item_key] for event in events]


def rating(domain: StoredDomain, item_id: str, value: float, at: float) -> NewInteraction:
    return NewInteraction("alice", domain.key, item_id, value=value, occurred_at=at)


def click(domain: StoredDomain, item_id: str, at: float) -> NewInteraction:
    return NewInteraction("alice", domain.key, item_id, "click", occurred_at=at)


async def test_nobody_is_found_under_an_unknown_id(database: Database) -> None:
    async with database.read() as connection:
        assert await users.get(connection, "nobody") is None


async def test_a_user_comes_back_as_put_and_each_put_raises_the_revision(database: Database) -> None:
    assert await put(database, "ålice 🎬", age=31, languages=["de", "ar"])
    first = await get(database, "ålice 🎬")
    assert (first.attributes, first.revision) == ({"age": 31, "languages": ["de", "ar"]}, 1)
    assert not await put(database, "ålice 🎬", age=32)
    second = await get(database, "ålice 🎬")
    assert (second.key, second.attributes, second.revision) == (first.key, {"age": 32}, 2)


async def test_many_are_put_at_once(database: Database) -> None:
    await put(database, "u3")
    async with database.write() as connection:
        written = await users.put_many(connection, {f"u{i}": {"number": i} for i in range(6_000)})
    assert written == Written(created=5_999, updated=1)
    assert (await get(database, "u3")).attributes == {"number": 3}


async def test_attributes_survive_interactions(database: Database, movies: StoredDomain) -> None:
    await put(database, "alice", age=31)
    await add(database, click(movies, "heat", NOW))
    assert (await get(database, "alice")).attributes == {"age": 31}
    assert (await get(database, "alice")).revision == 2


async def test_a_deleted_user_leaves_no_row_and_the_key_is_never_used_again(
    database: Database, movies: StoredDomain
) -> None:
    await add(database, click(movies, "heat", NOW), NewInteraction("bob", movies.key, "heat", "click"))
    alice, bob = await get(database, "alice"), await get(database, "bob")
    shown = [NewSlate(slates.new_slate_id(NOW), user.key, movies.key, NOW, {}, [], []) for user in (alice, bob)]
    await slates.log(database, shown)
    assert await erase(database, "bob")
    assert not await erase(database, "bob")
    async with database.read() as connection:
        for table in (tables.interactions, tables.slates):
            owners = await connection.execute(select(table.c.user_key, func.count()).group_by(table.c.user_key))
            assert owners.all() == [(alice.key, 1)]
    await put(database, "bob")
    again = await get(database, "bob")
    assert again.key > bob.key
    assert again.revision == 1


async def test_history_is_oldest_first_however_it_was_sent(database: Database, movies: StoredDomain) -> None:
    await add(database, click(movies, "c", NOW - 1), click(movies, "a", NOW - 3), rating(movies, "b", 4.5, NOW - 2))
    found = await history(database, "alice")
    assert await item_ids(database, found) == ["a", "b", "c"]
    assert [(event.kind, event.value, event.occurred_at) for event in found] == [
        ("click", None, NOW - 3),
        ("rating", 4.5, NOW - 2),
        ("click", None, NOW - 1),
    ]


async def test_of_an_items_ratings_the_one_that_occurred_last_counts(database: Database, movies: StoredDomain) -> None:
    await add(database, rating(movies, "heat", 5.0, NOW - 1), rating(movies, "heat", 1.0, NOW - 9))
    await add(database, rating(movies, "heat", 3.0, NOW - 5), rating(movies, "alien", 2.0, NOW - 4))
    assert [event.value for event in await history(database, "alice")] == [2.0, 5.0]


async def test_of_ratings_at_one_time_the_one_received_last_counts(database: Database, movies: StoredDomain) -> None:
    await add(database, rating(movies, "heat", 1.0, NOW), rating(movies, "heat", 2.0, NOW))
    await add(database, rating(movies, "heat", 3.0, NOW), rating(movies, "heat", 4.0, NOW))
    assert [event.value for event in await history(database, "alice")] == [4.0]


async def test_events_of_other_kinds_all_count(database: Database, movies: StoredDomain) -> None:
    await add(database, *(click(movies, "heat", NOW - i) for i in range(3)), rating(movies, "heat", 4.0, NOW - 5))
    assert [event.kind for event in await history(database, "alice")] == ["rating", "click", "click", "click"]


async def test_history_spans_domains_and_keeps_to_its_user(
    database: Database, movies: StoredDomain, books: StoredDomain
) -> None:
    await add(database, rating(movies, "dune", 4.0, NOW - 2), rating(books, "dune", 5.0, NOW - 1))
    await add(database, NewInteraction("bob", movies.key, "heat", value=1.0))
    assert [event.value for event in await history(database, "alice")] == [4.0, 5.0]


async def test_the_newest_events_are_kept_and_ratings_given_up_take_no_place(
    database: Database, movies: StoredDomain
) -> None:
    """Alice rated ten items, then changed her mind about the last one fifty times."""
    await add(database, *(rating(movies, f"i{i}", 3.0, NOW - 100 + i) for i in range(10)))
    await add(database, *(rating(movies, "i9", i / 10, NOW - 60 + i) for i in range(50)))
    found = await history(database, "alice", limit=4)
    assert await item_ids(database, found) == ["i6", "i7", "i8", "i9"]
    assert found[-1].value == 4.9
    assert len(await history(database, "alice", limit=10)) == 10
    assert len(await history(database, "alice", limit=1000)) == 10


async def test_context_comes_with_the_event(database: Database, movies: StoredDomain) -> None:
    await add(database, NewInteraction("alice", movies.key, "heat", "view", context={"dwell_seconds": 3.5}))
    [event] = await history(database, "alice")
    assert event.context == {"dwell_seconds": 3.5}

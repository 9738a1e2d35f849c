"""Interactions: whole batches, harmless repetition, revisions, many writers at once."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.storage import catalogue, interactions, revisions, users
from app.storage.database import Database
from app.storage.errors import EventConflict
from app.storage.records import Added, ExportedInteraction, NewInteraction, StoredDomain
from tests.app.storage.conftest import DIGESTS, NOW


async def add(database: Database, *batch: NewInteraction, now: float = NOW) -> Added:
    async with database.write() as connection:
        return await interactions.add(connection, batch, now, DIGESTS)


async def everything(database: Database) -> Sequence[ExportedInteraction]:
    async with database.read() as connection:
        return await interactions.export_since(connection, 0, 100_000)


async def test_what_was_committed_is_seen_by_every_other_connection_exactly_as_sent(
    database: Database, database_url: str, movies: StoredDomain
) -> None:
    sent = NewInteraction(
        "alice",
        movies.key,
        "heat",
        "rating",
        4.5,
        occurred_at=1_699_999_999.123456,
        event_id="e1",
        slate_id="s1",
        context={"device": "phone", "dwell_seconds": 12.5, "tags": ["ä", "🎬"]},
    )
    assert await add(database, sent) == Added(accepted=1, duplicates=0)
    other = await Database.open(database_url)
    try:
        [row] = await everything(other)
    finally:
        await other.close()
    assert row == ExportedInteraction(
        key=row.key,
        user_id="alice",
        domain="movies",
        item_id="heat",
        kind="rating",
        value=4.5,
        occurred_at=1_699_999_999.123456,
        received_at=NOW,
        event_id="e1",
        slate_id="s1",
        context={"device": "phone", "dwell_seconds": 12.5, "tags": ["ä", "🎬"]},
    )


async def test_an_event_without_a_time_occurred_when_it_was_received(database: Database, movies: StoredDomain) -> None:
    await add(database, NewInteraction("alice", movies.key, "heat", value=4.0))
    [row] = await everything(database)
    assert row.occurred_at == row.received_at == NOW


async def test_the_same_event_again_is_a_duplicate_and_changes_nothing(
    database: Database, movies: StoredDomain
) -> None:
    event = NewInteraction("alice", movies.key, "heat", value=4.0, event_id="e1", context={"a": 1, "b": 2})
    await add(database, event)
    async with database.read() as connection:
        before = await users.get(connection, "alice")
    again = replace(event, value=4, context={"b": 2, "a": 1})
    assert await add(database, again, now=NOW + 60) == Added(accepted=0, duplicates=1)
    async with database.read() as connection:
        assert await users.get(connection, "alice") == before
    assert len(await everything(database)) == 1


async def test_an_event_twice_in_one_batch_is_stored_once(database: Database, movies: StoredDomain) -> None:
    event = NewInteraction("alice", movies.key, "heat", value=4.0, event_id="e1")
    other = NewInteraction("alice", movies.key, "alien", value=5.0)
    assert await add(database, event, other, event) == Added(accepted=2, duplicates=1)
    assert [row.item_id for row in await everything(database)] == ["heat", "alien"]


async def test_without_an_event_id_each_event_is_new(database: Database, movies: StoredDomain) -> None:
    event = NewInteraction("alice", movies.key, "heat", "click")
    assert await add(database, event, event) == Added(accepted=2, duplicates=0)


@pytest.mark.parametrize(
    "change",
    [
        {"value": 3.0},
        {"item_id": "alien"},
        {"user_id": "bob"},
        {"kind": "click"},
        {"occurred_at": NOW - 1},
        {"slate_id": "s2"},
        {"context": {"device": "tv"}},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_an_event_id_taken_by_other_content_refuses_the_whole_batch(
    database: Database, movies: StoredDomain, change: dict[str, object]
) -> None:
    event = NewInteraction("alice", movies.key, "heat", value=4.0, event_id="e1")
    await add(database, event)
    fresh = NewInteraction("carol", movies.key, "brazil", value=2.0)
    with pytest.raises(EventConflict) as conflict:
        await add(database, fresh, event, replace(event, **change))  # type: ignore[arg-type]
    assert conflict.value.rows == [2]
    assert len(await everything(database)) == 1
    async with database.read() as connection:
        assert await users.get(connection, "carol") is None
        assert await catalogue.get_item(connection, movies.key, "brazil") is None


async def test_two_contents_under_one_id_in_one_batch_conflict(database: Database, movies: StoredDomain) -> None:
    event = NewInteraction("alice", movies.key, "heat", value=4.0, event_id="e1")
    with pytest.raises(EventConflict) as conflict:
        await add(database, event, replace(event, value=2.0))
    assert conflict.value.rows == [1]
    assert await everything(database) == []


async def test_a_batch_that_cannot_be_stored_leaves_nothing(database: Database, movies: StoredDomain) -> None:
    good = NewInteraction("alice", movies.key, "heat", value=4.0)
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await add(database, good, replace(good, domain_key=movies.key + 1000))
    assert await everything(database) == []
    async with database.read() as connection:
        assert await users.get(connection, "alice") is None


async def test_the_catalogue_revision_rises_only_where_items_are_made(database: Database, movies: StoredDomain) -> None:
    async with database.read() as connection:
        start = (await revisions.read(connection)).catalogue
    await add(database, *(NewInteraction("alice", movies.key, item, "click") for item in ("heat", "alien")))
    await add(database, NewInteraction("bob", movies.key, "heat", "click"))
    async with database.read() as connection:
        assert (await revisions.read(connection)).catalogue == start + 1
        assert {item.item_id for item in await catalogue.items_since(connection, start)} == {"heat", "alien"}


async def test_a_batch_raises_each_users_revision_once(database: Database, movies: StoredDomain) -> None:
    clicks = [NewInteraction(user, movies.key, f"i{i}", "click") for user in ("bob", "alice") for i in range(5)]
    await add(database, *clicks)
    await add(database, *clicks[:3])
    async with database.read() as connection:
        found = [await users.get(connection, user_id) for user_id in ("alice", "bob")]
    assert [user and user.revision for user in found] == [1, 2]


async def test_one_id_in_two_domains_is_two_items(
    database: Database, movies: StoredDomain, books: StoredDomain
) -> None:
    await add(database, *(NewInteraction("alice", of.key, "dune", value=4.0) for of in (movies, books)))
    assert [(row.domain, row.item_id) for row in await everything(database)] == [("movies", "dune"), ("books", "dune")]


async def test_taking_an_event_back(database: Database, movies: StoredDomain) -> None:
    await add(database, NewInteraction("alice", movies.key, "heat", value=4.0, event_id="e1"))
    async with database.write() as connection:
        assert await interactions.remove(connection, "e1")
    async with database.write() as connection:
        assert not await interactions.remove(connection, "e1")
    assert await everything(database) == []
    async with database.read() as connection:
        alice = await users.get(connection, "alice")
    assert alice is not None
    assert alice.revision == 2


async def test_eight_writers_on_the_same_users_and_items_lose_nothing(database: Database, movies: StoredDomain) -> None:
    """Each writer walks through the same users and items in an order of its own."""
    n_writers, n_batches, n_ids = 8, 12, 10

    async def writer(number: int) -> None:
        for batch in range(n_batches):
            order = range(n_ids) if (number + batch) % 2 else reversed(range(n_ids))
            events = [
                NewInteraction(f"u{i}", movies.key, f"i{i}-{batch}", "click", event_id=f"{number}-{batch}-{i}")
                for i in order
            ]
            assert await add(database, *events) == Added(n_ids, 0)

    await asyncio.gather(*(writer(number) for number in range(n_writers)))
    assert len(await everything(database)) == n_writers * n_batches * n_ids
    async with database.read() as connection:
        found = [await users.get(connection, f"u{i}") for i in range(n_ids)]
        assert len((await catalogue.list_items(connection, movies.key, 1000))[0]) == n_batches * n_ids
    assert [user and user.revision for user in found] == [n_writers * n_batches] * n_ids


async def test_the_same_batch_sent_many_times_at_once_is_stored_once(database: Database, movies: StoredDomain) -> None:
    batch = [NewInteraction(f"u{i}", movies.key, f"i{i}", value=3.0, event_id=f"e{i}") for i in range(20)]
    answers = await asyncio.gather(*(add(database, *batch) for _ in range(6)))
    assert sorted(answer.accepted for answer in answers) == [0] * 5 + [20]
    assert len(await everything(database)) == 20


async def test_paging_through_an_export_gives_every_interaction_once(database: Database, movies: StoredDomain) -> None:
    await add(database, *(NewInteraction("alice", movies.key, f"i{i}", "click") for i in range(7)))
    seen: list[str] = []
    after = 0
    async with database.read(snapshot=True) as connection:
        while page := await interactions.export_since(connection, after, 3):
            seen += [row.item_id for row in page]
            after = page[-1].key
    assert seen == [f"i{i}" for i in range(7)]


async def test_a_batch_of_thousands_is_one_batch(database: Database, movies: StoredDomain) -> None:
    batch = [NewInteraction(f"u{i % 97}", movies.key, f"i{i % 3001}", "click", event_id=f"e{i}") for i in range(12_000)]
    assert await add(database, *batch) == Added(12_000, 0)
    assert await add(database, *batch) == Added(0, 12_000)


async def test_batches_in_one_transaction_come_one_after_the_other(database: Database, movies: StoredDomain) -> None:
    """Each with its own outcome: what an earlier one stored is a duplicate in a later one, a conflict stays alone."""
    event = NewInteraction("alice", movies.key, "heat", value=4.0, event_id="e1")
    other = NewInteraction("bob", movies.key, "alien", value=2.0)
    batches = [
        [event, other],
        [event, replace(event, event_id="e2"), replace(event, event_id="e2")],
        [other, replace(event, value=1.0), replace(event, event_id="e3")],
        [replace(event, event_id="e3", value=3.0)],
    ]
    async with database.write() as connection:
        first, second, third, fourth = await interactions.add_many(connection, batches, NOW, DIGESTS)
    assert (first, second, fourth) == (Added(2, 0), Added(1, 2), Added(1, 0))
    assert isinstance(third, EventConflict)
    assert third.rows == [1]
    stored = await everything(database)
    assert sorted((row.event_id, row.value) for row in stored if row.event_id) == [
        ("e1", 4.0),
        ("e2", 4.0),
        ("e3", 3.0),
    ]
    assert [row.user_id for row in stored if row.event_id is None] == ["bob"]
    async with database.read() as connection:
        for user_id, batches_stored in (("alice", 3), ("bob", 1)):
            user = await users.get(connection, user_id)
            assert user is not None
            assert user.revision == batches_stored

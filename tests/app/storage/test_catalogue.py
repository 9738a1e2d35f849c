"""Items: keys that stay, tombstones, revisions that tell what changed, and counts."""

import asyncio

import pytest

from app.storage import catalogue, interactions, revisions
from app.storage.database import Database
from app.storage.records import ItemCounts, NewInteraction, NewItem, StoredDomain, StoredItem, Written
from tests.app.storage.conftest import DIGESTS, NOW

AWKWARD_IDS = [
    "'; DROP TABLE items; --",
    "🎬👩‍👩‍👧‍👦",
    "مرحبا",
    "שלום 42",
    "%_\\",
    '"quoted"',
    "{1,2}",
    "NULL",
    "12",
    "012",
    "1e5",
    "é",
    " spaced out ",
    "ß",
    "SS",
    "x" * 128,
]


async def put(database: Database, domain: StoredDomain, *items: NewItem) -> Written:
    async with database.write() as connection:
        return await catalogue.put_items(connection, domain.key, items)


async def add_missing(database: Database, domain: StoredDomain, *items: NewItem) -> int:
    async with database.write() as connection:
        return await catalogue.add_missing(connection, domain.key, items)


async def delete(database: Database, domain: StoredDomain, item_id: str) -> bool:
    async with database.write() as connection:
        return await catalogue.delete_item(connection, domain.key, item_id)


async def get(database: Database, domain: StoredDomain, item_id: str) -> StoredItem | None:
    async with database.read() as connection:
        return await catalogue.get_item(connection, domain.key, item_id)


async def revision(database: Database) -> int:
    async with database.read() as connection:
        return (await revisions.read(connection)).catalogue


async def since(database: Database, start: int) -> list[str]:
    async with database.read() as connection:
        return [item.item_id for item in await catalogue.items_since(connection, start)]


async def listed(database: Database, domain: StoredDomain) -> list[str]:
    async with database.read() as connection:
        return [item.item_id for item in (await catalogue.list_items(connection, domain.key, 1000))[0]]


async def test_an_item_comes_back_as_it_was_put(database: Database, movies: StoredDomain) -> None:
    attributes = {"genres": ["crime", "drama"], "year": 1995, "score": 8.3, "plot": "Ünïcode 🎬", "color": True}
    assert await put(database, movies, NewItem("heat", "Heat", attributes, available=False)) == Written(1, 0)
    item = await get(database, movies, "heat")
    assert item is not None
    assert (item.item_id, item.title, item.attributes) == ("heat", "Heat", attributes)
    assert not item.available
    assert not item.deleted
    assert item.revision == await revision(database)


async def test_putting_again_replaces_the_content_and_keeps_the_key(database: Database, movies: StoredDomain) -> None:
    await put(database, movies, NewItem("heat", "Heat", {"year": 1995}))
    before = await get(database, movies, "heat")
    assert await put(database, movies, NewItem("heat", "HEAT"), NewItem("alien")) == Written(created=1, updated=1)
    after = await get(database, movies, "heat")
    assert before is not None
    assert after is not None
    assert (after.key, after.title, after.attributes) == (before.key, "HEAT", {})


async def test_of_an_id_given_twice_the_last_counts(database: Database, movies: StoredDomain) -> None:
    assert await put(database, movies, NewItem("heat", "first"), NewItem("heat", "last")) == Written(1, 0)
    item = await get(database, movies, "heat")
    assert item is not None
    assert item.title == "last"


async def test_ids_are_opaque_and_kept_to_the_letter(database: Database, movies: StoredDomain) -> None:
    await put(database, movies, *(NewItem(item_id, title=item_id) for item_id in AWKWARD_IDS))
    assert await listed(database, movies) == AWKWARD_IDS
    async with database.read() as connection:
        keys = await catalogue.keys_of(connection, movies.key, [*AWKWARD_IDS, "unknown"])
    assert set(keys) == set(AWKWARD_IDS)
    for item_id in AWKWARD_IDS:
        item = await get(database, movies, item_id)
        assert item is not None
        assert (item.item_id, item.title, item.key) == (item_id, item_id, keys[item_id])


async def test_a_put_raises_the_revision_once_and_tells_what_changed(database: Database, movies: StoredDomain) -> None:
    start = await revision(database)
    await put(database, movies, *(NewItem(f"i{i}") for i in range(5)))
    assert await revision(database) == start + 1
    await put(database, movies, NewItem("i3", "changed"))
    assert await since(database, start) == ["i0", "i1", "i2", "i3", "i4"]
    assert await since(database, start + 1) == ["i3"]
    assert await since(database, start + 2) == []


async def test_a_deleted_item_is_gone_but_its_tombstone_is_told_of(database: Database, movies: StoredDomain) -> None:
    await put(database, movies, NewItem("heat", "Heat"), NewItem("alien"))
    start = await revision(database)
    assert await delete(database, movies, "heat")
    assert not await delete(database, movies, "heat")
    assert not await delete(database, movies, "unknown")
    assert await get(database, movies, "heat") is None
    assert await listed(database, movies) == ["alien"]
    async with database.read() as connection:
        [tombstone] = await catalogue.items_since(connection, start)
    assert (tombstone.item_id, tombstone.deleted) == ("heat", True)
    assert await revision(database) == start + 1


async def test_putting_a_deleted_item_brings_it_back_under_its_key(database: Database, movies: StoredDomain) -> None:
    await put(database, movies, NewItem("heat", "Heat"))
    before = await get(database, movies, "heat")
    await delete(database, movies, "heat")
    assert await put(database, movies, NewItem("heat", "Heat again")) == Written(created=1, updated=0)
    after = await get(database, movies, "heat")
    assert before is not None
    assert after is not None
    assert (after.key, after.title) == (before.key, "Heat again")


async def test_add_missing_overwrites_nothing_that_is_known(database: Database, movies: StoredDomain) -> None:
    await put(database, movies, NewItem("heat", "Heat"), NewItem("alien", "Alien"))
    await delete(database, movies, "alien")
    start = await revision(database)
    given = [NewItem(item_id, "from a checkpoint", {"year": 1}) for item_id in ("heat", "alien")]
    assert await add_missing(database, movies, *given) == 0
    assert await revision(database) == start
    heat = await get(database, movies, "heat")
    assert heat is not None
    assert heat.title == "Heat"
    assert await get(database, movies, "alien") is None


async def test_add_missing_fills_in_what_was_known_by_its_id_only(database: Database, movies: StoredDomain) -> None:
    async with database.write() as connection:
        await interactions.add(connection, [NewInteraction("alice", movies.key, "heat", "click")], NOW, DIGESTS)
    given = [NewItem("heat", "Heat", {"year": 1995}), NewItem("alien", "Alien")]
    start = await revision(database)
    assert await add_missing(database, movies, *given) == 2
    assert await add_missing(database, movies, *given) == 0
    assert await add_missing(database, movies, NewItem("heat"), NewItem("alien", "else")) == 0
    assert await revision(database) == start + 1
    heat = await get(database, movies, "heat")
    assert heat is not None
    assert (heat.title, heat.attributes) == ("Heat", {"year": 1995})


async def test_nothing_given_changes_nothing(database: Database, movies: StoredDomain) -> None:
    start = await revision(database)
    assert await put(database, movies) == Written(0, 0)
    assert await add_missing(database, movies) == 0
    assert await revision(database) == start


async def test_pages_give_every_item_once_although_others_come_and_go(database: Database, movies: StoredDomain) -> None:
    await put(database, movies, *(NewItem(f"i{i}") for i in range(7)))
    async with database.read() as connection:
        first, cursor = await catalogue.list_items(connection, movies.key, 3)
    await delete(database, movies, "i2")
    await delete(database, movies, "i4")
    await put(database, movies, NewItem("i7"))
    seen = [item.item_id for item in first]
    while cursor is not None:
        async with database.read() as connection:
            page, cursor = await catalogue.list_items(connection, movies.key, 3, cursor)
        seen += [item.item_id for item in page]
    assert seen == ["i0", "i1", "i2", "i3", "i5", "i6", "i7"]


async def test_a_page_that_takes_the_last_item_is_the_last(database: Database, movies: StoredDomain) -> None:
    await put(database, movies, *(NewItem(f"i{i}") for i in range(3)))
    async with database.read() as connection:
        page, cursor = await catalogue.list_items(connection, movies.key, 3)
    assert (len(page), cursor) == (3, None)


async def test_a_large_catalogue_goes_in_at_once(database: Database, movies: StoredDomain) -> None:
    items = [NewItem(f"i{i}", f"Item {i}", {"genres": ["a", "b"], "year": i}) for i in range(12_000)]
    assert await put(database, movies, *items) == Written(12_000, 0)
    assert await put(database, movies, *items) == Written(0, 12_000)


async def test_whoever_has_read_a_revision_has_seen_all_up_to_it(database: Database, movies: StoredDomain) -> None:
    """Eight writers put items; a worker follows by revision, as workers do, and misses none."""
    start = await revision(database)
    n_writers, n_puts = 8, 15
    writing = asyncio.gather(
        *(_put_one_by_one(database, movies, [f"{writer}-{i}" for i in range(n_puts)]) for writer in range(n_writers))
    )
    followed: set[str] = set()
    position = start
    while position < start + n_writers * n_puts:
        async with database.read() as connection:
            now = (await revisions.read(connection)).catalogue
            followed |= {item.item_id for item in await catalogue.items_since(connection, position)}
        assert now >= position
        position = now
        if writing.done():
            await writing  # a writer that failed ends the test
    await writing
    assert len(followed) == n_writers * n_puts


async def _put_one_by_one(database: Database, domain: StoredDomain, item_ids: list[str]) -> None:
    for item_id in item_ids:
        await put(database, domain, NewItem(item_id))


async def test_putting_and_meeting_the_same_items_at_once(database: Database, movies: StoredDomain) -> None:
    """Operators' puts and users' events make the same items at the same time, in opposite orders."""
    ids = [f"i{i}" for i in range(30)]

    async def operator() -> None:
        await put(database, movies, *(NewItem(item_id, "put") for item_id in reversed(ids)))

    async def user(name: str) -> None:
        events = [NewInteraction(name, movies.key, item_id, "click") for item_id in ids]
        async with database.write() as connection:
            await interactions.add(connection, events, NOW, DIGESTS)

    await asyncio.gather(*(operator() for _ in range(4)), *(user(f"u{i}") for i in range(4)))
    assert sorted(await listed(database, movies)) == sorted(ids)
    async with database.read() as connection:
        items, _ = await catalogue.list_items(connection, movies.key, 100)
    assert {item.title for item in items} == {"put"}


async def test_counts_are_those_of_standing_ratings_and_of_all_events(
    database: Database, movies: StoredDomain, books: StoredDomain
) -> None:
    events = [
        NewInteraction("alice", movies.key, "heat", value=2.0, occurred_at=NOW - 10),
        NewInteraction("alice", movies.key, "heat", value=4.0, occurred_at=NOW - 5),  # instead of the 2
        NewInteraction("bob", movies.key, "heat", value=3.5, occurred_at=NOW - 9),
        NewInteraction("bob", movies.key, "heat", "click", occurred_at=NOW - 8),
        NewInteraction("bob", movies.key, "heat", "dwell", value=30.0, occurred_at=NOW - 7),
        NewInteraction("bob", movies.key, "alien", "click", occurred_at=NOW - 6),
        NewInteraction("bob", books.key, "heat", value=1.0, occurred_at=NOW - 5),
    ]
    async with database.write() as connection:
        await interactions.add(connection, events, NOW, DIGESTS)
    async with database.read() as connection:
        keys = await catalogue.keys_of(connection, movies.key, ["heat", "alien"])
        counts = await catalogue.counts(connection, list(keys.values()))
        assert await catalogue.is_touched(connection, movies.key)
    assert sorted(counts, key=lambda count: count.n_events) == [
        ItemCounts(keys["alien"], n_ratings=0, sum_ratings=0.0, n_events=1),
        ItemCounts(keys["heat"], n_ratings=2, sum_ratings=pytest.approx(7.5), n_events=5),
    ]

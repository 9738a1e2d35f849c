"""The log as evaluation reads it: the newest slates first, each with what came of its places."""

from app.storage import evaluations, rewards, slates, users
from app.storage.database import Database
from app.storage.evaluations import Judged
from app.storage.records import NewReward, ShownItem, StoredDomain, StoredSlate
from tests.app.storage.conftest import NOW

ITEMS = [ShownItem(7, "heat", 4.25, 0.9), ShownItem(9, "big", 3.0, 0.1)]


def slate(domain: StoredDomain, at: float, user_key: int | None = None) -> StoredSlate:
    return StoredSlate(slates.new_slate_id(at), user_key, domain.key, at, {"policy": "greedy"}, ITEMS, [])


async def read(database: Database, domain: StoredDomain, limit: int) -> list[Judged]:
    async with database.read() as connection:
        return [judged async for page in evaluations.newest(connection, domain.key, limit) for judged in page]


async def test_the_newest_come_first_and_no_more_than_asked_for(
    database: Database, movies: StoredDomain, books: StoredDomain
) -> None:
    """Pages meet without a gap or a repetition, also where many slates have one time; other domains are left out."""
    shown = [slate(movies, NOW + (i // 900)) for i in range(2300)]
    await slates.log(database, [*shown, slate(books, NOW + 9)])
    expected = sorted(shown, key=lambda one: (one.created_at, one.slate_id), reverse=True)
    found = await read(database, movies, 10_000)
    assert [judged.slate.slate_id for judged in found] == [one.slate_id for one in expected]
    assert len(await read(database, movies, 1700)) == 1700
    assert await read(database, movies, 0) == []


async def test_rewards_of_a_place_add_up_and_places_without_one_are_not_there(
    database: Database, movies: StoredDomain
) -> None:
    one = slate(movies, NOW)
    await slates.log(database, [one])
    given = [NewReward(one.slate_id, "heat", micros) for micros in (300_000, -100_000)]
    await database.transact(lambda connection: rewards.add(connection, given, NOW))
    (judged,) = await read(database, movies, 10)
    assert judged.slate == one
    assert judged.rewards == {7: 200_000}


async def test_owners_come_with_what_is_known_of_them(database: Database) -> None:
    async with database.write() as connection:
        await users.put(connection, "ada", {"age": 34})
        ada = await users.get(connection, "ada")
    assert ada is not None
    async with database.read() as connection:
        assert await evaluations.owners(connection, [ada.key, ada.key + 1]) == {ada.key: ada}
        assert await evaluations.owners(connection, []) == {}

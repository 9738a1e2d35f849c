"""Arms equal base and log after whatever happens, to the last bit: many writers, retries, pruning, erasure."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from sqlalchemy import select, update

from app.storage import ageing, arms, interactions, rewards, slates, tables, users
from app.storage.database import Database
from app.storage.errors import EventConflict, NotShown, UnknownSlate
from app.storage.records import (
    Added,
    ArmCounts,
    NewInteraction,
    NewReward,
    NewSlate,
    ShownItem,
    StoredDomain,
)
from tests.app.storage.conftest import DIGESTS, NOW, erase

POLICIES = ("greedy", "thompson")
Totals = dict[int, ArmCounts]


@pytest.fixture
async def item_keys(database: Database, movies: StoredDomain) -> list[int]:
    """Keys of the items i0 … i9."""
    async with database.write() as connection:
        await interactions.add(
            connection, [NewInteraction("seed", movies.key, f"i{i}", value=3.0) for i in range(10)], NOW, DIGESTS
        )
        rows = await connection.execute(select(tables.items.c.key).order_by(tables.items.c.item_id))
        return [row.key for row in rows]


def slate(
    domain: StoredDomain,
    keys: Sequence[int],
    places: Sequence[int],
    policy: str = "greedy",
    user_key: int | None = None,
    at: float = NOW,
    settle_at: float | None = None,
) -> NewSlate:
    shown = [ShownItem(keys[i], f"i{i}", 4.0, 0.5) for i in places]
    slate_id = slates.new_slate_id(at)
    return NewSlate(slate_id, user_key, domain.key, at, {"policy": policy}, shown, [], settle_at)


async def reward(database: Database, *batch: NewReward) -> Added:
    return await database.transact(lambda connection: rewards.add(connection, batch, NOW))


async def totals(database: Database, domain: StoredDomain) -> Totals:
    async with database.read() as connection:
        return await arms.totals(connection, domain.key)


async def check(database: Database) -> None:
    """Arms are base + log."""
    async with database.read(snapshot=True) as connection:
        assert await arms.differences(connection) == []


async def test_slates_count_shows_and_rewards_count_once_a_place(
    database: Database, movies: StoredDomain, item_keys: list[int]
) -> None:
    """Two rewards of one place add up and are one judged place; a thousand times 0.1 is 100."""
    a, b = item_keys[:2]
    one, two = slate(movies, item_keys, [0, 1]), slate(movies, item_keys, [1], "thompson")
    await slates.log(database, [one, two])
    assert await totals(database, movies) == {a: ArmCounts(1, 0, 0), b: ArmCounts(2, 0, 0)}
    first, more = NewReward(one.slate_id, "i0", 250_000, "r1"), NewReward(one.slate_id, "i0", -50_000)
    assert await reward(database, first, more) == Added(2, 0)
    assert (await totals(database, movies))[a] == ArmCounts(1, 1, 200_000)
    await reward(database, *(NewReward(two.slate_id, "i1", 100_000) for _ in range(1000)))
    assert (await totals(database, movies))[b] == ArmCounts(2, 1, 100_000_000)
    async with database.read() as connection:
        listed = await arms.page(connection, movies.key, 2)
        assert [(arm.item_id, arm.policy) for arm in listed] == [("i0", "greedy"), ("i1", "greedy")]
        (last,) = await arms.page(connection, movies.key, 10, (b, "greedy"))
        assert (last.policy, last.counts) == ("thompson", ArmCounts(1, 1, 100_000_000))
    await check(database)


async def test_a_reward_sent_again_is_a_duplicate(
    database: Database, movies: StoredDomain, item_keys: list[int]
) -> None:
    one, two = slate(movies, item_keys, [0, 1]), slate(movies, item_keys, [0])
    await slates.log(database, [one, two])
    sent = NewReward(one.slate_id, "i0", 1_000_000, "r1")
    assert await reward(database, sent, sent) == Added(1, 1)
    assert await reward(database, sent) == Added(0, 1)
    for changed in (
        NewReward(one.slate_id, "i0", 2, "r1"),
        NewReward(one.slate_id, "i1", 1_000_000, "r1"),
        NewReward(two.slate_id, "i0", 1_000_000, "r1"),
    ):
        with pytest.raises(EventConflict) as conflict:
            await reward(database, NewReward(one.slate_id, "i1", 5), changed)
        assert conflict.value.rows == [1]
    assert await totals(database, movies) == {item_keys[0]: ArmCounts(2, 1, 1_000_000), item_keys[1]: ArmCounts(1)}


async def test_what_cannot_be_joined_is_named(database: Database, movies: StoredDomain, item_keys: list[int]) -> None:
    one = slate(movies, item_keys, [0])
    await slates.log(database, [one])
    good = NewReward(one.slate_id, "i0", 1)
    with pytest.raises(UnknownSlate) as unknown:
        await reward(database, good, NewReward("nobody's", "i0", 1))
    with pytest.raises(NotShown) as absent:
        await reward(database, NewReward(one.slate_id, "i1", 1), good)
    assert (unknown.value.rows, absent.value.rows) == ([1], [0])
    assert await totals(database, movies) == {item_keys[0]: ArmCounts(1, 0, 0)}


async def test_an_interaction_with_a_shown_item_is_a_reward_until_it_is_taken_back(
    database: Database, movies: StoredDomain, item_keys: list[int]
) -> None:
    """One with another item, or for a slate that nobody knows, is stored and is none."""
    one = slate(movies, item_keys, [0, 1])
    await slates.log(database, [one])
    events = [
        NewInteraction("ada", movies.key, "i0", "click", None, event_id="e1", slate_id=one.slate_id, reward_micros=7),
        NewInteraction("ada", movies.key, "i0", "click", None, event_id="e2", slate_id=one.slate_id, reward_micros=5),
        NewInteraction("ada", movies.key, "i9", "click", None, event_id="e3", slate_id=one.slate_id, reward_micros=3),
        NewInteraction("ada", movies.key, "i1", "click", None, event_id="e4", slate_id="unknown", reward_micros=2),
        NewInteraction("ada", movies.key, "i1", "view", None, event_id="e5", slate_id=one.slate_id),
    ]
    for accepted in (5, 0):
        added = await database.transact(lambda connection: interactions.add(connection, events, NOW, DIGESTS))
        assert added.accepted == accepted
        assert (await totals(database, movies))[item_keys[0]] == ArmCounts(1, 1, 12)
    expected = [ArmCounts(1, 1, 5), ArmCounts(1, 0, 0)]
    for event_id, counts in zip(("e1", "e2"), expected, strict=True):
        await database.transact(lambda connection, e=event_id: interactions.remove(connection, e))  # type: ignore[misc]
        assert (await totals(database, movies))[item_keys[0]] == counts
    assert (await totals(database, movies))[item_keys[1]] == ArmCounts(1, 0, 0)
    await check(database)


async def test_places_without_a_reward_get_the_default_one_when_their_time_has_come(
    database: Database, movies: StoredDomain, item_keys: list[int]
) -> None:
    """A reward that comes later takes its place."""
    due, later = (slate(movies, item_keys, [0, 1], settle_at=NOW + wait) for wait in (10, 20))
    await slates.log(database, [due, later, slate(movies, item_keys, [0])])
    await reward(database, NewReward(due.slate_id, "i0", 900))

    async def settle(now: float) -> int:
        return await database.transact(lambda connection: ageing.settle(connection, {movies.key: -100}, now, 50))

    assert [await settle(NOW + 9), await settle(NOW + 10), await settle(NOW + 11)] == [0, 1, 0]
    a, b = item_keys[:2]
    assert await totals(database, movies) == {a: ArmCounts(3, 1, 900), b: ArmCounts(2, 1, -100)}
    await reward(database, NewReward(due.slate_id, "i1", 500), NewReward(due.slate_id, "i1", 1))
    assert (await totals(database, movies))[b] == ArmCounts(2, 1, 501)
    await check(database)


async def test_old_slates_leave_by_small_steps_and_arms_stay(
    database: Database, movies: StoredDomain, item_keys: list[int]
) -> None:
    """What has left is final; a rebuild gives the same counts, from the base."""
    old = [slate(movies, item_keys, [0, i], at=NOW - 100 + i) for i in range(1, 6)]
    new = slate(movies, item_keys, [0, 1])
    await slates.log(database, [*old, new])
    await reward(database, *(NewReward(one.slate_id, "i0", 10) for one in old), NewReward(new.slate_id, "i0", 1))
    before = await totals(database, movies)
    steps = [await database.transact(lambda connection: ageing.prune(connection, NOW - 50, 2)) for _ in range(4)]
    assert steps == [2, 2, 1, 0]
    async with database.read() as connection:
        assert set(await slates.get(connection, [one.slate_id for one in (*old, new)])) == {new.slate_id}
        assert len((await connection.execute(select(tables.rewards))).all()) == 1
    assert await totals(database, movies) == before
    await check(database)
    with pytest.raises(UnknownSlate):
        await reward(database, NewReward(old[0].slate_id, "i0", 10))
    async with database.write() as connection:
        await connection.execute(update(tables.arms).values(shows=77, micros=-1))
    assert await totals(database, movies) != before
    assert await database.transact(arms.rebuild) == len(before)
    assert await totals(database, movies) == before


async def test_an_erased_user_leaves_counts_and_nothing_else(
    database: Database, movies: StoredDomain, item_keys: list[int]
) -> None:
    """Neither slates nor rewards of theirs, nor the id of an event of theirs beside a reward of nobody's slate."""
    await database.transact(lambda connection: users.put(connection, "ada", {}))
    async with database.read() as connection:
        ada = await users.get(connection, "ada")
    assert ada is not None
    mine, nobodys = slate(movies, item_keys, [0, 1], user_key=ada.key), slate(movies, item_keys, [0])
    await slates.log(database, [mine, nobodys])
    await reward(database, NewReward(mine.slate_id, "i1", 8, "r"))
    event = NewInteraction(
        "ada", movies.key, "i0", "click", None, event_id="secret", slate_id=nobodys.slate_id, reward_micros=4
    )
    await database.transact(lambda connection: interactions.add(connection, [event], NOW, DIGESTS))
    before = await totals(database, movies)
    assert await erase(database, "ada")
    assert await totals(database, movies) == before
    await check(database)
    async with database.read() as connection:
        assert list(await slates.get(connection, [mine.slate_id, nobodys.slate_id])) == [nobodys.slate_id]
        (left,) = await connection.execute(select(tables.rewards))
        assert (left.event_id, left.interaction_id, left.micros) == (None, None, 4)


@pytest.mark.parametrize("seed", range(3))
async def test_eight_writers_leave_exact_counts(
    database: Database, movies: StoredDomain, item_keys: list[int], seed: int
) -> None:
    """Of shows, rewards, retries, un-rating, settling, pruning and erasure in any order, all at once.

    Base and log give the arms; and the arms give what the writers know they did, for whatever was not withdrawn.
    """
    chance = random.Random(seed)
    logged: list[NewSlate] = []
    shows: Counter[int] = Counter()
    micros: Counter[int] = Counter()
    await database.transact(lambda connection: users.put_many(connection, {f"gone{n}": {} for n in range(8)}))
    async with database.read() as connection:
        found = [await users.get(connection, f"gone{n}") for n in range(8)]
    owners = [None, *(user.key for user in found if user is not None)]

    async def log(mine: random.Random, at: float) -> None:
        made = [
            slate(
                movies,
                item_keys,
                mine.sample(range(10), 4),
                mine.choice(POLICIES),
                mine.choice(owners),
                at=at,
                settle_at=NOW + 5 if mine.random() < 0.5 else None,
            )
            for _ in range(mine.randint(1, 3))
        ]
        await slates.log(database, made)
        logged.extend(made)
        shows.update(item.item_key for one in made for item in one.items)

    async def judge(mine: random.Random, name: str) -> None:
        """The same batch twice at once; a slate may be gone before either."""
        places = [(one, mine.choice(one.items)) for one in mine.choices(logged, k=mine.randint(1, 5))]
        sent = [
            NewReward(one.slate_id, item.item_id, mine.randint(-5, 10), f"{name}-{i}")
            for i, (one, item) in enumerate(places)
        ]
        outcomes = await asyncio.gather(*(reward(database, *sent) for _ in range(2)), return_exceptions=True)
        assert all(isinstance(outcome, Added | UnknownSlate) for outcome in outcomes), outcomes
        accepted = sum(outcome.accepted for outcome in outcomes if isinstance(outcome, Added))
        assert accepted in (0, len(sent))
        if accepted:
            for (_, item), given in zip(places, sent, strict=True):
                micros[item.item_key] += given.micros

    async def click_and_withdraw(mine: random.Random, name: str) -> None:
        one = mine.choice(logged)
        event = NewInteraction(
            f"user {name}",
            movies.key,
            mine.choice(one.items).item_id,
            "click",
            event_id=name,
            slate_id=one.slate_id,
            reward_micros=0,
        )
        await database.transact(lambda connection: interactions.add(connection, [event], NOW, DIGESTS))
        await database.transact(lambda connection: interactions.remove(connection, name))

    async def write(number: int) -> None:
        mine = random.Random(chance.random())
        for step in range(25):
            what = mine.random()
            if what < 0.35 or not logged:
                await log(mine, NOW + step)
            elif what < 0.75:
                await judge(mine, f"{number}-{step}")
            elif what < 0.9:
                await click_and_withdraw(mine, f"{number}-{step}")
            elif what < 0.95:
                await database.transact(lambda connection: ageing.settle(connection, {}, NOW + 10, 3))
            else:
                await erase(database, f"gone{number}")

    await asyncio.gather(*(write(number) for number in range(8)))
    await check(database)
    counted = await totals(database, movies)
    assert {key: counts.shows for key, counts in counted.items()} == dict(shows)
    assert {key: counts.micros for key, counts in counted.items()} == {key: micros[key] for key in counted}
    while await database.transact(lambda connection: ageing.prune(connection, NOW + 20, 7)):
        await check(database)
    assert await totals(database, movies) == counted

"""Learning while serving: what comes in about items moves their rows, on every worker alike, and through restarts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.engine.learning import teaches
from app.services.tail import Tail
from models.checkpoint import LearntThrough
from tests.app.conftest import Service, Start

SECONDS = 30.0
SLOW = {"learn_seconds": 3600.0}
"""Learning is on, and happens when the test says so."""
NEW = "never seen"


async def learn(service: Service) -> None:
    """Everything that is there to learn."""
    await service.installation.learner.catch_up(SECONDS)


async def predicted(service: Service, user_id: str, *items: str) -> list[float]:
    body = {"domain": "films", "user_id": user_id, "items": list(items)}
    made = await service.post("/v1/predictions", body)
    return [prediction["rating"] for prediction in made["predictions"]]


async def put_new_item(service: Service, item_id: str = NEW) -> None:
    item = {"title": "New", "attributes": {"genres": ["genre1"], "year": 2001}}
    await service.put(f"/v1/items/films/{item_id}", item)


@pytest.mark.parametrize("recommender", ["popularity", "bias", "content", "bayes"])
async def test_a_new_item_is_what_people_say_it_is(start: Start, recommender: str) -> None:
    """Ten people who rate it high raise what others are told of it, ten who rate it low lower it."""
    async with start(checkpoints=(recommender,), **SLOW) as service:
        for item_id in ("good", "bad", "unrated"):
            await put_new_item(service, item_id)
        before = await predicted(service, "somebody", "good", "bad", "unrated")
        for n in range(10):
            await service.rate(f"user{n}", {"item3": 4, "item10": 2, "good": 5, "bad": 1})
        assert await predicted(service, "somebody", "good", "bad", "unrated") == before
        await learn(service)
        good, bad, unrated = await predicted(service, "somebody", "good", "bad", "unrated")
        assert good > before[0] + 0.3
        assert bad < before[1] - 0.3
        assert unrated == before[2]


async def test_what_items_are_like_is_kept_while_rows_are_learnt(start: Start) -> None:
    """To encode a large catalogue takes long, and ratings do not change what it is like."""
    async with start(checkpoints=("bias",), **SLOW) as service:
        await put_new_item(service)
        await service.get(f"/v1/items/films/{NEW}/similar")
        before = service.installation.runtime.now.domains["films"]
        await service.rate("somebody", {NEW: 5})
        await learn(service)
        after = service.installation.runtime.now.domains["films"]
        assert after is not before
        assert after.content_rows is before.content_rows


async def test_a_restart_learns_the_same_rows_again(start: Start) -> None:
    """Bit for bit, however the ratings came in and were learnt from in between."""
    async with start(**SLOW) as service:
        await put_new_item(service)
        for n in range(6):
            await service.rate(f"user{n}", {"item3": 1 + n % 5, "item10": 2, NEW: 5 - n % 2})
            await learn(service)
        tables = {name: one.table for name, one in service.installation.runtime.now.served.items()}
    async with start(**SLOW) as service:
        again = {name: one.table for name, one in service.installation.runtime.now.served.items()}
    assert tables.keys() == again.keys()
    for name, table in tables.items():
        for column in table.columns:
            assert np.array_equal(table[column].numpy(), again[name][column].numpy())


async def test_what_users_do_later_does_not_change_what_their_rating_taught(start: Start) -> None:
    """A rating counts with what its user had done before it; else rows would have to be learnt again at each event."""
    async with start(checkpoints=("bayes",), **SLOW) as service:
        await put_new_item(service)
        await service.rate("ada", {"item3": 5, NEW: 2})
        await learn(service)
        row = service.installation.runtime.now.served["bayes"].table["mean"][-1].clone()
        await service.rate("ada", {"item10": 1, "item20": 1})
        service.installation.learner.renew()
        await learn(service)
        assert np.array_equal(service.installation.runtime.now.served["bayes"].table["mean"][-1].numpy(), row.numpy())


async def test_a_rating_taken_back_or_erased_is_unlearnt(start: Start) -> None:
    """The row is as if the rating had never been."""
    async with start(**SLOW) as service:
        await put_new_item(service)
        before = await predicted(service, "somebody", NEW)
        rating = {"event_id": "e1", "user_id": "ada", "domain": "films", "item_id": NEW, "value": 5}
        await service.post("/v1/interactions", {"interactions": [rating]}, 201)
        await service.rate("bob", {"item3": 4, NEW: 5})
        await learn(service)
        both = await predicted(service, "somebody", NEW)
        await service.delete("/v1/interactions/e1")
        await learn(service)
        one = await predicted(service, "somebody", NEW)
        assert before < one < both
        await service.delete("/v1/users/bob")
        await learn(service)
        assert await predicted(service, "somebody", NEW) == before


async def test_a_rating_replaced_counts_once(start: Start) -> None:
    async with start(checkpoints=("popularity",), **SLOW) as service:
        await put_new_item(service)
        await service.rate("ada", {NEW: 1})
        await service.rate("ada", {NEW: 5})
        await learn(service)
        popularity = service.installation.runtime.now.served["popularity"]
        mean = float(popularity.recommender.get_buffer("domain_mean")[0])
        assert popularity.table["bias"][-1].item() == pytest.approx((5 - mean) / 6)


async def test_states_are_made_anew_for_those_alone_who_rated_what_was_learnt(start: Start) -> None:
    """A rating of an item leaves the cached states of all who never touched it."""

    async def cached(user_id: str) -> list[bool]:
        made = await service.post("/v1/predictions", {"domain": "films", "user_id": user_id, "items": ["item5"]})
        return [part["adaptation"]["cached"] for part in made["parts"]]

    async with start(checkpoints=("bayes",), **SLOW) as service:
        await put_new_item(service)
        await service.rate("ada", {"item3": 5, NEW: 4})
        await service.rate("bob", {"item3": 4, "item10": 1})
        await learn(service)
        for user_id in ("ada", "bob"):
            assert await cached(user_id) == [False]
            assert await cached(user_id) == [True]
        await service.rate("eve", {NEW: 1})
        await learn(service)
        assert await cached("ada") == [False]
        assert await cached("ada") == [True]
        assert await cached("bob") == [True]


async def test_new_content_does_not_undo_what_was_learnt(start: Start) -> None:
    """An item that is put again has its new content and its old ratings."""
    async with start(checkpoints=("bias",), **SLOW) as service:
        await put_new_item(service)
        await service.rate("ada", {NEW: 5})
        await learn(service)
        learnt = await predicted(service, "somebody", NEW)
        await service.put(f"/v1/items/films/{NEW}", {"title": "Other", "attributes": {}}, 200)
        await learn(service)
        other = await predicted(service, "somebody", NEW)
        await service.put(
            f"/v1/items/films/{NEW}", {"title": "New", "attributes": {"genres": ["genre1"], "year": 2001}}, 200
        )
        await learn(service)
        assert await predicted(service, "somebody", NEW) == learnt
        assert other != learnt


async def test_nothing_is_learnt_where_that_is_off(start: Start) -> None:
    async with start(learn_seconds=0) as service:
        await put_new_item(service)
        before = await predicted(service, "somebody", NEW)
        await service.rate("ada", {NEW: 5})
        await learn(service)
        assert await predicted(service, "somebody", NEW) == before


async def test_a_fit_learns_no_event_twice(start: Start) -> None:
    """What a fit has seen teaches it nothing: a log up to a key, or an import of its data set."""
    async with start(checkpoints=("bias", "content")) as service:
        served = service.installation.runtime.now.served["bias"]
        assert teaches(served, 7, None, 1)
        assert not teaches(served, 7, f"import-{served.fingerprint[:16]}-3", 1)
        assert teaches(served, 7, "import-0123456789abcdef-3", 1)
        trained = replace(served, learnt_through=LearntThrough(installation=1, key=7))
        assert not teaches(trained, 7, None, 1)
        assert teaches(trained, 8, None, 1)
        assert teaches(trained, 7, None, 2)


def test_a_key_that_becomes_visible_late_is_not_missed() -> None:
    """On Postgres a transaction that took its key first may commit last."""
    tail: Tail[int, int] = Tail(0)
    log: list[Any] = [(1, 10), (3, 30)]
    assert tail.new(log, now=0.0) == [10, 30]
    log.append((2, 20))
    assert tail.new([row for row in log if row[0] > tail.after], now=1.0) == [20]
    assert tail.new([row for row in log if row[0] > tail.after], now=2.0) == []
    assert tail.new([], now=100.0) == []
    assert tail.after == 3

"""What is being made is not made a second time beside it: in general, and for states of users."""

import asyncio
import itertools
import threading
from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from app.engine import batching
from app.engine.answering import Answer, Question, answer
from app.errors import Problem
from app.services.flights import Flights
from app.services.recommend import Who, Wish, recommend
from tests.app.conftest import Start
from tests.app.test_cache import metric

CROWD = 500
LIKES = {"item1": 5.0, "item2": 1.0, "item3": 4.0}


async def test_who_comes_meanwhile_gets_what_is_made() -> None:
    flights: Flights[str] = Flights()
    assert await flights.join("a") is None
    assert await flights.join("b") is None
    followers = [asyncio.create_task(flights.join("a")) for _ in range(3)]
    await asyncio.sleep(0)
    flights.land("a", "made")
    flights.land("a", None)
    assert await asyncio.gather(*followers) == ["made"] * 3
    assert await flights.join("a") is None


async def test_where_the_maker_fails_one_of_the_others_makes_it() -> None:
    flights: Flights[str] = Flights()
    await flights.join("a")
    first, second = (asyncio.create_task(flights.join("a")) for _ in range(2))
    await asyncio.sleep(0)
    flights.land("a", None)
    assert await first is None
    assert not second.done()
    flights.land("a", "made")
    assert await second == "made"


async def test_who_goes_away_takes_nobody_along() -> None:
    flights: Flights[str] = Flights()
    await flights.join("a")
    first, second = (asyncio.create_task(flights.join("a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    flights.land("a", "made")
    assert await second == "made"


class Engine:
    """The engine, and how many states it had to make of somebody's ratings. Fails as often as it is told to, when all
    who are to see it are there."""

    def __init__(self) -> None:
        self.made = 0
        self.failures = 0
        self.all_there = threading.Event()

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        if self.failures and any(question.known.positions.size for question in questions):
            self.all_there.wait(10)
            self.failures -= 1
            raise Problem("model-unavailable")
        answers = answer(questions)
        for question, given in zip(questions, answers, strict=True):
            states = question.states or [None] * len(given.parts)
            self.made += sum(
                part.state is not None and part.state.support_size > 0 and known is None
                for part, known in zip(given.parts, states, strict=True)
            )
        return answers


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine of services that start after this."""
    counting = Engine()
    monkeypatch.setattr(batching, "answer", counting.answer)
    return counting


async def test_a_crowd_that_asks_for_one_user_costs_one_computation(start: Start, engine: Engine) -> None:
    """Without the door that would let in a few at a time; everybody gets the same list."""
    async with start(("bayes",), max_queue=CROWD) as service:
        await service.rate("star", LIKES)
        before = metric("warmstart_user_states_total", source="adapted")
        shared = metric("warmstart_user_states_total", source="shared")
        who = Who("star")
        answers = await asyncio.gather(*(recommend(service.installation, "films", who, Wish()) for _ in range(CROWD)))
        assert engine.made == 1
        assert metric("warmstart_user_states_total", source="adapted") == before + 1
        assert metric("warmstart_user_states_total", source="shared") > shared
        assert len({str(given["items"]) for given in answers}) == 1


async def test_a_computation_that_fails_is_made_by_another_of_the_crowd(
    start: Start, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    join, joined = Flights.join, itertools.count(1)

    async def counted(flights: Flights[Any], key: Hashable) -> Any:
        if next(joined) == 8:
            engine.all_there.set()
        return await join(flights, key)

    monkeypatch.setattr(Flights, "join", counted)
    async with start(("bayes",), cache_max_bytes=0) as service:
        await service.rate("star", LIKES)
        engine.failures = 2  # in company, and alone
        path = "/v1/users/star/recommendations"
        answers = await asyncio.gather(*(service.http.get(path, params={"domain": "films"}) for _ in range(8)))
        assert sorted(given.status_code for given in answers) == [200] * 7 + [503]
        assert engine.made == 1

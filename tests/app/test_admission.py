"""Admission: overload is shed at the door, in bounds; a burst is not overload; what is too late is not computed."""

import asyncio
from collections.abc import Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api.shedding import Door
from app.engine.answering import Question
from app.engine.batching import Batcher
from app.engine.deadline import DEADLINE, DeadlinePassed, in_time
from app.services.admission import (
    FLOOR,
    SOON,
    START,
    TOLD_TOGETHER,
    WINDOW_ANSWERS,
    WINDOW_SECONDS,
    Admission,
    Limit,
    Refusals,
    Refused,
)
from tests.app.conftest import Start
from tests.app.refusals import refused
from tests.app.test_cache import Clock

PATIENCE = 60.0
"""Longer than any test takes: nobody gives up but where a test says so."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def short_of_time() -> Iterator[None]:
    """The test is a request whose deadline has passed."""
    token = DEADLINE.set(-1.0)
    yield
    DEADLINE.reset(token)


def full(clock: Clock, waiting: int = 3) -> Admission:
    """A door with nobody behind it, and room for one."""
    return Admission(max_working=1, max_waiting=waiting, patience=PATIENCE, clock=clock)


async def entered(door: Admission, name: str, order: list[str]) -> None:
    await door.enter()
    order.append(name)


async def queue(door: Admission, *names: str) -> tuple[list[asyncio.Task[None]], list[str]]:
    """Tasks that wait in that order; and the order in which they get in."""
    order: list[str] = []
    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(entered(door, name, order)))
        await asyncio.sleep(0)
    return tasks, order


async def test_a_burst_waits_and_gets_in_in_order(clock: Clock) -> None:
    door = full(clock)
    await door.enter()
    tasks, order = await queue(door, "a", "b", "c")
    for task in tasks:
        door.leave("x", 0.01)
        await task
    assert order == ["a", "b", "c"]


async def test_where_the_line_stays_the_newest_goes_first(clock: Clock) -> None:
    door = full(clock)
    await door.enter()
    tasks, order = await queue(door, "a", "b", "c")
    clock.now += PATIENCE + 1
    for task in reversed(tasks):
        door.leave("x", 0.01)
        await task
    assert order == ["c", "b", "a"]


async def test_where_the_line_stays_one_gets_in_it_for_each_that_is_answered(clock: Clock) -> None:
    door = full(clock, waiting=10)
    await door.enter()
    burst, _ = await queue(door, *"abcde")
    assert not door.turn_away()
    clock.now += PATIENCE + 1
    late = []
    assert not door.turn_away()
    late += (await queue(door, "late"))[0]
    assert door.turn_away()
    door.leave("x", 0.01)
    assert not door.turn_away()
    late += (await queue(door, "later"))[0]
    assert door.turn_away()
    while any(not task.done() for task in (*burst, *late)):
        door.leave("x", 0.01)
        await asyncio.sleep(0)
    assert not door.turn_away(), "the line is gone"


async def test_a_line_that_moves_is_no_overload(clock: Clock) -> None:
    door = full(clock, waiting=10)
    await door.enter()
    tasks, order = await queue(door, *"abc")
    for name in "defghijkl":
        clock.now += SOON * PATIENCE / 4
        assert not door.overloaded
        assert not door.turn_away()
        tasks += (await queue(door, name))[0]
        door.leave("x", 0.01)
        await asyncio.sleep(0)
    assert "".join(order) == "abc", "in the order in which they came"
    for task in tasks[len(order) :]:
        door.leave("x", 0.01)
        await task


async def test_whoever_comes_when_all_have_worked_for_long_is_no_overload(clock: Clock) -> None:
    door = full(clock)
    await door.enter()
    clock.now += PATIENCE + 1
    (waiting,), _ = await queue(door, "a")
    assert not door.overloaded
    door.leave("x", 0.01)
    await waiting


async def test_an_overload_is_over_when_few_are_refused(clock: Clock) -> None:
    door = full(clock)
    await door.enter()
    tasks, _ = await queue(door, *"ab")
    clock.now += PATIENCE + 1
    tasks += (await queue(door, *"cde"))[0]  # there is room for one to wait: "a" and others are refused
    for _ in range(len(tasks)):
        door.leave("x", 0.01)
        await asyncio.sleep(0)
    assert await asyncio.gather(*tasks, return_exceptions=True) != [None] * len(tasks)
    clock.now += PATIENCE - 1
    assert door.overloaded, "the line is empty, but that may be for a moment"
    clock.now += 2
    assert door.overloaded, "many were refused"
    for _ in range(3):
        door.leave("x", 0.01)
    clock.now += PATIENCE + 1
    assert not door.overloaded


async def test_refusals_are_told_together_some_at_a_time(clock: Clock) -> None:
    refusals = Refusals(PATIENCE, clock)
    told: list[int] = []

    async def refuse(n: int) -> None:
        await refusals.turn()
        told.append(n)

    tasks = [asyncio.create_task(refuse(n)) for n in range(3 * TOLD_TOGETHER)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # who goes away is nobody to be told
    await tasks[TOLD_TOGETHER]
    assert told == list(range(1, TOLD_TOGETHER + 1))
    clock.now += PATIENCE + 1
    await tasks[TOLD_TOGETHER + 1]
    assert told == list(range(1, 3 * TOLD_TOGETHER)), "nobody waits longer than they may"


async def test_whoever_is_turned_away_is_not_read(clock: Clock) -> None:
    door = full(clock)
    await door.enter()
    _, passed = await queue(door, "a", "b")
    clock.now += PATIENCE + 1
    assert not door.turn_away(), "one may wait for the one who is answered"
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["path"])

    async def receive() -> Message:
        raise AssertionError("it was read")

    async def send(message: Message) -> None:
        sent.append(message)

    for path in ("/v1/recommendations", "/livez", "/v1/admin/checkpoints"):
        await Door(app, door)({"type": "http", "path": path}, receive, send)
    assert passed == ["/livez", "/v1/admin/checkpoints"]
    assert [message.get("status") for message in sent] == [503, None]
    assert (b"retry-after", b"1") in sent[0]["headers"]


async def test_no_more_wait_than_may(clock: Clock) -> None:
    door = full(clock, waiting=2)
    await door.enter()
    tasks, _ = await queue(door, "a", "b")
    with pytest.raises(Refused):
        await door.enter()
    for task in tasks:
        door.leave("x", 0.01)
        await task


async def test_nobody_waits_longer_than_they_may() -> None:
    door = Admission(max_working=1, max_waiting=2, patience=0.01)
    await door.enter()
    with pytest.raises(Refused):
        await door.enter()
    door.leave("x", 0.01)
    await door.enter()


async def test_who_goes_away_gives_their_turn_to_the_next(clock: Clock) -> None:
    """While they wait, and in the very moment in which it is their turn."""
    door = full(clock)
    await door.enter()
    (first, second, third), order = await queue(door, "a", "b", "c")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    door.leave("x", 0.01)  # it is the second's turn, who does not know yet
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await third
    assert order == ["c"]
    door.leave("x", 0.01)
    await door.enter()


def window(limit: Limit, clock: Clock, seconds: float, kind: str = "x") -> None:
    """Answers of that length, as many as it takes to move the limit."""
    for _ in range(WINDOW_ANSWERS):
        clock.now += WINDOW_SECONDS / WINDOW_ANSWERS + 1e-9
        limit.reached()
        limit.observe(kind, seconds)


def test_the_limit_grows_while_requests_do_not_delay_each_other(clock: Clock) -> None:
    limit = Limit(64, target=0.05, clock=clock)
    assert limit.value == START
    for _ in range(30):
        window(limit, clock, 0.01)
    assert limit.value == 64


def test_the_limit_does_not_grow_unless_somebody_waits(clock: Clock) -> None:
    limit = Limit(64, target=0.05, clock=clock)
    for _ in range(100 * WINDOW_ANSWERS):
        clock.now += WINDOW_SECONDS
        limit.observe("x", 0.01)
    assert limit.value == START


def test_the_limit_falls_by_delay_and_not_below_its_floor(clock: Clock) -> None:
    limit = Limit(64, target=0.05, clock=clock)
    for _ in range(30):
        window(limit, clock, 0.01)
    window(limit, clock, 0.07)
    assert limit.value == 51
    for _ in range(30):
        window(limit, clock, 0.07)
    assert limit.value == FLOOR


def test_a_slow_route_beside_a_quick_one_is_no_delay(clock: Clock) -> None:
    limit = Limit(64, target=0.05, clock=clock)
    for _ in range(20):
        window(limit, clock, 0.01, "quick")
        window(limit, clock, 2.0, "slow")
    assert limit.value == 64


def test_a_service_that_became_slower_for_good_is_not_thought_delayed_forever(clock: Clock) -> None:
    limit = Limit(64, target=0.05, clock=clock)
    window(limit, clock, 0.01)
    for _ in range(6000):
        window(limit, clock, 0.2)
    assert limit.value > START


async def test_refusals_say_when_to_come_again_and_health_is_never_refused(start: Start) -> None:
    """One request works, the deadline of the next in line passes; the door counts everybody out again."""
    async with start(("bias",), max_working=1, max_queue=1) as service:
        body = {"domain": "films", "k": 1000}
        answers = await asyncio.gather(
            *(service.http.post("/v1/cold-start/recommendations", json=body) for _ in range(8)),
            service.http.get("/livez"),
            service.http.get("/readyz"),
            service.http.get("/metrics"),
            service.http.get("/v1/admin/checkpoints"),
        )
        assert [answer.status_code for answer in answers[8:]] == [200] * 4
        statuses = [answer.status_code for answer in answers[:8]]
        assert set(statuses) == {200, 503}
        for answer in answers[:8]:
            if answer.status_code == 503:
                refused(answer, "overloaded")
                assert answer.headers["retry-after"] == "1"
        await service.post("/v1/cold-start/recommendations", body)


async def test_what_is_late_is_told_so_and_not_stored(start: Start) -> None:
    async with start(("bias",), deadline_seconds=1e-9) as service:
        before = await service.stored()
        for answer in (
            await service.http.post("/v1/cold-start/recommendations", json={"domain": "films"}),
            await service.http.get("/v1/users/somebody/recommendations", params={"domain": "films"}),
        ):
            refused(answer, "deadline-exceeded")
            assert answer.status_code == 504
        assert await service.stored() == before
        assert (await service.http.get("/v1/admin/checkpoints")).status_code == 200


@pytest.mark.usefixtures("short_of_time")
async def test_a_late_question_is_not_computed() -> None:
    batcher = Batcher(max_batch=2, max_queue=3)
    batcher.start()
    question: Question = None  # type: ignore[assignment]  # computing that would be an AttributeError
    with pytest.raises(DeadlinePassed):
        await batcher.ask(question)
    await asyncio.to_thread(batcher.close)
    with pytest.raises(DeadlinePassed):
        in_time()

"""Coalescing: many callers, few calls, and no result older than its caller."""

import asyncio
from collections.abc import Sequence

import pytest

from app.services.coalesce import Coalescer


class Recorder:
    """A call that finishes when it is told to, and remembers what it was given."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gates: list[asyncio.Future[Exception | None]] = []
        self.starts = asyncio.Semaphore(0)

    async def __call__(self, group: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(group))
        gate: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        self.starts.release()
        failure = await gate
        if failure is not None:
            raise failure
        return [10 * item for item in group]

    async def begun(self) -> None:
        """Wait for the next call to begin."""
        await self.starts.acquire()


async def test_what_arrives_during_a_call_goes_together_into_the_next() -> None:
    """Never into the one under way: its result may be older than they are. Results come back in order."""
    record = Recorder()
    coalesce: Coalescer[int, int] = Coalescer(record)
    first = asyncio.create_task(coalesce(1))
    await record.begun()
    later = [asyncio.create_task(coalesce(i)) for i in (2, 3, 4)]
    await asyncio.sleep(0)
    assert record.groups == [[1]]
    record.gates[0].set_result(None)
    await record.begun()
    assert record.groups == [[1], [2, 3, 4]]
    record.gates[1].set_result(None)
    assert [await first, *(await asyncio.gather(*later))] == [10, 20, 30, 40]


async def test_a_group_has_a_limit() -> None:
    record = Recorder()
    coalesce: Coalescer[int, int] = Coalescer(record, max_group=2)
    callers = [asyncio.create_task(coalesce(i)) for i in range(5)]
    for _ in range(3):
        await record.begun()
        record.gates[-1].set_result(None)
    assert await asyncio.gather(*callers) == [0, 10, 20, 30, 40]
    assert record.groups == [[0, 1], [2, 3], [4]]


async def test_a_failure_reaches_its_group_and_no_other() -> None:
    record = Recorder()
    coalesce: Coalescer[int, int] = Coalescer(record)
    failing = [asyncio.create_task(coalesce(i)) for i in (1, 2)]
    await record.begun()
    following = asyncio.create_task(coalesce(3))
    await asyncio.sleep(0)
    record.gates[0].set_result(LookupError("no"))
    for caller in failing:
        with pytest.raises(LookupError):
            await caller
    await record.begun()
    record.gates[1].set_result(None)
    assert await following == 30


async def test_a_caller_who_gives_up_takes_nobody_along() -> None:
    record = Recorder()
    coalesce: Coalescer[int, int] = Coalescer(record)
    impatient = asyncio.create_task(coalesce(1))
    patient = asyncio.create_task(coalesce(2))
    await record.begun()
    impatient.cancel()
    record.gates[0].set_result(None)
    assert await patient == 20
    assert impatient.cancelled()
    await coalesce.close()

"""Micro-batching: requests that wait at the same moment are computed together, in one thread that persists.

There is no waiting time: the thread takes whatever is there as soon as it is free. Under load the batches grow by
themselves; a lone request is computed at once.
"""

import asyncio
import gc
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from app.engine.answering import Answer, Question, answer
from app.engine.deadline import DEADLINE, DeadlinePassed
from app.telemetry import BATCH_SECONDS, BATCH_SIZE, QUEUE_LENGTH


class QueueFull(Exception):
    """More questions wait than the service takes."""


class Batcher:
    """Computes questions in a thread of its own."""

    def __init__(self, max_batch: int, max_queue: int) -> None:
        self.max_batch = max_batch
        self.max_queue = max_queue
        self._waiting: deque[tuple[Question, float, asyncio.Future[Answer]]] = deque()
        self._some = threading.Condition()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Begin to compute; answers go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        with self._some:
            self._closed = True
            self._some.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def waiting(self) -> int:
        """Questions that wait for computation."""
        return len(self._waiting)

    async def ask(self, question: Question) -> Answer:
        """The answer to a question. Raises QueueFull where too many wait, DeadlinePassed where it would come too late.

        What came too late is not computed.
        """
        assert self._loop is not None
        future: asyncio.Future[Answer] = self._loop.create_future()
        with self._some:
            if len(self._waiting) >= self.max_queue:
                raise QueueFull
            self._waiting.append((question, DEADLINE.get(), future))
            self._some.notify()
        return await future

    def _run(self) -> None:
        while True:
            with self._some:
                while not self._waiting and not self._closed:
                    self._some.wait()
                if not self._waiting:
                    return
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self.max_batch))]
                QUEUE_LENGTH.set(len(self._waiting))
            self._compute(self._in_time(batch))

    def _in_time(
        self, batch: list[tuple[Question, float, "asyncio.Future[Answer]"]]
    ) -> list[tuple[Question, "asyncio.Future[Answer]"]]:
        """Those of the batch that somebody still waits for; the others are told."""
        assert self._loop is not None
        now = time.monotonic()
        late = [future for _, deadline, future in batch if deadline < now]
        if late:
            self._loop.call_soon_threadsafe(_deliver, late, [DeadlinePassed() for _ in late])
        wanted = [(question, future) for question, deadline, future in batch if deadline >= now]
        return [(question, future) for question, future in wanted if not future.cancelled()]

    def _compute(self, batch: list[tuple[Question, "asyncio.Future[Answer]"]]) -> None:
        assert self._loop is not None
        if not batch:
            return
        started = time.perf_counter()
        outcome: Sequence[Answer | BaseException]
        try:
            outcome = answer([question for question, _ in batch])
        except Exception:  # one bad question must not fail its neighbours
            outcome = [_alone(question) for question, _ in batch]
        BATCH_SIZE.observe(len(batch))
        BATCH_SECONDS.observe(time.perf_counter() - started)
        futures = [future for _, future in batch]
        self._loop.call_soon_threadsafe(_deliver, futures, outcome)


def _alone(question: Question) -> Answer | BaseException:
    try:
        return answer([question])[0]
    except Exception as error:
        return error


def _deliver(futures: Sequence["asyncio.Future[Answer]"], outcome: Sequence[Answer | BaseException]) -> None:
    for future, made in zip(futures, outcome, strict=True):
        if future.done():
            continue
        if isinstance(made, BaseException):
            future.set_exception(made)
        else:
            future.set_result(made)


def settle(warm_up: Callable[[], None]) -> None:
    """Run `warm_up`, then move everything that lives to the collector's permanent generation.

    A full collection with torch loaded takes about 100 ms and would be the whole tail of the latency. What requests
    leave behind is freed by counting references; a look for cycles every so many thousand objects is enough.
    """
    warm_up()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)

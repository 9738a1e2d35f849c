"""How many requests are worked on at a time, and what becomes of the others: overload is shed, not suffered.

Requests that are worked on together delay each other. `Limit` learns how many may be by that delay, up one step and
down by a share as TCP does: answers are compared with the quickest lately of their kind, so a slow route counts as slow
and not as overload. It is the estimate of TCP Vegas (Brakmo and Peterson, 1995) with a target in seconds.

The others wait, a bounded number of them and for a bounded time, in order. A line is no overload, however long it
lasts, while it moves so fast that nobody gives up: a crowd of which everybody sends the next request when the last is
answered always has one. Where for half of the time that anybody may wait nobody has got in within half of it, the line
grows: then the newest goes first and patience is short, for the old ones are about to give up anyway. That is
controlled delay (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 2012) with adaptive LIFO (Maurer, "Fail at
Scale", ACM Queue 2015). And then the line takes one for each that is answered; the others are turned away before
anything is done for them, for what is done for many who are refused is not done for those who are answered. The
overload is over when few are refused for each that is answered.

Whoever is refused may ask again at once, and as fast as refusals come they would be all that is done. `Refusals` tells
them together, some every now and then.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from statistics import median

from app.telemetry import CONCURRENCY_LIMIT, REFUSED, REQUESTS_IN_PROGRESS, REQUESTS_WAITING

START = 16
"""Requests that may be worked on together at first."""
FLOOR = 4
"""Requests that may always be: one is computed, others are on their way to it and from it."""
SHORT = 0.15
"""Share of the patience with a burst: patience while overloaded, and the delay that requests may cause each other."""
SOON = 0.5
"""Share of the patience with a burst: a wait that is no sign of overload, and how long there may be none so short."""
FEW = 0.25
"""Refusals for each answer, in the time of that patience, that are no overload any more: they might as well wait."""
TELL_SECONDS = 0.05
TOLD_TOGETHER = 12
"""Refusals are told this often, so many at a time and all those that have waited for as long as a burst may."""
WINDOW_SECONDS = 0.1
WINDOW_ANSWERS = 10
"""The limit moves at most this often, and by no fewer answers."""
FORGET_PER_SECOND = 0.02
"""Share by which the quickest answer of a kind is thought to be slower with each second that brings none as quick."""


class Refused(Exception):
    """More requests than can be answered in time."""


class Limit:
    """The number of requests that may be worked on together, learnt from how long they take."""

    def __init__(self, ceiling: int, target: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ceiling = ceiling
        self._target = target
        self._floor = float(min(FLOOR, ceiling))
        self._value = float(min(START, ceiling))
        self._quickest: dict[str, tuple[float, float]] = {}
        self._delays: list[float] = []
        self._reached = False
        self._since = clock()

    @property
    def value(self) -> int:
        """Requests that may be worked on together."""
        return int(self._value)

    def reached(self) -> None:
        """Tell that a request had to wait."""
        self._reached = True

    def observe(self, kind: str, seconds: float) -> None:
        """Tell how long a request of a kind took."""
        now = self._clock()
        quickest, when = self._quickest.get(kind, (seconds, now))
        quickest = min(seconds, quickest * (1 + FORGET_PER_SECOND * (now - when)))
        self._quickest[kind] = quickest, now
        self._delays.append(seconds - quickest)
        if len(self._delays) >= WINDOW_ANSWERS and now >= self._since + WINDOW_SECONDS:
            if median(self._delays) > self._target:
                self._value = max(self._floor, 0.8 * self._value)
            elif self._reached:
                self._value = min(float(self._ceiling), self._value + max(1.0, 0.1 * self._value))
            self._delays.clear()
            self._reached = False
            self._since = now


class Refusals:
    """Who is to be refused, in order. Told one by one as they come, they would interrupt the work for all others."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody waits for longer than `patience` seconds to be told."""
        self._patience = patience
        self._clock = clock
        self._held: deque[tuple[asyncio.Future[None], float]] = deque()

    async def turn(self) -> None:
        """Wait until it is time to tell one more."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._held:
            asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)
        self._held.append((turn, self._clock()))
        await turn

    def _tell(self) -> None:
        told = 0
        while self._held and (told < TOLD_TOGETHER or self._clock() > self._held[0][1] + self._patience):
            turn, _ = self._held.popleft()
            if not turn.done():
                turn.set_result(None)
                told += 1
        if self._held:
            asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)


class Admission:
    """The door of one worker: `await enter()` before the work, `leave()` after it, whatever came of it."""

    def __init__(
        self, max_working: int, max_waiting: int, patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`patience` is the time in seconds for which a request of a burst may wait."""
        self.limit = Limit(max_working, SHORT * patience, clock)
        self.refusals = Refusals(patience, clock)
        self._max_waiting = max_waiting
        self._patience = patience
        self._clock = clock
        self._working = 0
        self._waiting: dict[asyncio.Future[None], float] = {}
        """Turn → since when it is waited for, the longest first."""
        self._soon_at = clock()
        """When somebody last got in without waiting for long, or was the first to wait."""
        self._overloaded = False
        self._welcome = self.limit.value
        self._since = clock()
        self._answered = 0
        self._refused = 0
        CONCURRENCY_LIMIT.set(self.limit.value)

    @property
    def overloaded(self) -> bool:
        """Whether the line grows, or has grown and many are refused still."""
        now = self._clock()
        if not self._overloaded:
            self._overloaded = bool(self._waiting) and now > self._soon_at + SOON * self._patience
            self._since, self._answered, self._refused = now, 0, 0
        elif now > self._since + self._patience:
            self._overloaded = self._refused > FEW * self._answered
            self._since, self._answered, self._refused = now, 0, 0
            self._soon_at = now
        return self._overloaded

    def turn_away(self) -> bool:
        """Whether to refuse whoever comes now, before anything is done for them; whoever is refused is counted."""
        room = self._working < self.limit.value and not self._waiting
        if room or not self.overloaded:
            return False
        if self._welcome:
            self._welcome -= 1
            return False
        self._count("at the door")
        return True

    async def enter(self) -> None:
        """Wait for a turn. Raises Refused where too many wait, or this one has for too long."""
        if not self._waiting:
            self._soon_at = self._clock()
            if self._working < self.limit.value:
                self._work(1)
                return
        self.limit.reached()
        overloaded = self.overloaded
        if overloaded and len(self._waiting) >= self.limit.value:
            self._refuse(next(iter(self._waiting)), "too long")  # it would have to wait for all that came later
        elif len(self._waiting) >= self._max_waiting:
            self._count("too many")
            raise Refused
        if not overloaded:
            self._welcome = self.limit.value
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = self._clock()
        REQUESTS_WAITING.set(len(self._waiting))
        patience = SHORT * self._patience if overloaded else self._patience
        timer = asyncio.get_running_loop().call_later(patience, self._refuse, turn, "too long")
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._work(-1)
                self._next()
            else:
                self._waiting.pop(turn, None)
            raise
        finally:
            timer.cancel()

    def leave(self, kind: str, seconds: float) -> None:
        """Give the turn to another. `seconds` is how long the work took, `kind` what it is to be compared with."""
        self._work(-1)
        self._answered += 1
        self._welcome = min(self._welcome + 1, self.limit.value)
        self.limit.observe(kind, seconds)
        CONCURRENCY_LIMIT.set(self.limit.value)
        self._next()

    def _next(self) -> None:
        while self._waiting and self._working < self.limit.value:
            turn = next(reversed(self._waiting) if self.overloaded else iter(self._waiting))
            waited = self._clock() - self._waiting.pop(turn)
            if not turn.done():
                if waited <= SOON * self._patience:
                    self._soon_at = self._clock()
                turn.set_result(None)
                self._work(1)
        REQUESTS_WAITING.set(len(self._waiting))

    def _refuse(self, turn: asyncio.Future[None], reason: str) -> None:
        if not turn.done():
            del self._waiting[turn]
            REQUESTS_WAITING.set(len(self._waiting))
            self._count(reason)
            turn.set_exception(Refused())

    def _count(self, reason: str) -> None:
        self._refused += 1
        REFUSED.labels(reason).inc()

    def _work(self, change: int) -> None:
        self._working += change
        REQUESTS_IN_PROGRESS.set(self._working)

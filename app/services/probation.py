"""What becomes of requests after a checkpoint was taken into service: where they fail or drag, it goes out again.

Each worker remembers how long the engine took for the last answers of a domain. When a reload swaps a checkpoint in,
that is what the answers of the next minute are compared with. The worker that finds them too bad puts the one before
back, by a decision like any other, which every worker follows.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median

import structlog

from app.telemetry import WITHDRAWN
from models.recommender import Role

log = structlog.get_logger()

MEMORY = 200
"""Answers of a domain that are remembered."""
ENOUGH = 30
"""Answers, before and after, without which nothing is said of how long they take."""
FAILURES = 5
"""Failed answers that are no accident, if they are also `FAILED_SHARE` of all since the swap."""
FAILED_SHARE = 0.05
SLACK_SECONDS = 0.05
"""Answers may take this much longer whatever they took before: on a busy machine that much is chance."""

Withdraw = Callable[[str, Role, str], Awaitable[bool]]
"""(domain, role, checkpoint) → whether the checkpoint before it was put back."""


@dataclass
class _Case:
    """A checkpoint that came into service a moment ago."""

    role: Role
    checkpoint: str
    until: float
    before: list[float]
    """Seconds that the answers before it took."""
    after: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))
    answers: int = 0
    failures: int = 0

    def verdict(self, slower: float) -> str | None:
        """Why it should go; None where there is nothing to say against it so far."""
        if self.failures >= FAILURES and self.failures > FAILED_SHARE * self.answers:
            return "errors"
        if len(self.before) >= ENOUGH and len(self.after) >= ENOUGH:
            allowed = slower * median(self.before) + SLACK_SECONDS
            if median(self.after) > allowed:
                return "latency"
        return None


class Probation:
    """The watch of one worker."""

    def __init__(self, seconds: float, slower: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`seconds` is how long a checkpoint is watched, 0 for not at all; `slower` how many times longer answers may
        take than before."""
        self.withdraw: Withdraw | None = None
        self._seconds = seconds
        self._slower = slower
        self._clock = clock
        self._recent: dict[str, deque[float]] = {}
        self._cases: dict[str, _Case] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, domain: str, role: Role, checkpoint: str) -> None:
        """A checkpoint came into service in the place of another."""
        if self._seconds:
            before = list(self._recent.pop(domain, ()))
            self._cases[domain] = _Case(role, checkpoint, self._clock() + self._seconds, before)

    def answered(self, domain: str, seconds: float) -> None:
        """Tell how long an answer took."""
        self._recent.setdefault(domain, deque(maxlen=MEMORY)).append(seconds)
        self._tell(domain, seconds)

    def failed(self, domain: str) -> None:
        """Tell that the engine failed to answer."""
        self._tell(domain, math.nan)

    def _tell(self, domain: str, seconds: float) -> None:
        case = self._cases.get(domain)
        if case is None:
            return
        case.answers += 1
        if math.isnan(seconds):
            case.failures += 1
        else:
            case.after.append(seconds)
        reason = case.verdict(self._slower)
        if reason is not None or self._clock() > case.until:
            del self._cases[domain]
        if reason is not None and self.withdraw is not None:
            task = asyncio.create_task(self._end(domain, case, reason))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _end(self, domain: str, case: _Case, reason: str) -> None:
        assert self.withdraw is not None
        told = {"domain": domain, "role": case.role, "checkpoint": case.checkpoint, "reason": reason}
        try:
            if await self.withdraw(domain, case.role, case.checkpoint):
                WITHDRAWN.labels(reason).inc()
                log.error("checkpoint_withdrawn", **told, failures=case.failures, answers=case.answers)
        except Exception:
            log.exception("checkpoint_not_withdrawn", **told)

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

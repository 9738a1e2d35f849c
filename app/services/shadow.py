"""Checkpoints on trial: for a share of requests a second answer is made with one, for nobody but whoever compares.

What is compared is made anew once the request is answered, first with what serves, then with the checkpoint on trial in
its role: without cached states and exploration, each alone, so that both have the same to do. One comparison runs at a
time; those that come while others wait for the engine, or too many wait here, are dropped. All of it is in the memory
of the worker that was asked for the trial, and ends with it. What was learnt while serving is not in the trial's rows.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import structlog

from app.engine.answering import Question, answer
from app.engine.runtime import Deployed, Snapshot
from app.engine.serving import Served, ServedDomain
from app.telemetry import SHADOW_COMPARISONS, SHADOW_DIFFERENCE, SHADOW_OVERLAP, SHADOW_SECONDS
from models.recommender import Role

if TYPE_CHECKING:
    from app.services.installation import Installation

log = structlog.get_logger()

WAITING = 16
"""Comparisons that may wait."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one question."""

    difference: float
    """Mean absolute difference of the ratings to expect, of the items that what serves has chosen."""
    overlap: float | None
    """Share of its items that the other chose too; None where no list was wanted."""
    serving_seconds: float
    seconds: float


@dataclass
class Trial:
    """A checkpoint on trial, and what was seen of it."""

    domain: str
    role: Role
    candidate: Served
    compared: int = 0
    failed: int = 0
    dropped: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    lists: int = 0
    _made: tuple[Snapshot, ServedDomain] | None = None

    def told(self) -> Mapping[str, float | int | str | None]:
        """Counts, and means over what was compared; None where nothing was."""
        ends = {name: self.sums.get(name) for name in ("difference", "serving_seconds", "seconds")}
        means = {name: None if total is None else total / self.compared for name, total in ends.items()}
        overlap = self.sums["overlap"] / self.lists if self.lists else None
        counts = {"compared": self.compared, "failed": self.failed, "dropped": self.dropped}
        return {"domain": self.domain, "role": self.role, "overlap": overlap} | means | counts

    def saw(self, seen: Comparison) -> None:
        """Count a comparison."""
        self.compared += 1
        self.lists += seen.overlap is not None
        for name in ("difference", "overlap", "serving_seconds", "seconds"):
            self.sums[name] = self.sums.get(name, 0.0) + (getattr(seen, name) or 0.0)


class Shadows:
    """The trials of one worker, one a domain and role."""

    def __init__(self, installation: "Installation") -> None:
        self._installation = installation
        self._trials: dict[tuple[str, Role], Trial] = {}
        self._waiting: asyncio.Queue[tuple[Trial, Question]] = asyncio.Queue(WAITING)
        self._task: asyncio.Task[None] | None = None

    @property
    def trials(self) -> list[Trial]:
        """Those that run."""
        return list(self._trials.values())

    def begin(self, domain: str, role: Role, candidate: Served) -> None:
        """Put a checkpoint that has passed the gates on trial, in the place of another one."""
        self._trials[domain, role] = Trial(domain, role, candidate)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def end(self, domain: str, role: Role) -> Trial | None:
        """End a trial, if there is one."""
        return self._trials.pop((domain, role), None)

    def retire(self, before: Deployed, after: Deployed) -> None:
        """End the trials where something else serves now: what was seen was in comparison with another."""
        for where in list(self._trials):
            if before.get(where) != after.get(where):
                del self._trials[where]

    def offer(self, question: Question) -> None:
        """A question was answered; some are answered again."""
        if not self._trials or random.random() >= self._installation.settings.shadow_share:
            return
        for trial in self._trials.values():
            if trial.domain == question.domain.shelf.domain.name:
                if self._installation.batcher.waiting or self._waiting.full():
                    self._drop(trial)
                else:
                    self._waiting.put_nowait((trial, question))

    async def close(self) -> None:
        """Stop comparing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            trial, question = await self._waiting.get()
            if self._trials.get((trial.domain, trial.role)) is not trial:
                continue
            if self._installation.batcher.waiting:
                self._drop(trial)
                continue
            try:
                seen = await asyncio.to_thread(self._compare, trial, question)
            except Exception:
                trial.failed += 1
                SHADOW_COMPARISONS.labels("failed").inc()
                log.exception("shadow_failed", checkpoint=trial.candidate.name, domain=trial.domain, role=trial.role)
                continue
            trial.saw(seen)
            SHADOW_COMPARISONS.labels("compared").inc()
            SHADOW_DIFFERENCE.observe(seen.difference)
            SHADOW_SECONDS.labels("serving").observe(seen.serving_seconds)
            SHADOW_SECONDS.labels("shadow").observe(seen.seconds)
            if seen.overlap is not None:
                SHADOW_OVERLAP.observe(seen.overlap)

    def _drop(self, trial: Trial) -> None:
        trial.dropped += 1
        SHADOW_COMPARISONS.labels("dropped").inc()

    def _compare(self, trial: Trial, question: Question) -> Comparison:
        runtime = self._installation.runtime
        now = runtime.now
        if trial._made is None or trial._made[0] is not now:
            trial._made = (now, runtime.with_candidate(trial.domain, trial.role, trial.candidate))
        serving = replace(question, domain=now.domains[trial.domain], states=(), plan=None)
        shadow = replace(serving, domain=trial._made[1])
        began = time.perf_counter()
        (given,) = answer([serving])
        between = time.perf_counter()
        (other,) = answer([shadow])
        ended = time.perf_counter()
        overlap, means = None, other.mean
        if question.k:
            overlap = len(np.intersect1d(given.local, other.local)) / max(len(given.local), 1)
            (rated,) = answer([replace(shadow, k=0, only=given.local, blocked=given.local[:0], by_rating=True)])
            means = rated.mean
        difference = float(np.abs(given.mean - means).mean()) if len(given.mean) else 0.0
        return Comparison(difference, overlap, between - began, ended - between)

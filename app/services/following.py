"""What one worker has in service, and how it follows what was decided.

A decision is a row in the database. It is committed by the worker that has loaded the checkpoint, held it to every
gate and made everything ready, so that only a reference is left to be swapped (`Following.put`). The others find the
row and do the same with the same digest (`Following.follow`). One that cannot goes on with what it has and says so.
"""

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from app.engine.runtime import Deployed, check_fit
from app.engine.serving import Served
from app.storage import deployments, revisions
from app.storage.database import Connection
from app.storage.errors import StorageUnavailable
from app.storage.records import Wanted
from app.telemetry import BEHIND, RELOADS
from models.checkpoint import CheckpointError
from models.recommender import Role

if TYPE_CHECKING:
    from app.services.installation import Installation

log = structlog.get_logger()

RETRY_LOAD_SECONDS = 5.0
"""Pause before a wanted checkpoint that could not be loaded is tried again."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Something that is wanted and not in service here."""

    domain: str
    role: str
    checkpoint: str
    problem: str
    """The problem type that says why."""


class Following:
    """Keeps one worker at what is wanted."""

    def __init__(self, installation: "Installation") -> None:
        self.behind: list[Lag] = []
        """What this worker could not take into service; empty where it serves what is wanted."""
        self._installation = installation
        self._turn = asyncio.Lock()
        self._revision = -1
        self._retry_at = math.inf
        self._task: asyncio.Task[None] | None = None

    def look(self, revision: int) -> None:
        """Follow in the background where there are decisions up to that revision that were not followed yet."""
        due = revision != self._revision or asyncio.get_running_loop().time() > self._retry_at
        if due and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._in_background())

    async def follow(self) -> None:
        """Serve what is wanted, as far as it passes the gates here; the rest is tried again after a while."""
        here = self._installation
        async with self._turn:
            async with here.database.read(snapshot=True) as connection:
                seen = await revisions.read(connection)
                rows = await deployments.wanted(connection)
            if seen.deployments == self._revision and not self.behind:
                return
            # Until all is done it counts as failed: whatever goes wrong, it is not tried at every request.
            self._revision = seen.deployments
            self._retry_at = asyncio.get_running_loop().time() + RETRY_LOAD_SECONDS
            await here.follow_catalogue(seen.catalogue)
            loaded: dict[str, Served] = {}
            behind = []
            before = here.runtime.now.deployed
            wanted: dict[tuple[str, Role], str] = {}
            for row in rows:
                where = (row.domain, _role(row.role))
                reason = await self._admit(row, loaded)
                if reason is None:
                    wanted[where] = row.checkpoint
                    continue
                behind.append(Lag(row.domain, row.role, row.checkpoint, reason))
                if where in before:
                    wanted[where] = before[where]
            if loaded or wanted != before:
                async with here.change:
                    here.runtime.put(await asyncio.to_thread(here.runtime.prepared, wanted, loaded))
                self._swapped(before, wanted)
            self._tell(behind)

    async def put(self, domain: str, role: Role, served: Served) -> None:
        """Take a checkpoint that has passed the gates into service, and commit that it is wanted everywhere.

        Everything is made ready before the commit, and nothing can fail after it. Raises StorageUnavailable: then it
        is in service nowhere, unless the commit itself was lost, when this worker follows it as the others do.
        """
        here = self._installation
        key = here.domains[domain].key

        async def work(connection: Connection) -> int:
            return await deployments.deploy(connection, key, role, served.name, served.digest, time.time())

        async with self._turn:
            async with here.change:
                before = here.runtime.now.deployed
                wanted = {**before, (domain, role): served.name}
                prepared = await asyncio.to_thread(here.runtime.prepared, wanted, {served.name: served})
                revision = await here.database.transact(work)
                here.runtime.put(prepared)
            RELOADS.labels("ok").inc()
            if revision == self._revision + 1:  # else others have decided something meanwhile, which is to be followed
                self._revision = revision
            self._swapped(before, wanted)
            self._tell([lag for lag in self.behind if (lag.domain, lag.role) != (domain, role)])

    async def close(self) -> None:
        """Stop what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _in_background(self) -> None:
        try:
            await self.follow()
        except StorageUnavailable as failure:
            log.warning("following_waits", reason=failure.reason)
        except Exception:
            log.exception("following_failed")

    async def _admit(self, row: Wanted, loaded: dict[str, Served]) -> str | None:
        """Have the checkpoint that a row wants in service already or in `loaded`; the problem type where it is
        not fit."""
        runtime, role = self._installation.runtime, _role(row.role)
        there = runtime.now.served.get(row.checkpoint)
        try:
            if there is not None and there.digest == row.digest:
                check_fit(there, row.domain, role)
                return None
            candidate = loaded.get(row.checkpoint)
            if candidate is None or candidate.digest != row.digest:
                candidate = await asyncio.to_thread(runtime.load, row.checkpoint, row.digest)
            await asyncio.to_thread(runtime.examine, row.domain, role, candidate)
        except Exception as error:  # whatever it says, it is not served, and the others are not to wait for it
            reason = error.reason if isinstance(error, CheckpointError) else "internal-error"
            RELOADS.labels("failed").inc()
            log.error("checkpoint_not_loaded", checkpoint=row.checkpoint, reason=reason, error=str(error))
            return reason
        if row.checkpoint not in loaded:
            RELOADS.labels("ok").inc()
        loaded[row.checkpoint] = candidate
        return None

    def _swapped(self, before: Deployed, after: Deployed) -> None:
        here = self._installation
        for (domain, role), name in after.items():
            if before.get((domain, role), name) != name:
                here.probation.begin(domain, role, name)
        here.shadows.retire(before, after)
        here.learner.renew()

    def _tell(self, behind: list[Lag]) -> None:
        self.behind = behind
        BEHIND.set(len(behind))
        if not behind:
            self._retry_at = math.inf


def _role(name: str) -> Role:
    """The role of that name; storage holds no other names."""
    role: Role = name  # type: ignore[assignment]
    return role

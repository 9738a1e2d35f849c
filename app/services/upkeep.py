"""What a worker does beside answering.

It settles slates whose waiting time is over, goes on with erasures that were interrupted, and lets go of what has got
old. Every second it looks for what other workers have changed, so that an idle one follows too.
"""

import asyncio
import time
from contextlib import suppress

import structlog

from app.services import erase
from app.services.exploration import micros
from app.services.installation import Installation
from app.storage import ageing, audit, erasures, idempotency, tombstones
from app.storage.errors import StorageUnavailable

log = structlog.get_logger()

STEP = 100
"""Rows of one transaction: few enough that nobody notices the wait."""
FOLLOW_SECONDS = 1.0
HOUR = 3_600.0
DAY = 24 * HOUR


class Upkeep:
    """The task of one worker; several workers share the work."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, in the background."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._follow())]

    async def close(self) -> None:
        """Stop, and wait for what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def once(self, now: float) -> tuple[int, int]:
        """(slates settled, slates pruned) until there is nothing left to do at that time."""
        installation = self._installation
        await installation.fresh()
        defaults = {
            stored.key: micros(installation.policies.of(name).default_reward)
            for name, stored in installation.domains.items()
        }
        before = now - installation.settings.slate_retention_days * DAY
        settled = pruned = 0
        transact = installation.database.transact
        while step := await transact(lambda connection: ageing.settle(connection, defaults, now, STEP)):
            settled += step
        while step := await transact(lambda connection: ageing.prune(connection, before, STEP)):
            pruned += step
        forget = now - installation.settings.idempotency_hours * HOUR
        while await transact(lambda connection: idempotency.prune(connection, forget, STEP)):
            pass
        await erase.go_on(installation, now)
        unbury = now - installation.settings.tombstone_days * DAY
        while await transact(lambda connection: tombstones.prune(connection, unbury, STEP)):
            pass
        await transact(lambda connection: erasures.prune(connection, unbury))
        recorded = now - installation.settings.audit_retention_days * DAY
        while await transact(lambda connection: audit.prune(connection, recorded, STEP)):
            pass
        return settled, pruned

    async def _run(self) -> None:
        while True:  # first of all what a crash has interrupted
            try:
                await self.once(time.time())
            except StorageUnavailable as failure:
                log.warning("upkeep_postponed", reason=failure.reason)
            await asyncio.sleep(self._installation.settings.upkeep_seconds)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            with suppress(StorageUnavailable):  # which `_run` tells of
                await self._installation.fresh()

"""What a worker does beside answering: settle slates whose waiting time is over, and let go of what has got old."""

import asyncio
import time

import structlog

from app.services.exploration import micros
from app.services.installation import Installation
from app.storage import ageing, idempotency
from app.storage.errors import StorageUnavailable

log = structlog.get_logger()

STEP = 100
"""Rows of one transaction: few enough that nobody notices the wait."""
HOUR = 3_600.0
DAY = 24 * HOUR


class Upkeep:
    """The task of one worker; several workers share the work."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop, and wait for what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

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
        return settled, pruned

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._installation.settings.upkeep_seconds)
            try:
                await self.once(time.time())
            except StorageUnavailable as failure:
                log.warning("upkeep_postponed", reason=failure.reason)

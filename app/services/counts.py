"""Live counts of what users did with items, in one worker.

Counting everything takes seconds where there are a million events. So it is done once, some items at a time, and from
then on for those items alone that something has happened to.
"""

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import structlog
from numpy.typing import NDArray

from app.services.tail import ItemLog
from app.storage import catalogue, item_events
from app.storage.database import Database
from app.storage.errors import StorageUnavailable
from app.storage.records import ItemCounts

log = structlog.get_logger()

PORTION = 500
"""Items that are counted by one statement."""


class LiveCounts:
    """Counts by item, as new as the last `follow`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = ItemLog()
        self._waiting: dict[int, None] | None = None
        self._counts: dict[int, ItemCounts] = {}
        self._turn = asyncio.Lock()

    async def follow(self) -> None:
        """Count what has changed, and some of what has not been counted yet. Raises StorageUnavailable."""
        async with self._turn, self._database.read() as connection:
            changed = await self._log.new(connection)
            if self._waiting is None:
                self._waiting = dict.fromkeys(await item_events.touched(connection, 0))
            first = dict.fromkeys(changed)
            some = [*first, *(key for key in self._waiting if key not in first)][: max(PORTION, len(first))]
            for start in range(0, len(some), PORTION):
                portion = some[start : start + PORTION]
                found = {one.item_key: one for one in await catalogue.counts(connection, portion)}
                for key in portion:
                    self._counts.pop(key, None)
                    self._waiting.pop(key, None)
                self._counts.update(found)

    async def catch_up(self, limit_seconds: float) -> None:
        """Count everything, for so long at most; `follow` goes on with the rest."""
        deadline = time.monotonic() + limit_seconds
        try:
            while self._waiting is None or (self._waiting and time.monotonic() < deadline):
                await self.follow()
        except StorageUnavailable as failure:
            log.warning("counting_waits", reason=failure.reason)

    def of(self, item_keys: Sequence[int]) -> NDArray[np.float64]:
        """(n, 3): users who rated each item, the sum of their ratings, events of any kind."""
        none = ItemCounts(0, 0, 0.0, 0)
        found = (self._counts.get(key, none) for key in item_keys)
        rows = [(one.n_ratings, one.sum_ratings, one.n_events) for one in found]
        return np.array(rows, np.float64).reshape(-1, 3)

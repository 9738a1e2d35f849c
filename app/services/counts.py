"""Live counts of what users did with items, in one worker.

Counting everything takes seconds where there are a million events. So it is done once, some items at a time, and from
then on for those items alone that something has happened to.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import islice

import numpy as np
import structlog
from numpy.typing import NDArray

from app.services.tail import ItemLog
from app.storage import catalogue, item_events
from app.storage.database import Connection, Database
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
        self._changed: dict[int, None] = {}
        """Items to count again."""
        self._waiting: dict[int, None] | None = None
        """Items that have not been counted yet; None until they are known."""
        self._counts: dict[int, ItemCounts] = {}
        self._turn = asyncio.Lock()

    async def follow(self) -> None:
        """Count what has changed, and some of what has not been counted yet. Raises StorageUnavailable."""
        async with self._turn, self._database.read() as connection:
            self._changed.update(dict.fromkeys(await self._log.new(connection)))
            if self._waiting is None:
                self._waiting = dict.fromkeys(await item_events.touched(connection, 0))
            while self._changed:
                await self._count(connection, self._changed)
            if self._waiting:
                await self._count(connection, self._waiting)

    async def _count(self, connection: Connection, items: dict[int, None]) -> None:
        portion = list(islice(items, PORTION))
        found = {one.item_key: one for one in await catalogue.counts(connection, portion)}
        self._counts.update(found)
        for key in portion:
            if key not in found:
                self._counts.pop(key, None)
            del items[key]

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

"""Following a log by its keys, which may become visible out of order."""

import time
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from app.storage import item_events
from app.storage.database import Connection

LATE_SECONDS = 30.0
"""How long after a later key an earlier one may still be committed on Postgres."""
LATE_KEYS = 1000
"""The same at the start, in keys."""

K = TypeVar("K", bound=Any)
V = TypeVar("V")


class Tail(Generic[K, V]):
    """What of a log has been read. The next look begins at `after`, and knows what it has seen behind that."""

    def __init__(self, after: K) -> None:
        self.after = after
        self._seen: dict[K, float] = {}

    def new(self, rows: Iterable[tuple[K, V]], now: float) -> list[V]:
        """Of (key, row) behind `after`, the rows of keys that were not there last time."""
        fresh = {key: row for key, row in rows if key not in self._seen}
        self._seen.update(dict.fromkeys(fresh, now))
        settled = [key for key, when in self._seen.items() if when <= now - LATE_SECONDS]
        self.settle(max([self.after, *settled]))
        return list(fresh.values())

    def settle(self, key: K) -> None:
        """Nothing comes before that key any more."""
        self.after = max(self.after, key)
        self._seen = {seen: when for seen, when in self._seen.items() if seen > self.after}


class ItemLog:
    """What has happened to items: both the log of interactions and that of those taken back, followed from now on."""

    def __init__(self) -> None:
        self._tails: dict[str, Tail[int, int]] = {}

    async def new(self, connection: Connection) -> list[int]:
        """Keys of items that something has happened to since the last look; some may come once more than they need.

        Where one of the logs cannot be read, neither counts as read.
        """
        rows: dict[str, list[tuple[int, int]]] = {}
        for name in ("interactions", "withdrawals"):
            if name not in self._tails:
                last_key = await item_events.last_key(connection, name)
                self._tails[name] = Tail(max(0, last_key - LATE_KEYS))
            rows[name] = await item_events.since(connection, name, self._tails[name].after)
        now = time.monotonic()
        return [item_key for name, found in rows.items() for item_key in self._tails[name].new(found, now)]

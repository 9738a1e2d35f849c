"""The cache of user states: in the process, or in Redis for all workers. Losing it changes nothing but speed.

A key names everything that a state depends on (checkpoint, domain, user and what is known of them, item table), so an
entry is never wrong, only unused; it goes when its time is over.
"""

import asyncio
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog
from cachetools import TTLCache
from prometheus_client import Counter, Gauge
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = structlog.get_logger()

HITS = Counter("warmstart_cache_hits_total", "User states found in the cache.")
MISSES = Counter("warmstart_cache_misses_total", "User states that were not in the cache, or could not be asked for.")
ERRORS = Counter("warmstart_cache_errors_total", "Calls to the cache's server that failed.", ["operation"])

BREAKER = Gauge(
    "warmstart_cache_breaker",
    "Whether the cache's server is asked: 0 always, 1 by one call to see whether it is back, 2 not for a while.",
    multiprocess_mode="livemax",
)

ENTRY_OVERHEAD = 500
"""Bytes that an entry of the in-process cache takes besides its value: key, node and timestamps, rounded up."""

_LENGTH = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class CacheKey:
    """All that a user's state depends on."""

    digest: str
    """Of the checkpoint."""
    target: str
    """Domain asked about."""
    user_key: int
    user_revision: int
    """Raised by every interaction and change of attributes."""
    table_revision: int
    """Of the item table: the catalogue revision it was brought up to."""

    def __str__(self) -> str:
        return f"{self.digest}:{self.target}:{self.user_key}:{self.user_revision}:{self.table_revision}"


class UserStateCache(Protocol):
    """Bytes by `CacheKey`. No method raises because of the cache; what cannot be had is missing."""

    async def get(self, keys: Sequence[CacheKey]) -> list[bytes | None]:
        """The values of some keys, None where missing."""

    async def put(self, entries: Mapping[CacheKey, bytes]) -> None:
        """Keep values for a while."""

    def retire(self, user_keys: Iterable[int]) -> None:
        """Let go of what this process holds of users, and take nothing about them any more."""

    async def forget(self, user_key: int) -> bool:
        """Let go of what is shared about a user. Whether that is certain."""

    async def close(self) -> None:
        """Let go of connections."""


class MemoryCache:
    """A cache in the process, bounded by bytes; the entry used longest ago gives way. Safe to share between threads."""

    def __init__(self, max_bytes: int, ttl_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._entries: TTLCache[CacheKey, bytes] = TTLCache(max_bytes, ttl_seconds, timer=clock, getsizeof=_size)
        self._lock = threading.Lock()
        self._retired = Retired(clock)

    @property
    def n_bytes(self) -> int:
        """Bytes taken."""
        with self._lock:
            self._entries.expire()
            return int(self._entries.currsize)

    async def get(self, keys: Sequence[CacheKey]) -> list[bytes | None]:
        with self._lock:
            return _counted([self._entries.get(key) for key in keys])

    async def put(self, entries: Mapping[CacheKey, bytes]) -> None:
        with self._lock:
            for key, value in entries.items():
                if _size(value) <= self._max_bytes and key.user_key not in self._retired:
                    self._entries[key] = value

    def retire(self, user_keys: Iterable[int]) -> None:
        gone = set(user_keys)
        self._retired.add(gone)
        with self._lock:
            for key in [key for key in self._entries if key.user_key in gone]:
                self._entries.pop(key, None)

    async def forget(self, user_key: int) -> bool:
        return True

    async def close(self) -> None:
        with self._lock:
            self._entries.clear()


class RedisCache:
    """A cache in Redis, shared by all workers of an installation.

    A call takes `timeout` seconds at most, connecting included. One that fails is a miss and counts in
    `warmstart_cache_errors_total`; the server is then left alone for a second, doubled with every further failure up
    to `MAX_PAUSE`, after which one call tries again.

    Values carry their key. A reply that belongs to another request is thus a miss, never another user's state.
    """

    def __init__(
        self,
        url: str,
        ttl_seconds: float,
        max_value_bytes: int,
        *,
        namespace: str = "warmstart",
        timeout: float = 0.05,
        max_connections: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl = max(1, round(ttl_seconds * 1000))
        self._max_value_bytes = max_value_bytes
        self._prefix = f"{namespace}:state:1:"  # raised when the format of values changes
        self._timeout = timeout
        self._breaker = CircuitBreaker(clock)
        self._retired = Retired(clock)
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            url,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            max_connections=max_connections,
            protocol=2,
        )
        self._redis: Redis = Redis.from_pool(pool)

    async def get(self, keys: Sequence[CacheKey]) -> list[bytes | None]:
        names = [self._name(key) for key in keys]
        found: list[bytes | None] | None = await self._ask("get", lambda: self._redis.mget(names)) if names else []
        if found is None:
            return _counted([None] * len(names))
        return _counted([_unpacked(name, packed) for name, packed in zip(names, found, strict=True)])

    async def put(self, entries: Mapping[CacheKey, bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in entries.items():
            if len(value) <= self._max_value_bytes and key.user_key not in self._retired:
                name = self._name(key)
                pipeline.set(name, _packed(name, value), px=self._ttl)
        if len(pipeline):
            await self._ask("put", pipeline.execute)

    def retire(self, user_keys: Iterable[int]) -> None:
        self._retired.add(user_keys)

    async def forget(self, user_key: int) -> bool:
        """Look through all names of this installation, a thousand at a time: erasures are rare, and reading is not."""
        cursor = 0
        while True:
            page = await self._ask("forget", partial(self._scan, cursor, user_key))
            if page is None:
                return False
            cursor, names = page
            if names and await self._ask("forget", partial(self._redis.unlink, *names)) is None:
                return False
            if not cursor:
                return True

    def _scan(self, cursor: int, user_key: int) -> Awaitable[Any]:
        return self._redis.scan(cursor, match=f"{self._prefix}*:{user_key}:*:*", count=1_000)

    async def close(self) -> None:
        with suppress(RedisError, OSError):
            async with asyncio.timeout(1.0):
                await self._redis.aclose()

    def _name(self, key: CacheKey) -> bytes:
        return f"{self._prefix}{key}".encode()

    async def _ask(self, operation: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """The answer to a call, None where there is none."""
        if not self._breaker.allows():
            return None
        try:
            async with asyncio.timeout(self._timeout):
                answer = await call()
        except (RedisError, OSError) as failure:  # TimeoutError is an OSError
            ERRORS.labels(operation).inc()
            pause = self._breaker.failed()
            if pause is not None:
                log.warning("cache_unavailable", operation=operation, error=type(failure).__name__, pause_seconds=pause)
            return None
        except BaseException:
            self._breaker.abandon()
            raise
        self._breaker.succeeded()
        return answer


class Retired:
    """Users of whom nothing is kept any more. Remembered for longer than any request that may still bring something."""

    SECONDS = 3600.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._users: TTLCache[int, None] = TTLCache(100_000, self.SECONDS, timer=clock)

    def add(self, user_keys: Iterable[int]) -> None:
        """Remember these."""
        for user_key in user_keys:
            self._users[user_key] = None

    def __contains__(self, user_key: int) -> bool:
        return user_key in self._users


class CircuitBreaker:
    """Leaves a failing server alone: for `FIRST_PAUSE` seconds, doubling to `MAX_PAUSE`, with one try in between."""

    FIRST_PAUSE = 1.0
    MAX_PAUSE = 30.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = 0.0  # 0 while all is well
        self._until = 0.0
        self._probing = False

    def allows(self) -> bool:
        """Whether a call may be made. After a pause only one may until its outcome is told."""
        if not self._pause:
            return True
        if self._probing or self._clock() < self._until:
            return False
        self._probing = True
        BREAKER.set(1)
        return True

    def succeeded(self) -> None:
        """Tell that a call went well."""
        if self._pause:
            BREAKER.set(0)
        self._pause = 0.0
        self._probing = False

    def failed(self) -> float | None:
        """Tell that a call failed. Seconds of the pause that begins; None where one had begun already.

        Calls that were under way when the first of them failed say nothing new.
        """
        if self._pause and not self._probing:
            return None
        self._pause = min(self._pause * 2, self.MAX_PAUSE) or self.FIRST_PAUSE
        self._until = self._clock() + self._pause
        self._probing = False
        BREAKER.set(2)
        return self._pause

    def abandon(self) -> None:
        """Tell that a call was given up by its caller, which says nothing about the server."""
        self._probing = False


def _size(value: bytes) -> int:
    return len(value) + ENTRY_OVERHEAD


def _packed(name: bytes, value: bytes) -> bytes:
    return _LENGTH.pack(len(name)) + name + value


def _unpacked(name: bytes, packed: bytes | None) -> bytes | None:
    head = _LENGTH.pack(len(name)) + name
    return packed[len(head) :] if packed is not None and packed.startswith(head) else None


def _counted(found: list[bytes | None]) -> list[bytes | None]:
    missing = found.count(None)
    HITS.inc(len(found) - missing)
    MISSES.inc(missing)
    return found

"""How many requests one caller may send: counted in Redis for all workers, or in the process where there is none.

Windows slide: the count of the window before is taken in the share of it that still lies within the last period
(the sliding window counter of the library `limits`).
"""

import asyncio
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.cache import ERRORS, CircuitBreaker

log = structlog.get_logger()

LIMIT_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
"""Requests of one period, those left, and the seconds until there are more."""

TIMEOUT_SECONDS = 0.05
"""For Redis to count one request. After that it is counted in the process."""

MAX_CONNECTIONS = 8
"""To Redis, of one worker; a count takes two short scripts."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a caller stands with their limit."""

    allowed: bool
    limit: int
    """Requests of one period."""
    remaining: int
    reset_seconds: int
    """Until there is more."""

    @property
    def headers(self) -> dict[str, str]:
        """As an answer tells it."""
        figures = map(str, (self.limit, self.remaining, self.reset_seconds))
        told = dict(zip(LIMIT_HEADERS, figures, strict=True))
        return told if self.allowed else told | {"Retry-After": str(self.reset_seconds)}


class RateLimiter:
    """Counts requests. Redis that does not answer costs `TIMEOUT_SECONDS` once in a while and never a request."""

    def __init__(self, redis_url: str | None, namespace: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._timeout = timeout
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared: SlidingWindowCounterRateLimiter | None = None
        self._breaker = CircuitBreaker()
        self._pool: BlockingConnectionPool | None = None
        if redis_url is not None:
            self._pool = BlockingConnectionPool.from_url(
                redis_url,
                max_connections=MAX_CONNECTIONS,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
            )
            storage = RedisStorage(
                f"async+{redis_url}",
                connection_pool=self._pool,  # type: ignore[arg-type]  # it takes one, and declares less
                implementation="redispy",
                key_prefix=f"{namespace}:limits",
            )
            self._shared = SlidingWindowCounterRateLimiter(storage)

    async def hit(self, limit: str, caller: str, *, shared: bool = True) -> Standing:
        """Count a request of a caller; `limit` as in the settings. What is not `shared` is counted by each worker."""
        item = _parsed(limit)
        if shared and self._shared is not None and self._breaker.allows():
            try:
                async with asyncio.timeout(self._timeout):
                    standing = await _hit(self._shared, item, caller)
            except (RedisError, OSError) as failure:  # TimeoutError is an OSError
                ERRORS.labels("limit").inc()
                pause = self._breaker.failed()
                if pause is not None:
                    log.warning("limits_are_local", error=type(failure).__name__, pause_seconds=pause)
            except BaseException:
                self._breaker.abandon()
                raise
            else:
                self._breaker.succeeded()
                return standing
        return await _hit(self._local, item, caller)

    async def close(self) -> None:
        """Let go of connections."""
        if self._pool is not None:
            with suppress(RedisError, OSError):
                async with asyncio.timeout(1.0):
                    await self._pool.aclose()


async def _hit(limiter: SlidingWindowCounterRateLimiter, item: RateLimitItem, caller: str) -> Standing:
    allowed = await limiter.hit(item, caller)
    stats = await limiter.get_window_stats(item, caller)
    return Standing(
        allowed, item.amount, stats.remaining if allowed else 0, max(1, math.ceil(stats.reset_time - time.time()))
    )


@lru_cache(maxsize=1000)
def _parsed(limit: str) -> RateLimitItem:
    return parse(limit)

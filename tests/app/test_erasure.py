"""Erasure: no trace is left, nothing that comes late brings one back, and a crash midway changes nothing of that."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio
from sqlalchemy import select

from app.cache import MemoryCache
from app.services.erase import SWEEP_AFTER_SECONDS
from app.services.upkeep import Upkeep
from app.storage import erasures, tables
from app.storage.records import Erasure
from tests.app.conftest import Service, Start
from tests.app.refusals import refused

LATER = SWEEP_AFTER_SECONDS + 1


@pytest.fixture
def mark() -> str:
    """Stands in everything that is said of somebody."""
    return f"mark{uuid4().hex}"


def rating(mark: str, n: int = 1, **more: Any) -> dict[str, Any]:
    """An event of somebody's that has the mark wherever it can."""
    event = {"user_id": mark, "domain": "films", "item_id": f"item{n}", "value": 4, "event_id": f"{mark}-{n}"}
    return event | {"context": {"device": mark}} | more


async def post(service: Service, *events: dict[str, Any]) -> dict[str, int]:
    """Post events; what became of them."""
    response = await service.http.post("/v1/interactions", json={"interactions": events})
    assert response.is_success, response.text
    answer: dict[str, int] = response.json()
    return answer


async def live(service: Service, mark: str) -> int:
    """Leave a trace wherever one can be left; the user's key."""
    await service.put(f"/v1/users/{mark}", {"attributes": {"group": mark}})
    linear = {"policy": "lin_ucb", "candidates": 16}
    slate = await service.post("/v1/recommendations", {"domain": "films", "user_id": mark, "exploration": linear})
    await service.post("/v1/recommendations", {"domain": "films", "user_id": mark})
    nobodys = await service.post("/v1/cold-start/recommendations", {"domain": "films"})
    shown = {"slate_id": slate["slate_id"], "item_id": slate["items"][0]["item_id"]}
    await service.post("/v1/rewards", {"rewards": [shown | {"value": 1, "event_id": f"{mark}-reward"}]}, 201)
    for n, source in enumerate((slate, nobodys)):
        place = {"slate_id": source["slate_id"], "item_id": source["items"][1]["item_id"]}
        await post(service, rating(mark, n) | place)
    await service.http.post(
        "/v1/interactions", json={"interactions": [rating(mark, 9)]}, headers={"Idempotency-Key": mark}
    )
    await service.get(f"/v1/users/{mark}/recommendations", domain="films")
    async with service.installation.database.read() as connection:
        found = await connection.execute(select(tables.users.c.key).where(tables.users.c.user_id == mark))
        return int(found.scalar_one())


async def traces(service: Service, mark: str, user_key: int) -> list[str]:
    """Where the mark or the user's key is found: in any table, in the cache's server, in the process's cache."""
    found = []
    async with service.installation.database.read(snapshot=True) as connection:
        for name, table in tables.metadata.tables.items():
            rows = (await connection.execute(select(table))).all()
            if mark in repr(rows):
                found.append(name)
            if "user_key" in table.c and name != "erasures" and any(row.user_key == user_key for row in rows):
                found.append(f"{name}.user_key")
    cache = service.installation.cache
    if isinstance(cache, MemoryCache):
        found += [f"cache {key}" for key in cache._entries if key.user_key == user_key]
        found += [f"cache {key}" for key, value in cache._entries.items() if mark.encode() in value]
    else:
        async with redis.asyncio.Redis.from_url(str(service.settings.redis_url)) as server:
            async for key in server.scan_iter():
                if f":{user_key}:".encode() in key or mark.encode() in key + (await server.get(key) or b""):
                    found.append(f"redis {key!r}")
    return found


async def unfinished(service: Service) -> list[Erasure]:
    async with service.installation.database.read() as connection:
        return await erasures.unfinished(connection)


async def test_nothing_is_left(service: Service, mark: str) -> None:
    """At once in tables and caches; what is kept after that are digests and a key that nobody has."""
    user_key = await live(service, mark)
    before = await traces(service, mark, user_key)
    assert {"users", "interactions", "rewards", "slates.user_key"} <= set(before)
    assert any("cache" in one or "redis" in one for one in before)
    await service.delete(f"/v1/users/{mark}")
    assert await traces(service, mark, user_key) == []
    await Upkeep(service.installation).once(time.time() + LATER)
    assert await unfinished(service) == []
    assert await traces(service, mark, user_key) == []
    await service.get(f"/v1/users/{mark}", 404)
    await service.delete(f"/v1/users/{mark}", 404)


async def test_what_is_sent_late_brings_nobody_back(service: Service, mark: str) -> None:
    """The same events again, together and alone, and what occurred before, id or no id."""
    sent = [rating(mark, n) for n in range(3)]
    await post(service, *sent)
    before = time.time()
    await service.delete(f"/v1/users/{mark}")
    old = rating(mark, 7, occurred_at=before - 60)
    nameless = {name: value for name, value in old.items() if name != "event_id"}
    assert await post(service, *sent, old, nameless) == {"accepted": 0, "duplicates": 5}
    for event in sent:
        assert await post(service, event) == {"accepted": 0, "duplicates": 1}
    await service.get(f"/v1/users/{mark}", 404)


async def test_others_in_the_batch_are_stored(service: Service, mark: str, user: str) -> None:
    await post(service, rating(mark))
    await service.delete(f"/v1/users/{mark}")
    other = rating(mark, user_id=user, event_id=f"e-{user}")
    assert await post(service, rating(mark), other) == {"accepted": 1, "duplicates": 1}
    assert len((await service.get(f"/v1/users/{user}"))["interactions"]) == 1


async def test_the_person_may_sign_up_again(service: Service, mark: str) -> None:
    """Under the same id, by attributes or by an event; event ids are free for other content; nothing old comes back."""
    await post(service, rating(mark, 1), rating(mark, 2))
    await service.delete(f"/v1/users/{mark}")
    assert await post(service, rating(mark, 3)) == {"accepted": 1, "duplicates": 0}
    assert await post(service, rating(mark, 1, value=1)) == {"accepted": 1, "duplicates": 0}
    assert await post(service, rating(mark, 2)) == {"accepted": 0, "duplicates": 1}
    known = await service.get(f"/v1/users/{mark}")
    assert [(event["item_id"], event["value"]) for event in known["interactions"]] == [("item3", 4), ("item1", 1)]
    await service.delete(f"/v1/users/{mark}")
    await service.put(f"/v1/users/{mark}", {"attributes": {}})
    assert (await service.get(f"/v1/users/{mark}"))["interactions"] == []


async def begin(service: Service, user_id: str) -> int:
    """Erase as far as a crash right after the first commit would let it come; the user's key."""
    installation = service.installation
    erasure = await installation.database.transact(
        lambda connection: erasures.start(connection, user_id, installation.digests, time.time())
    )
    assert erasure is not None
    return erasure.user_key


async def test_nobody_reads_or_writes_who_is_being_erased(service: Service, mark: str) -> None:
    await live(service, mark)
    await begin(service, mark)
    before = await service.stored()
    response = await service.http.post(
        "/v1/interactions", json={"interactions": [rating("other"), rating(mark, event_id="new")]}
    )
    assert refused(response, "user-erasing")["pointers"] == ["/interactions/1/user_id"]
    assert response.headers["retry-after"]
    body = {"users": [{"user_id": "other"}, {"user_id": mark}]}
    assert refused(await service.http.post("/v1/users", json=body), "user-erasing")["pointers"] == ["/users/1/user_id"]
    refused(await service.http.put(f"/v1/users/{mark}", json={}), "user-erasing")
    refused(await service.http.delete(f"/v1/users/{mark}"), "user-erasing")
    refused(await service.http.get(f"/v1/users/{mark}"), "not-found")
    assert await service.stored() == before
    answer = await service.get(f"/v1/users/{mark}/recommendations", domain="films")
    assert answer["parts"][0]["adaptation"]["support_size"] == 0
    await Upkeep(service.installation).once(time.time())
    assert (await service.http.put(f"/v1/users/{mark}", json={})).status_code == 201


@pytest.mark.parametrize("steps", range(4))
async def test_an_erasure_that_was_interrupted_is_completed(service: Service, mark: str, steps: int) -> None:
    """Whichever transaction was its last one."""
    user_key = await live(service, mark)
    await begin(service, mark)
    installation = service.installation
    for _ in range(steps):
        await installation.database.transact(
            lambda connection: erasures.step(connection, user_key, installation.digests, time.time(), size=1)
        )
    assert await traces(service, mark, user_key) != []
    await Upkeep(installation).once(time.time())
    assert await traces(service, mark, user_key) == []


async def test_a_start_goes_on_where_a_crash_has_stopped(start: Start, mark: str) -> None:
    async with start() as service:
        user_key = await live(service, mark)
        await begin(service, mark)
    async with start() as service:
        while any(erasure.erased_at is None for erasure in await unfinished(service)):
            await service.get("/readyz")  # its first upkeep is under way beside this
        assert await traces(service, mark, user_key) == []


@pytest.fixture
async def two(start: Start, postgres_url: str) -> AsyncIterator[tuple[Service, Service]]:
    """Two workers with a cache each, who share a database."""
    async with start(database_url=postgres_url) as one, start(database_url=postgres_url) as other:
        yield one, other


async def test_every_worker_forgets(two: tuple[Service, Service], mark: str) -> None:
    """With its next look, and a request that is still under way there brings nothing back into its cache."""
    one, other = two
    user_key = await live(one, mark)
    await other.get(f"/v1/users/{mark}/recommendations", domain="films")
    cache = other.installation.cache
    assert isinstance(cache, MemoryCache)
    held = {key: value for key, value in cache._entries.items() if key.user_key == user_key}
    assert held
    await one.delete(f"/v1/users/{mark}")
    await other.installation.fresh()
    assert await traces(other, mark, user_key) == []
    await cache.put(held)
    assert await traces(other, mark, user_key) == []


async def test_a_cache_that_cannot_be_reached_is_swept_when_it_can(start: Start, mark: str, redis_url: str) -> None:
    """Until then the erasure is not finished; a request that put something into it late is followed too."""
    async with start(redis_url=redis_url) as service:
        user_key = await live(service, mark)
        cache = service.installation.cache
        cache._breaker._pause, cache._breaker._until = 3600.0, time.monotonic() + 3600.0  # type: ignore[attr-defined]
        await service.delete(f"/v1/users/{mark}")
        assert all("redis" in one for one in await traces(service, mark, user_key))
        upkeep = Upkeep(service.installation)
        await upkeep.once(time.time() + LATER)
        assert [erasure.user_key for erasure in await unfinished(service)] == [user_key]
        cache._breaker.succeeded()  # type: ignore[attr-defined]
        await upkeep.once(time.time() + LATER)
        assert await traces(service, mark, user_key) == []
        assert await unfinished(service) == []


async def test_digests_expire(start: Start, mark: str) -> None:
    """After that what is sent late is an event like any other."""
    async with start(tombstone_days=1) as service:
        await post(service, rating(mark))
        await service.delete(f"/v1/users/{mark}")
        assert await post(service, rating(mark)) == {"accepted": 0, "duplicates": 1}
        upkeep = Upkeep(service.installation)
        await upkeep.once(time.time() + LATER)
        await upkeep.once(time.time() + 2 * 86_400)
        stored = await service.stored()
        assert (stored["tombstones"], stored["erasures"]) == (0, 0)
        assert await post(service, rating(mark)) == {"accepted": 1, "duplicates": 0}


def files_with(mark: str, folder: Path) -> list[str]:
    return [path.name for path in folder.glob("warmstart.db*") if mark.encode() in path.read_bytes()]


async def test_nothing_is_left_in_the_file(start: Start, mark: str, tmp_path: Path) -> None:
    """SQLite overwrites what it deletes, and its log is emptied."""
    async with start() as service:
        await live(service, mark)
        for n in range(10, 60):
            await post(service, *(rating(mark, n * 20 + i) for i in range(20)))
        assert files_with(mark, tmp_path)
        await service.delete(f"/v1/users/{mark}")
        await Upkeep(service.installation).once(time.time() + LATER)
        assert await unfinished(service) == []
        assert files_with(mark, tmp_path) == []

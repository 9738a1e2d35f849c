"""Writes with an Idempotency-Key: done once, answered the same each time, on both databases."""

import asyncio
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import select

from app.errors import RETRY_AFTER
from app.services.upkeep import Upkeep
from app.storage import idempotency, tables
from app.storage.database import Database
from app.storage.errors import KeyReused, WriteInFlight
from app.storage.records import NamedWrite
from tests.app.conftest import Service, Start
from tests.app.refusals import refused


def clicks(user: str, n: int = 3) -> dict[str, Any]:
    """Events without ids, of which each is a new one however often it is sent."""
    rows = [{"user_id": user, "domain": "films", "item_id": f"item{i}", "kind": "click"} for i in range(n)]
    return {"interactions": rows}


async def send(service: Service, path: str, body: Any, key: str) -> httpx.Response:
    return await service.http.post(path, json=body, headers={"Idempotency-Key": key})


@pytest.fixture
def key() -> str:
    return f"key-{uuid4().hex}"


async def bodies(service: Service, user: str, shop: str) -> dict[str, Any]:
    """One for every route that takes a key."""
    slate = await service.post("/v1/cold-start/recommendations", {"domain": "films"})
    reward = {"slate_id": slate["slate_id"], "item_id": slate["items"][0]["item_id"], "value": 1}
    return {
        "/v1/interactions": clicks(user),
        "/v1/rewards": {"rewards": [reward]},
        "/v1/users": {"users": [{"user_id": user}]},
        "/v1/items": {"items": [{"domain": shop, "item_id": "spoon"}]},
    }


@pytest.mark.parametrize("path", ["/v1/interactions", "/v1/rewards", "/v1/users", "/v1/items"])
async def test_the_same_request_again_gets_the_same_answer(
    service: Service, user: str, shop: str, key: str, path: str
) -> None:
    """Status and body, with a header that tells; nothing is stored."""
    body = (await bodies(service, user, shop))[path]
    first = await send(service, path, body, key)
    stored = await service.stored()
    again = await send(service, path, body, key)
    assert first.is_success
    assert "idempotent-replayed" not in first.headers
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    assert await service.stored() == stored
    assert (await send(service, path, body, f"{key}-2")).headers.get("idempotent-replayed") is None


async def test_a_key_names_one_request(service: Service, user: str, key: str) -> None:
    """Another body or another address under it is refused, and nothing of it stored."""
    assert (await send(service, "/v1/interactions", clicks(user), key)).status_code == 201
    stored = await service.stored()
    refused(await send(service, "/v1/interactions", clicks(user, 2), key), "idempotency-key-reused")
    refused(await send(service, "/v1/users", {"users": [{"user_id": user}]}, key), "idempotency-key-reused")
    assert await service.stored() == stored


async def test_of_a_hundred_at_once_one_is_executed(service: Service, user: str, key: str) -> None:
    """The others are told to wait, or get its answer."""
    before = await service.stored()
    answers = await asyncio.gather(*(send(service, "/v1/interactions", clicks(user), key) for _ in range(100)))
    after = await service.stored()
    assert after["interactions"] - before["interactions"] == 3
    assert after["idempotency"] - before["idempotency"] == 1
    executed = [a for a in answers if a.status_code == 201 and "idempotent-replayed" not in a.headers]
    assert len(executed) == 1
    for answer in answers:
        if answer.status_code != 201:
            refused(answer, "idempotency-in-flight")
            assert answer.headers["retry-after"] == RETRY_AFTER["idempotency-in-flight"]
    assert any(answer.status_code == 409 for answer in answers)


async def test_what_was_refused_leaves_the_key_free(service: Service, user: str, key: str) -> None:
    body = clicks(user)
    body["interactions"][1]["kind"] = "nod"
    refused(await send(service, "/v1/interactions", body, key), "validation-error")
    assert (await send(service, "/v1/interactions", clicks(user), key)).status_code == 201


async def test_what_was_accepted_once_is_answered_though_it_would_be_refused_now(
    service: Service, user: str, shop: str, key: str
) -> None:
    """A kind of event that the domain has given up since."""
    body = {"interactions": [{"user_id": user, "domain": shop, "item_id": "spoon", "kind": "click"}]}
    first = await send(service, "/v1/interactions", body, key)
    await service.put(f"/v1/domains/{shop}", {"kinds": {}}, 200)
    refused(await service.http.post("/v1/interactions", json=body), "validation-error")
    again = await send(service, "/v1/interactions", body, key)
    assert (again.status_code, again.json()) == (201, first.json())


@pytest.mark.parametrize("given", ["", " ", "a b", "a\tb", "x" * 256, "clé".encode("latin-1")])
async def test_what_is_no_key(service: Service, user: str, given: Any) -> None:
    response = await service.http.post("/v1/interactions", json=clicks(user), headers={"Idempotency-Key": given})
    problem = refused(response, "validation-error")
    assert [error["pointer"] for error in problem["errors"]] == ["Idempotency-Key"]


async def test_records_keep_neither_key_nor_body(service: Service, user: str) -> None:
    key = f"import-of-{user}"
    await send(service, "/v1/interactions", clicks(user), key)
    async with service.installation.database.read() as connection:
        rows = (await connection.execute(select(tables.idempotency))).all()
    assert rows
    assert user not in repr(rows)
    assert {"accepted": 3, "duplicates": 0} in [row.result for row in rows]


async def test_records_expire(start: Start, user: str, key: str) -> None:
    """After that the key may be used for anything."""
    async with start(idempotency_hours=1) as service:
        await send(service, "/v1/interactions", clicks(user), key)
        upkeep = Upkeep(service.installation)
        await upkeep.once(time.time() + 3_500)
        assert (await service.stored())["idempotency"] == 1
        await upkeep.once(time.time() + 3_700)
        assert (await service.stored())["idempotency"] == 0
        assert (await send(service, "/v1/interactions", clicks(user, 1), key)).json()["accepted"] == 1


async def test_another_worker_is_told_to_wait(postgres_url: str) -> None:
    """Workers on Postgres share nothing else: the name is locked until the transaction ends, and then it is done."""
    write = NamedWrite("ab" * 16, "cd" * 16)
    one, other = await Database.open(postgres_url), await Database.open(postgres_url)
    try:
        async with one.write() as first:
            assert await idempotency.begin(first, write) is None
            async with other.write() as second:
                with pytest.raises(WriteInFlight):
                    await idempotency.begin(second, write)
            await idempotency.keep(first, write, {"accepted": 1}, 0.0)
        async with other.write() as second:
            assert await idempotency.begin(second, write) == {"accepted": 1}
            with pytest.raises(KeyReused):
                await idempotency.begin(second, NamedWrite(write.name, "ef" * 16))
    finally:
        await one.close()
        await other.close()

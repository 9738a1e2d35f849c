"""A service that asks for keys, and callers with and without them."""

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from app.security import ApiKey, Scope, digest_of, new_key
from app.services import access
from app.storage import keys
from app.storage.database import Database
from tests.app.conftest import Service, Start


async def expired_key(database: Database) -> str:
    """A key with all scopes whose time is over."""
    key_id, key = new_key()
    now = time.time()
    async with database.write() as connection:
        await keys.add(connection, ApiKey(key_id, "old", digest_of(key), frozenset(Scope), now - 2, now - 1))
    return key


async def revoked_key(database: Database) -> str:
    """A key with all scopes that was revoked."""
    key = await access.create(database, "gone", Scope)
    assert await access.revoke(database, key.split("_")[1])
    return key


def bearer(key: str) -> dict[str, str]:
    """The header that a key is sent in."""
    return {"authorization": f"Bearer {key}"}


async def callers_without_a_key(database: Database, good: str) -> dict[str, dict[str, Any]]:
    """What is sent along by callers who are all told the same; `good` is a key that opens everything."""
    return {
        "nothing": {},
        "an empty header": {"headers": {"authorization": ""}},
        "a scheme alone": {"headers": {"authorization": "Bearer"}},
        "another scheme": {"headers": {"authorization": f"Basic {good}"}},
        "no scheme": {"headers": {"authorization": good}},
        "a key that is no key": {"headers": bearer("canary")},
        "a key of 100,000 characters": {"headers": bearer("canary" * 4000)},
        "a key with bytes in it": {"headers": {"authorization": f"Bearer {good}".encode() + b"\xff"}},
        "an unknown key": {"headers": bearer(new_key()[1])},
        "an unknown key as of a file": {"headers": bearer(secrets.token_hex(32))},
        "the id of a key with another secret": {"headers": bearer(good[:-1] + ("a" if good[-1] != "a" else "b"))},
        "a revoked key": {"headers": bearer(await revoked_key(database))},
        "an expired key": {"headers": bearer(await expired_key(database))},
        "a key in the address": {"params": {"key": good}},
        "a key in the address and the header": {"params": {"key": good}, "headers": bearer(good)},
        "two keys": {"headers": [("authorization", f"Bearer {good}"), ("authorization", f"Bearer {good}")]},
    }


@asynccontextmanager
async def locked(start: Start, **settings: Any) -> AsyncIterator[tuple[Service, dict[Scope, str]]]:
    """A service with a key of each scope; its own client has none of them."""
    settings.setdefault("refused_rate_limit", "")
    async with start((), **settings) as service:
        database = service.installation.database
        yield service, {scope: await access.create(database, scope, [scope]) for scope in Scope}


async def ask(http: httpx.AsyncClient, method: str, path: str, **sent: Any) -> httpx.Response:
    """A request to a route by its template; it says too little to be answered with more than a refusal of its own."""
    return await http.request(method, path.replace("{", "no-such-").replace("}", ""), **sent)


async def token_of(service: Service, key: str, user_id: str, ttl_seconds: int = 900) -> str:
    """A token for a user, made over HTTP."""
    body = {"user_id": user_id, "ttl_seconds": ttl_seconds}
    response = await service.http.post("/v1/tokens", json=body, headers=bearer(key))
    assert response.status_code == 201, response.text
    token: str = response.json()["token"]
    return token

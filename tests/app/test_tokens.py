"""Tokens of users: a browser reaches what is its own user's and nothing else, for a while."""

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest

from app.api.access import ACCESS
from app.security import Scope
from app.services import access, tokens
from tests.app.conftest import Service, Start
from tests.app.keyed import ask, bearer, locked, token_of
from tests.app.refusals import refused

ME, OTHER = "me/mañana", "somebody else"
AT_ME = "/v1/users/me%2Fma%C3%B1ana"
AT_OTHER = "/v1/users/somebody%20else"

Locked = tuple[Service, dict[Scope, str]]


@pytest.fixture
async def keyed(start: Start, database_url: str) -> AsyncIterator[Locked]:
    """A service that asks for keys, with a domain, an item, and two users who rated it."""
    async with locked(start, database_url=database_url, user_rate_limit="") as (service, scoped):
        headers = bearer(scoped[Scope.ADMIN])
        await service.http.put("/v1/domains/films", json={}, headers=headers)
        rows = [
            {"event_id": f"of {who}", "user_id": who, "domain": "films", "item_id": "item1", "value": 4}
            for who in (ME, OTHER)
        ]
        made = await service.http.post("/v1/interactions", json={"interactions": rows}, headers=headers)
        assert made.status_code == 201
        yield service, scoped


def about(user_id: str) -> list[tuple[str, str, Any]]:
    """Every sort of request that speaks of a user: method, path, body."""
    at = AT_ME if user_id == ME else AT_OTHER
    row = {"user_id": user_id, "domain": "films", "item_id": "item1", "value": 5}
    return [
        ("GET", f"{at}/recommendations?domain=films", None),
        ("POST", "/v1/recommendations", {"domain": "films", "user_id": user_id}),
        ("POST", "/v1/predictions", {"domain": "films", "user_id": user_id, "items": ["item1"]}),
        ("POST", "/v1/interactions", {"interactions": [row]}),
        ("PUT", at, {"attributes": {"age": 30}}),
        ("GET", at, None),
        ("GET", f"{at}/slates", None),
        ("GET", f"{at}/export", None),
        ("DELETE", at, None),
    ]


OF_NOBODY: list[tuple[str, str, Any]] = [
    ("GET", "/v1/domains", None),
    ("GET", "/v1/items/films", None),
    ("GET", "/v1/items/films/item1", None),
    ("GET", "/v1/items/films/item1/similar", None),
    ("POST", "/v1/cold-start/recommendations", {"domain": "films"}),
    ("POST", "/v1/cold-start/questions", {"domain": "films"}),
    ("POST", "/v1/recommendations", {"domain": "films", "user": {"support": []}}),
    ("POST", "/v1/predictions", {"domain": "films", "user": {}, "items": ["item1"]}),
]


async def test_a_token_reaches_its_own_user(keyed: Locked) -> None:
    service, scoped = keyed
    headers = bearer(await token_of(service, scoped[Scope.INGEST], ME))
    for method, path, body in [*OF_NOBODY, *about(ME)]:
        response = await service.http.request(method, path, json=body, headers=headers)
        assert response.status_code in (200, 201, 204), (method, path, response.text)


async def test_a_token_reaches_nobody_else(keyed: Locked) -> None:
    """0 of all sorts of requests about another user are answered, and nothing of theirs changes."""
    service, scoped = keyed
    headers = bearer(await token_of(service, scoped[Scope.INGEST], ME))
    before = await service.stored()
    for method, path, body in about(OTHER):
        refused(await service.http.request(method, path, json=body, headers=headers), "insufficient-scope")
    mine = {"user_id": ME, "domain": "films", "item_id": "item1", "value": 1}
    mixed = {"interactions": [mine, mine | {"user_id": OTHER}]}
    refused(await service.http.post("/v1/interactions", json=mixed, headers=headers), "insufficient-scope")
    theirs = await service.http.delete("/v1/interactions/of%20somebody%20else", headers=headers)
    refused(theirs, "not-found")
    assert await service.stored() == before
    assert (await service.http.delete("/v1/interactions/of%20me%2Fma%C3%B1ana", headers=headers)).status_code == 204


async def test_every_other_route_is_closed_to_tokens(keyed: Locked) -> None:
    """Every route of the table: 403 where it is not for tokens, and for those that name a user, who is another one."""
    service, scoped = keyed
    headers = bearer(await token_of(service, scoped[Scope.ADMIN], ME))
    deviations = []
    for route, who in ACCESS.items():
        method, path = route.split()
        response = await ask(service.http, method, path, headers=headers)
        closed = who.scope is not None and (who.own is None or "user_id" in who.own)
        if (response.status_code == 403) != closed or response.status_code == 401:
            deviations.append((route, response.status_code))
    assert deviations == []
    assert ACCESS["POST /v1/tokens"].own is None
    assert all(who.own is None for route, who in ACCESS.items() if "/admin/" in route or "{user_id}/merge" in route)


def forged(token: str, **changes: Any) -> str:
    """The token with other claims under the signature that it has."""
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "==")) | changes
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.{signature}"


async def test_a_token_cannot_be_made_up(keyed: Locked) -> None:
    """Changed claims, no algorithm, another secret, another audience, no expiry, one of the past, half of it."""
    service, scoped = keyed
    good = await token_of(service, scoped[Scope.INGEST], ME)
    keyring = await service.installation.keyring()
    (secret,) = keyring.token_secrets
    claims = {"sub": ME, "key": scoped[Scope.INGEST].split("_")[1], "aud": "warmstart", "exp": int(time.time()) + 60}
    assert keyring.caller(jwt.encode(claims, secret, "HS256"), time.time()) is not None
    bad = [
        forged(good, sub=OTHER),
        forged(good, exp=int(time.time()) + 10**6),
        jwt.encode(claims, None, "none"),
        jwt.encode(claims, b"x" * 32, "HS256"),
        jwt.encode(claims, secret + secret, "HS512"),
        jwt.encode(claims | {"aud": "another"}, secret, "HS256"),
        jwt.encode({name: value for name, value in claims.items() if name != "exp"}, secret, "HS256"),
        jwt.encode(claims | {"exp": int(time.time()) - 1}, secret, "HS256"),
        jwt.encode(claims | {"key": "0" * 16}, secret, "HS256"),
        jwt.encode(claims | {"key": ""}, secret, "HS256"),
        good.rpartition(".")[0] + ".",
        good[:-4],
        "..",
    ]
    for token in bad:
        refused(await service.http.get("/v1/domains", headers=bearer(token)), "unauthorized")


async def test_a_token_ends_with_the_key_that_made_it(keyed: Locked) -> None:
    service, scoped = keyed
    headers = bearer(await token_of(service, scoped[Scope.INGEST], ME))
    assert (await service.http.get(AT_ME, headers=headers)).status_code == 200
    assert await access.revoke(service.installation.database, scoped[Scope.INGEST].split("_")[1])
    refused(await service.http.get(AT_ME, headers=headers), "unauthorized")


async def test_secrets_rotate(keyed: Locked) -> None:
    """Tokens of the secret before still hold, those of the one before that do not; or all end at once."""
    service, scoped = keyed
    database = service.installation.database
    holding = []
    for at_once in (False, False, True):
        headers = bearer(await token_of(service, scoped[Scope.INGEST], ME))
        await tokens.rotate(database, at_once=at_once)
        holding.append(headers)
        statuses = [(await service.http.get(AT_ME, headers=headers)).status_code for headers in holding]
        assert statuses == [401] * len(holding) if at_once else [401] * (len(holding) - 1) + [200]
    assert (await service.http.get(AT_ME, headers=bearer(scoped[Scope.READ]))).status_code == 200


async def test_who_may_make_tokens(keyed: Locked) -> None:
    service, scoped = keyed
    body = {"user_id": ME}
    refused(await service.http.post("/v1/tokens", json=body, headers=bearer(scoped[Scope.READ])), "insufficient-scope")
    mine = bearer(await token_of(service, scoped[Scope.INGEST], ME))
    refused(await service.http.post("/v1/tokens", json=body, headers=mine), "insufficient-scope")
    for ttl_seconds in (0, -1, 86_401, 1.5, "60", True):
        bad = {"user_id": ME, "ttl_seconds": ttl_seconds}
        refused(
            await service.http.post("/v1/tokens", json=bad, headers=bearer(scoped[Scope.ADMIN])), "validation-error"
        )


async def test_names_of_writes_are_each_callers_own(keyed: Locked) -> None:
    """The same `Idempotency-Key` from a key and from tokens of two users is three writes, none another's answer."""
    service, scoped = keyed
    tokens_of = [await token_of(service, scoped[Scope.INGEST], who) for who in (ME, OTHER)]
    callers = [(scoped[Scope.INGEST], "third"), (tokens_of[0], ME), (tokens_of[1], OTHER)]
    for key, who in callers:
        row = {"user_id": who, "domain": "films", "item_id": "item1", "value": 2}
        sent = {"json": {"interactions": [row]}, "headers": bearer(key) | {"idempotency-key": "the-same"}}
        first = await service.http.post("/v1/interactions", **sent)
        again = await service.http.post("/v1/interactions", **sent)
        assert (first.status_code, first.json()["accepted"]) == (201, 1)
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"

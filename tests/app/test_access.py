"""Who is let in: every route against every sort of caller, and what a key is."""

import io
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi import APIRouter
from fastapi.routing import iter_route_contexts
from sqlalchemy import Engine, event

from app.api.access import ACCESS, ADMIN, EVERYBODY, READ
from app.api.parsing import StrictRoute
from app.main import create_app
from app.security import BOOTSTRAP, Scope, digest_of, new_key
from app.services import access
from app.settings import Settings
from app.storage import keys
from tests.app.conftest import Service, Start
from tests.app.keyed import ask, bearer, callers_without_a_key, locked
from tests.app.refusals import ECHO, refused

ALLOWED = {
    Scope.READ: {Scope.READ},
    Scope.INGEST: {Scope.INGEST},
    Scope.ADMIN: {Scope.READ, Scope.INGEST, Scope.ADMIN},
}
"""What a key of one scope may do."""
OF_EVERYBODY = {"GET /", "GET /admin", "GET /docs", "GET /assets/{digest}/{name}", "GET /livez", "GET /readyz"}
OF_THE_FRAMEWORK = {"/openapi.json"}


@pytest.fixture
def keyed(start: Start, database_url: str) -> Any:
    """`locked` on either database."""
    return locked(start, database_url=database_url)


# Every route


def test_every_route_says_who_may_use_it_and_no_other() -> None:
    routes = {
        f"{method} {route.path}"
        for route in iter_route_contexts(create_app(Settings()).routes)
        for method in route.methods or ()
        if route.path not in OF_THE_FRAMEWORK
    }
    assert set(ACCESS) == routes


def test_a_route_that_says_nothing_cannot_be_made() -> None:
    router = APIRouter(route_class=StrictRoute)

    async def get_nothing() -> None:
        """Nothing."""

    with pytest.raises(LookupError, match=r"app/api/access\.py"):
        router.add_api_route("/v1/nothing", get_nothing)


def test_what_is_for_everybody_and_what_is_for_operators() -> None:
    """And nobody who may only read can change anything: what they POST are questions."""
    assert {route for route, who in ACCESS.items() if who == EVERYBODY} == OF_EVERYBODY
    assert all(who == ADMIN for route, who in ACCESS.items() if " /v1/admin" in route)
    questions = ("/recommendations", "/questions", "/predictions")
    for route, who in ACCESS.items():
        if who == READ and not route.startswith("GET "):
            assert route.startswith("POST ")
            assert route.endswith(questions)


async def test_every_route_against_every_caller(keyed: Any) -> None:
    """0 deviations: 401 without a key that holds, 403 without the scope, else whatever the route has to say."""
    deviations = []
    asked = 0
    async with keyed as (service, scoped):
        strangers = await callers_without_a_key(service.installation.database, scoped[Scope.ADMIN])
        for route, who in ACCESS.items():
            method, path = route.split()
            callers: dict[str, tuple[dict[str, Any], set[int]]] = {
                name: (sent, set() if who.scope is None else {401}) for name, sent in strangers.items()
            }
            for scope, key in scoped.items():
                may = who.scope is None or who.scope in ALLOWED[scope]
                callers[scope] = ({"headers": bearer(key)}, set() if may else {403})
            for name, (sent, expected) in callers.items():
                response = await ask(service.http, method, path, **sent)
                asked += 1
                refusal = {response.status_code} & {401, 403}
                if refusal != expected or response.status_code == 500:
                    deviations.append((route, name, response.status_code))
    print(f"\n{len(ACCESS)} routes, {asked} requests, {len(deviations)} deviations")
    assert deviations == []


async def test_all_who_have_no_key_are_told_the_same(keyed: Any) -> None:
    """Whether a key is unknown, revoked or expired is nobody's business; nothing of what was sent comes back."""
    async with keyed as (service, scoped):
        strangers = await callers_without_a_key(service.installation.database, scoped[Scope.ADMIN])
        answers = {name: await ask(service.http, "GET", "/v1/domains", **sent) for name, sent in strangers.items()}
        for name, response in answers.items():
            refused(response, "unauthorized")
            assert response.headers["www-authenticate"] == 'Bearer realm="warmstart"', name
            assert not any(key in response.text for key in scoped.values())
        assert len({response.content for response in answers.values()}) == 1


async def test_who_has_another_scope_is_told_which(keyed: Any) -> None:
    async with keyed as (service, scoped):
        response = await service.http.get("/v1/admin/checkpoints", headers=bearer(scoped[Scope.READ]))
        refused(response, "insufficient-scope")
        challenge = 'Bearer realm="warmstart", error="insufficient_scope", scope="admin"'
        assert response.headers["www-authenticate"] == challenge


async def test_nothing_is_read_of_a_request_that_is_refused(keyed: Any) -> None:
    """A body that would be refused as well is not looked at."""
    async with keyed as (service, _):
        before = await service.stored()
        for content in (b"{", b'{"interactions": [{"user_id": "canary"}]}'):
            refused(await service.http.post("/v1/interactions", content=content), "unauthorized")
        assert await service.stored() == before


# From the next request on


async def test_a_revoked_key_is_refused_by_every_worker_from_its_next_request_on(
    start: Start, database_url: str
) -> None:
    async with (
        locked(start, database_url=database_url) as (service, scoped),
        start((), database_url=database_url) as other,
    ):
        for scope, key in scoped.items():
            headers = bearer(key)
            path = "/v1/admin/arms?domain=x" if scope is Scope.ADMIN else "/v1/domains"
            assert (await other.http.get(path, headers=headers)).status_code != 401
            assert await access.revoke(service.installation.database, key.split("_")[1])
            refused(await other.http.get(path, headers=headers), "unauthorized")
            refused(await service.http.get(path, headers=headers), "unauthorized")


async def test_the_first_key_closes_a_running_service_and_the_last_one_does_not_open_it(
    start: Start, database_url: str
) -> None:
    async with start((), database_url=database_url) as service:
        await service.get("/v1/domains")
        key = await access.create(service.installation.database, "the only one", [Scope.READ])
        refused(await service.http.get("/v1/domains"), "unauthorized")
        assert (await service.http.get("/v1/domains", headers=bearer(key))).status_code == 200
        assert await access.revoke(service.installation.database, key.split("_")[1])
        refused(await service.http.get("/v1/domains"), "unauthorized")


async def test_a_key_is_good_until_it_expires(keyed: Any) -> None:
    async with keyed as (service, _):
        soon = float(round(time.time()) + 60)
        key = await access.create(service.installation.database, "short", [Scope.READ], soon)
        keyring = await service.installation.keyring()
        assert keyring.caller(key, soon - 0.001) is not None
        assert keyring.caller(key, soon) is None


async def test_a_key_costs_no_query_of_its_own(start: Start, postgres_url: str) -> None:
    """Nor do the revisions, of which the key check reads those that the answer goes by."""
    asked: list[str] = []

    def heard(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    async with locked(start, database_url=postgres_url) as (service, scoped):
        headers = bearer(scoped[Scope.ADMIN])
        await service.http.put("/v1/domains/films", json={}, headers=headers)
        await service.http.put("/v1/items/films/item1", json={}, headers=headers)
        body = {"domain": "films", "user": {}}
        event.listen(Engine, "before_cursor_execute", heard)
        try:
            for _ in range(2):
                asked.clear()
                response = await service.http.post("/v1/recommendations", json=body, headers=headers)
                assert [item["item_id"] for item in response.json()["items"]] == ["item1"]
        finally:
            event.remove(Engine, "before_cursor_execute", heard)
        assert sum("FROM revisions" in statement for statement in asked) == 1
        assert not any("api_keys" in statement for statement in asked)


# A service without keys


ELSEWHERE = {
    "from another machine": ("203.0.113.7", "localhost:8000"),
    "from a private network": ("192.168.1.5", "localhost:8000"),
    "from another machine, IPv6": ("2001:db8::1", "[::1]:8000"),
    "under a name that points here": ("127.0.0.1", "canary.example:8000"),
    "under an address of this machine for others": ("127.0.0.1", "192.168.1.5:8000"),
    "without a name": ("127.0.0.1", ""),
}
HERE = {
    "by address": ("127.0.0.1", "127.0.0.1:8000"),
    "by name": ("127.0.0.1", "localhost"),
    "by IPv6": ("::1", "[::1]:8000"),
    "by another loopback address": ("127.0.0.2", "127.0.0.2"),
}


async def _domains(service: Service, client: str, host: str) -> httpx.Response:
    transport = httpx.ASGITransport(service.app, raise_app_exceptions=False, client=(client, 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.get("/v1/domains", headers={"host": host})


async def test_without_keys_only_this_machine_is_answered(start: Start) -> None:
    """By its own names: a page elsewhere can make a name of its own point here, and would be let in by it."""
    async with start(()) as service:
        for client, host in HERE.values():
            assert (await _domains(service, client, host)).status_code == 200, (client, host)
        for client, host in ELSEWHERE.values():
            refused(await _domains(service, client, host), "unauthorized")


async def test_with_a_proxy_in_front_everybody_is_answered(start: Start) -> None:
    async with start((), access="proxy") as service:
        await access.create(service.installation.database, "unused", [Scope.READ])
        for client, host in ELSEWHERE.values():
            assert (await _domains(service, client, host)).status_code == 200


async def test_keys_may_be_asked_for_before_there_are_any(start: Start) -> None:
    async with start((), access="keys") as service:
        refused(await service.http.get("/v1/domains"), "unauthorized")
        await service.get("/livez")


# What is kept of a key


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir() if path.is_file()]


async def test_nothing_of_a_key_is_kept(start: Start, tmp_path: Path) -> None:
    """Not in the database, nor in its log, whatever was asked with it."""
    async with locked(start) as (service, scoped):
        for key in scoped.values():
            for route in ACCESS:
                method, path = route.split()
                await ask(service.http, method, path, headers=bearer(key))
                await ask(service.http, method, path, params={"key": key})
    files = contents(tmp_path)
    assert any(digest_of(key) in content for key in scoped.values() for content in files)
    for key in scoped.values():
        secret = key.split("_", 2)[2].encode()
        assert not any(secret in content for content in files)


def test_keys_are_256_random_bits() -> None:
    made = {new_key() for _ in range(1000)}
    assert len({key_id for key_id, _ in made}) == len({key for _, key in made}) == 1000
    for key_id, key in made:
        assert key.startswith(f"wsk_{key_id}_")
        assert len(key.split("_", 2)[2]) == 43  # of 6 bits each


# The first key of a container


def write_key(file: Path, key: str) -> Path:
    file.write_text(f"{key}\n", encoding="utf-8")
    return file


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return write_key(tmp_path / "admin.key", "a1" * 32)


async def test_a_file_brings_the_first_key(start: Start, database_url: str, key_file: Path) -> None:
    """With all scopes; another content takes its place; one that was revoked stays so at the next start."""
    settings = {"database_url": database_url, "bootstrap_admin_key_file": key_file}
    async with start((), **settings) as service:
        refused(await service.http.get("/v1/domains"), "unauthorized")
        for path in ("/v1/domains", "/v1/admin/checkpoints"):
            assert (await service.http.get(path, headers=bearer("a1" * 32))).status_code == 200
    write_key(key_file, "b2" * 32)
    async with start((), **settings) as service:
        refused(await service.http.get("/v1/domains", headers=bearer("a1" * 32)), "unauthorized")
        assert (await service.http.get("/v1/domains", headers=bearer("b2" * 32))).status_code == 200
        assert await access.revoke(service.installation.database, BOOTSTRAP)
    async with start((), **settings) as service:
        refused(await service.http.get("/v1/domains", headers=bearer("b2" * 32)), "unauthorized")
        async with service.installation.database.read() as connection:
            assert await keys.count(connection) == 1


@pytest.mark.parametrize("content", ["", "short", "a b" * 20, "é" * 40, "wsk_" + "a" * 60, "a" * 201])
async def test_a_file_without_a_key_stops_the_start(start: Start, tmp_path: Path, content: str) -> None:
    file = write_key(tmp_path / "bad.key", content)
    with pytest.raises(access.UnusableKeyFile):
        async with start((), bootstrap_admin_key_file=file):
            pass
    with pytest.raises(access.UnusableKeyFile):
        async with start((), bootstrap_admin_key_file=tmp_path / "nowhere.key"):
            pass


# Addresses to listen on


async def test_which_addresses_may_be_listened_on(database_url: str, key_file: Path) -> None:
    """Those of others only where somebody asks for keys."""
    alone = Settings(database_url=database_url)
    assert not await access.may_listen_anywhere(alone)
    for asking in ({"access": "keys"}, {"access": "proxy"}, {"bootstrap_admin_key_file": key_file}):
        assert await access.may_listen_anywhere(Settings(database_url=database_url, **asking))  # type: ignore[arg-type]


# Pages of others


ORIGIN = "https://shop.example"


async def test_pages_of_other_origins_are_let_in_by_setting_only(start: Start) -> None:
    preflight = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    async with start(()) as service:
        refused(await service.http.options("/v1/interactions", headers=preflight), "method-not-allowed")
        response = await service.http.get("/v1/domains", headers={"origin": ORIGIN})
        assert not [name for name in response.headers if name.startswith("access-control")]
    async with locked(start, cors_origins=f"{ORIGIN}, https://other.example") as (service, scoped):
        allowed = await service.http.options("/v1/interactions", headers=preflight)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
        assert "access-control-allow-credentials" not in allowed.headers
        stranger = preflight | {"origin": "https://evil.example"}
        assert (await service.http.options("/v1/interactions", headers=stranger)).status_code == 400
        for headers, status in ((bearer(scoped[Scope.READ]), 200), ({}, 401)):
            response = await service.http.get("/v1/domains", headers={"origin": ORIGIN} | headers)
            assert response.status_code == status
            assert response.headers["access-control-allow-origin"] == ORIGIN
            assert "ratelimit-remaining" in response.headers["access-control-expose-headers"].lower()
        response = await service.http.get("/v1/domains", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in response.headers


async def test_nobody_may_keep_an_answer_or_guess_its_type(keyed: Any) -> None:
    """Refusals and answers alike; files of the page say themselves how long they are good."""
    async with keyed as (service, scoped):
        for path in ("/v1/domains", "/v1/users/ada", "/nowhere", "/livez", "/"):
            for headers in ({}, bearer(scoped[Scope.READ])):
                response = await service.http.get(path, headers=headers)
                assert response.headers["cache-control"] == "no-store", path
                assert response.headers["x-content-type-options"] == "nosniff", path


async def test_a_mistake_of_ours_says_nothing_but_its_id(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the log has the rest, under the same id."""
    logged = io.StringIO()
    monkeypatch.setattr("app.errors.log", structlog.wrap_logger(structlog.PrintLogger(logged)))
    async with start(()) as service:
        del service.app.state.deployments
        body = {"domain": ECHO, "role": "content"}
        response = await service.http.post("/v1/admin/checkpoints/rollback", json=body)
        problem = refused(response, "internal-error")
        assert set(problem) == {"type", "title", "status"}
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-request-id"] in logged.getvalue()
        assert (await service.get("/v1/admin/audit"))["acts"][1]["status"] == 500

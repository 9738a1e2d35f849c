"""The record of admin acts: one row a call, refused ones too, and nothing in it that is secret or about anybody."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.api.access import ACCESS
from app.cli import app as command_line
from app.security import Scope
from app.services.upkeep import DAY, Upkeep
from tests.app.conftest import Service, Start
from tests.app.keyed import ask, bearer, callers_without_a_key, locked, token_of
from tests.app.refusals import ECHO, refused

ADMIN_ROUTES = [route for route, who in ACCESS.items() if who.scope is Scope.ADMIN]


async def acts(service: Service, key: str) -> list[dict[str, Any]]:
    """All that is on record, the newest first, without the call that reads it."""
    response = await service.http.get("/v1/admin/audit?limit=1000", headers=bearer(key))
    assert response.status_code == 200
    listed: list[dict[str, Any]] = response.json()["acts"]
    assert listed[0]["route"] == "/v1/admin/audit"
    return listed[1:]


async def test_each_call_of_an_admin_route_is_one_row(start: Start, database_url: str) -> None:
    """With what the caller was told, and under the id that the answer has; the other routes have none."""
    async with locked(start, database_url=database_url) as (service, scoped):
        admin = scoped[Scope.ADMIN]
        token = await token_of(service, admin, "me")
        strangers = await callers_without_a_key(service.installation.database, admin)
        before = await acts(service, admin)
        callers = [*strangers.values(), *({"headers": bearer(key)} for key in (*scoped.values(), token))]
        told = []
        for route in ACCESS:
            method, path = route.split()
            for n, sent in enumerate(callers):
                response = await ask(service.http, method, path, **sent)
                if route in ADMIN_ROUTES:
                    known = n >= len(strangers)
                    told.append((method, path, response.headers["x-request-id"], response.status_code, known))
        after = await acts(service, admin)
        added = after[: len(after) - len(before) - 1]  # the call that read `before` is one as well
        rows = [
            (act["method"], act["route"], act["request_id"], act["status"], act["key_id"] is not None)
            for act in reversed(added)
        ]
        assert rows == told
        assert {row[3] for row in rows} >= {200, 401, 403, 415, 422}
        print(f"\n{len(told)} calls of {len(ADMIN_ROUTES)} admin routes, {len(rows)} rows")


async def test_what_an_act_came_to_is_on_record(start: Start) -> None:
    """Done, refused by the route, refused for the key; who, and nothing of what was sent."""
    async with locked(start) as (service, scoped):
        key, reader = scoped[Scope.ADMIN], scoped[Scope.READ]
        done = await service.http.put(f"/v1/domains/{ECHO}", json={"title": ECHO}, headers=bearer(key))
        assert done.status_code == 201
        body = {"domain": ECHO, "checkpoint": "../canary"}
        path = "/v1/admin/checkpoints/reload"
        refused(await service.http.post(path, json=body, headers=bearer(key)), "invalid-checkpoint-id")
        refused(await service.http.post(path, content=b"{", headers=bearer(key)), "unsupported-media-type")
        refused(await service.http.post(path, json=body, headers=bearer(reader)), "insufficient-scope")
        refused(await service.http.post(path, json=body), "unauthorized")
        rows = await acts(service, key)
        ids = [k.split("_")[1] for k in (key, reader)]
        assert [(act["route"], act["status"], act["problem"], act["key_id"]) for act in rows[:5]] == [
            (path, 401, "unauthorized", None),
            (path, 403, "insufficient-scope", ids[1]),
            (path, 415, "unsupported-media-type", ids[0]),
            (path, 422, "invalid-checkpoint-id", ids[0]),
            ("/v1/domains/{domain}", 201, None, ids[0]),
        ]
        assert ECHO not in str(rows)
        assert not any(k.split("_", 2)[2] in str(rows) for k in scoped.values())


async def test_an_act_that_cannot_be_recorded_is_not_done(start: Start) -> None:
    """Nobody gets to change a domain past the record."""
    async with start(()) as service:
        async with service.installation.database.write() as connection:
            await connection.exec_driver_sql(
                "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(FAIL, ''); END"
            )
        response = await service.http.put("/v1/domains/d", json={})
        assert response.status_code in (500, 503)
        assert await service.get("/v1/domains") == []


async def test_acts_come_in_pages(start: Start) -> None:
    async with start(()) as service:
        for n in range(7):
            await service.put(f"/v1/domains/d{n}", {})
        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            page = await service.get("/v1/admin/audit", limit=3, **({"cursor": cursor} if cursor else {}))
            seen += [act["route"] for act in page["acts"] if act["method"] == "PUT"]
            assert len(page["acts"]) <= 3
            cursor = page["next_cursor"]
        assert seen == ["/v1/domains/{domain}"] * 7


async def test_reads_that_were_answered_may_be_left_out(start: Start, database_url: str) -> None:
    """By page too; those that were refused stay."""
    async with start((), database_url=database_url) as service:
        for n in range(4):
            await service.put(f"/v1/domains/d{n}", {})
            await service.get("/v1/admin/exploration")
            await service.get("/v1/admin/audit", 422, limit=0)
        seen: list[tuple[str, int]] = []
        more: dict[str, str] = {}
        while True:
            page = await service.get("/v1/admin/audit", limit=3, reads="false", **more)
            seen += [(act["method"], act["status"]) for act in page["acts"]]
            if page["next_cursor"] is None:
                break
            more = {"cursor": page["next_cursor"]}
        assert seen == [("GET", 422), ("PUT", 201)] * 4


async def test_old_acts_leave_the_record(start: Start) -> None:
    async with start((), audit_retention_days=30) as service:
        await service.put("/v1/domains/d", {})
        assert (await service.stored())["audit"] == 1
        upkeep = Upkeep(service.installation)
        await upkeep.once(time.time() + 29 * DAY)
        assert (await service.stored())["audit"] == 1
        await upkeep.once(time.time() + 31 * DAY)
        assert (await service.stored())["audit"] == 0


async def test_keys_made_on_the_command_line_are_on_record(start: Start, sqlite_url: str) -> None:
    def run(*words: str) -> str:
        return CliRunner().invoke(command_line, ["keys", *words, "--database-url", sqlite_url]).stdout.strip()

    async with start(()) as service:
        key = await asyncio.to_thread(run, "create", "--name", "x", "--scope", "admin")
        key_id = key.split("_")[1]
        await asyncio.to_thread(run, "revoke", key_id)
        other = await asyncio.to_thread(run, "create", "--name", "y", "--scope", "admin")
        rows = [(act["method"], act["route"]) for act in await acts(service, other)]
        assert rows[1:] == [("COMMAND", f"keys revoke {key_id}"), ("COMMAND", f"keys create {key_id}")]


async def test_what_is_taken_out_and_in_on_the_command_line_is_on_record(
    start: Start, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed has no status."""
    monkeypatch.setenv("WARMSTART_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("WARMSTART_DATA_DIR", str(tmp_path))
    async with start(()) as service:
        await service.put("/v1/domains/shop", {})
        await service.rate("ada", {"a": 4}, "shop")
        for words, code in (
            (["export", str(tmp_path / "out")], 0),
            (["import", str(tmp_path / "nowhere")], 2),
            (["import", str(tmp_path / "out")], 0),
            (["arms", "rebuild"], 0),
        ):
            done = await asyncio.to_thread(CliRunner().invoke, command_line, words)
            assert done.exit_code == code, done.output
        acts = (await service.get("/v1/admin/audit"))["acts"]
        assert [(act["route"], act["status"]) for act in acts if act["method"] == "COMMAND"] == [
            ("arms rebuild", 200),
            ("import", 200),
            ("import", None),
            ("export", 200),
        ]

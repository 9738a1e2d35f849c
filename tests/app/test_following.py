"""Two workers on one database: nothing is wanted before it is true, and each takes only what passes its own gates."""

import asyncio
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from app.services import following
from app.storage.database import Database
from models.recommender import Evidence, ItemTable
from models.registry import RECOMMENDERS
from tests.app.conftest import Service, Start, running
from tests.app.refusals import refused
from tests.app.test_cache import metric

RELOAD = "/v1/admin/checkpoints/reload"
ROLLBACK = "/v1/admin/checkpoints/rollback"
PLACE = {"domain": "films", "role": "collaborative"}

REFUSE_DECISIONS = {
    "sqlite": ["CREATE TRIGGER refuse BEFORE INSERT ON deployments BEGIN SELECT RAISE(FAIL, ''); END"],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON deployments EXECUTE FUNCTION refuse()",
    ],
}


@pytest.fixture
async def workers(start: Start, database_url: str, tmp_path: Path) -> AsyncIterator[tuple[Service, Service]]:
    """Two, each with a folder of its own for the same checkpoints; both serve `bias`."""
    async with start(("popularity", "bias"), database_url=database_url, follow_seconds=0.05) as one:
        other = tmp_path / "other"
        shutil.copytree(one.settings.checkpoints, other / "checkpoints")
        async with running(one.settings.model_copy(update={"data_dir": other})) as two:
            yield one, two


def collaborative(service: Service) -> tuple[str, str]:
    """Name and digest of what a worker has in service."""
    now = service.installation.runtime.now
    name = now.deployed["films", "collaborative"]
    return name, now.served[name].digest


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so."""
    async with asyncio.timeout(30):
        while not await reached():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


async def behind(service: Service) -> Any:
    return (await service.get("/readyz"))["behind"]


def replaced(folder: Path, name: str, by: str) -> None:
    """Put another checkpoint, whole and in order, under a name."""
    shutil.rmtree(folder / name)
    shutil.copytree(folder / by, folder / name)


# what is wanted is true


async def test_nothing_is_wanted_that_could_not_be_taken_into_service(
    workers: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step before the commit fails: no row, nothing for others to follow, the old one answers."""
    one, two = workers
    before = await one.stored()

    def fails(*_: object) -> None:
        raise ArithmeticError

    monkeypatch.setattr(one.installation.runtime, "prepared", fails)
    response = await one.http.post(RELOAD, json=PLACE | {"checkpoint": "popularity"})
    assert response.status_code == 500
    assert (await one.stored())["deployments"] == before["deployments"]
    assert {collaborative(one)[0], collaborative(two)[0]} == {"bias"}
    monkeypatch.undo()
    await one.post(RELOAD, PLACE | {"checkpoint": "popularity"})
    assert collaborative(one)[0] == "popularity"


async def test_nothing_is_in_service_that_could_not_be_recorded(workers: tuple[Service, Service]) -> None:
    """The commit fails: neither worker has changed, and afterwards a reload goes through."""
    one, two = workers
    database = one.installation.database
    kind = "sqlite" if database.is_sqlite else "postgresql"
    async with database.write() as connection:
        for statement in REFUSE_DECISIONS[kind]:
            await connection.exec_driver_sql(statement)
    response = await one.http.post(RELOAD, json=PLACE | {"checkpoint": "popularity"})
    if not database.is_sqlite:
        refused(response, "storage-unavailable")
    assert response.status_code >= 500
    assert {collaborative(one)[0], collaborative(two)[0]} == {"bias"}
    async with database.write() as connection:
        await connection.exec_driver_sql("DROP TRIGGER refuse" + (" ON deployments" if kind != "sqlite" else ""))
    await one.post(RELOAD, PLACE | {"checkpoint": "popularity"})
    await until(lambda: _serves(two, "popularity"))
    assert collaborative(one) == collaborative(two)


async def _serves(service: Service, name: str) -> bool:
    return collaborative(service)[0] == name


# what a worker follows


async def test_a_worker_does_not_follow_to_another_file_of_that_name(
    workers: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on serving the old one and says that it is behind, until the file is what was decided about."""
    monkeypatch.setattr(following, "RETRY_LOAD_SECONDS", 0.2)
    one, two = workers
    kept = collaborative(two)
    replaced(two.settings.checkpoints, "popularity", by="bias")
    failed = metric("warmstart_reloads_total", result="failed")
    await one.post(RELOAD, PLACE | {"checkpoint": "popularity"})

    async def told() -> bool:
        return bool(await behind(two))

    await until(told)
    assert await behind(two) == [PLACE | {"checkpoint": "popularity", "problem": "checkpoint-digest-mismatch"}]
    assert await behind(one) == []
    assert metric("warmstart_checkpoints_behind") == 1
    assert metric("warmstart_reloads_total", result="failed") > failed
    assert collaborative(two) == kept
    answer = await two.post("/v1/cold-start/recommendations", {"domain": "films"})
    assert [part["checkpoint"] for part in answer["parts"]] == ["bias"]
    shutil.rmtree(two.settings.checkpoints / "popularity")
    shutil.copytree(one.settings.checkpoints / "popularity", two.settings.checkpoints / "popularity")
    await until(lambda: _serves(two, "popularity"))
    assert collaborative(two) == collaborative(one)
    assert await behind(two) == []
    assert metric("warmstart_checkpoints_behind") == 0


async def test_a_worker_holds_what_it_follows_to_the_gates(
    workers: tuple[Service, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has less memory, and one for which the checkpoint's answers are not steady."""
    monkeypatch.setattr(following, "RETRY_LOAD_SECONDS", 0.2)
    one, two = workers
    two.installation.runtime.max_bytes = 1000
    await one.post(RELOAD, PLACE | {"checkpoint": "popularity"})

    async def told(problem: str) -> bool:
        return [lag["problem"] for lag in await behind(two)] == [problem]

    await until(lambda: told("checkpoint-too-large"))
    assert collaborative(two)[0] == "bias"

    kind = RECOMMENDERS["popularity"]
    steady = kind.adapt

    def adapt(self: Any, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        return steady(self, evidence, table, target) + torch.rand(1)

    monkeypatch.setattr(kind, "adapt", adapt)
    two.installation.runtime.max_bytes = 2**31
    await until(lambda: told("checkpoint-unsteady"))
    assert collaborative(two)[0] == "bias"
    monkeypatch.undo()
    await until(lambda: _serves(two, "popularity"))


async def test_a_rollback_takes_what_was_in_service_and_nothing_else_of_that_name(
    workers: tuple[Service, Service],
) -> None:
    one, _ = workers
    await one.post(RELOAD, PLACE | {"checkpoint": "popularity"})
    replaced(one.settings.checkpoints, "bias", by="popularity")
    refused(await one.http.post(ROLLBACK, json=PLACE), "checkpoint-digest-mismatch")
    assert collaborative(one)[0] == "popularity"


async def test_a_name_stands_for_one_checkpoint_in_all_places(workers: tuple[Service, Service]) -> None:
    one, _ = workers
    kept = collaborative(one)
    replaced(one.settings.checkpoints, "bias", by="popularity")
    body = {"domain": "films", "role": "adaptive", "checkpoint": "bias"}
    refused(await one.http.post(RELOAD, json=body), "checkpoint-digest-mismatch")
    assert collaborative(one) == kept
    done = await one.post(RELOAD, PLACE | {"checkpoint": "bias"})
    assert done["digest"] != kept[1]
    assert collaborative(one) == ("bias", done["digest"])


# one at a time


async def test_twenty_reloads_at_once_are_one(workers: tuple[Service, Service]) -> None:
    """At both workers: each loads the checkpoint once, one decides, the others are told that somebody does."""
    one, two = workers
    before = await one.stored()
    loads = metric("warmstart_reloads_total", result="ok")
    body = PLACE | {"checkpoint": "popularity"}
    answers = await asyncio.gather(*((one, two)[n % 2].http.post(RELOAD, json=body) for n in range(20)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 409}
    assert statuses[200] >= 1
    assert {a.json()["type"] for a in answers if a.status_code == 409} <= {"/problems/reload-in-progress"}
    await until(lambda: _serves(two, "popularity"))
    await until(lambda: _serves(one, "popularity"))
    assert (await one.stored())["deployments"] == before["deployments"] + 1
    assert metric("warmstart_reloads_total", result="ok") == loads + 2


async def test_what_is_in_service_is_not_loaded_again(workers: tuple[Service, Service]) -> None:
    """Asked for at either worker, one of which may not have followed yet."""
    one, two = workers
    done = await one.post(RELOAD, PLACE | {"checkpoint": "popularity"})
    assert done["previous"] == "bias"
    before = await one.stored()
    for service in (two, one, two):
        again = await service.post(RELOAD, PLACE | {"checkpoint": "popularity"})
        assert again == done | {"previous": "popularity"}
        assert collaborative(service) == ("popularity", done["digest"])
    assert (await one.stored())["deployments"] == before["deployments"]


async def test_what_one_process_claims_no_other_has_until_it_ends(database_url: str) -> None:
    """Whether it lets go or is killed."""
    one, two = await Database.open(database_url), await Database.open(database_url)
    try:
        async with one.claim("a") as mine, two.claim("a") as theirs, two.claim("b") as other:
            assert (mine, theirs, other) == (True, False, True)
        async with two.claim("a") as theirs:
            assert theirs
        holder = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOLDER, database_url, stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"True\n"
        async with one.claim("a") as mine:
            assert not mine
        holder.kill()
        await holder.wait()

        async def free() -> bool:
            async with one.claim("a") as mine:
                return mine

        await until(free)
    finally:
        await one.close()
        await two.close()


HOLDER = """
import asyncio, sys
from app.storage.database import Database

async def hold():
    database = await Database.open(sys.argv[1])
    async with database.claim("a") as mine:
        print(mine, flush=True)
        sys.stdin.read()

asyncio.run(hold())
"""

"""A checkpoint on trial answers nobody, and is compared with what serves."""

import asyncio
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from app.services import shadow
from models.recommender import Evidence, ItemTable
from models.registry import RECOMMENDERS
from tests.app.conftest import Service, Start
from tests.app.refusals import refused
from tests.app.test_bad_checkpoints import flipped
from tests.app.test_cache import metric

RELOAD = "/v1/admin/checkpoints/reload"
ROLLBACK = "/v1/admin/checkpoints/rollback"
PLACE = {"domain": "films", "role": "collaborative"}
SUPPORT = [{"item_id": "item3", "value": 5}, {"item_id": "item10", "value": 1}]
ITEMS = [f"item{n}" for n in range(0, 80, 4)]
LIST = {"domain": "films", "support": SUPPORT, "k": 10}


async def try_out(service: Service, name: str) -> Any:
    return await service.post(RELOAD, PLACE | {"checkpoint": name, "shadow": True})


async def predictions(service: Service) -> list[float]:
    body = {"domain": "films", "user": {"support": SUPPORT}, "items": ITEMS}
    return [one["rating"] for one in (await service.post("/v1/predictions", body))["predictions"]]


async def trials(service: Service) -> list[dict[str, Any]]:
    listed = await service.get("/v1/admin/checkpoints")
    return [{"checkpoint": entry["checkpoint"]} | trial for entry in listed for trial in entry["trials"]]


async def seen(service: Service, answers: int, count: Callable[[dict[str, Any]], int]) -> dict[str, Any]:
    """The one trial, once so many answers are counted."""
    async with asyncio.timeout(30):
        while count((await trials(service))[0]) < answers:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
    (trial,) = await trials(service)
    return trial


def all_of_them(trial: dict[str, Any]) -> int:
    counted: int = trial["compared"] + trial["failed"] + trial["dropped"]
    return counted


async def test_a_trial_serves_nobody_and_says_how_it_differs(start: Start) -> None:
    """By exactly as much as its predictions do once it is in service."""
    async with start(("popularity", "bias"), shadow_share=1) as service:
        before = await service.stored()
        done = await try_out(service, "popularity")
        assert (done["checkpoint"], done["previous"], done["shadow"]) == ("popularity", "bias", True)
        assert (await service.stored())["deployments"] == before["deployments"]
        compared = metric("warmstart_shadow_comparisons_total", result="compared")
        serving = await predictions(service)
        trial = await seen(service, 1, all_of_them)
        assert (trial["checkpoint"], trial["compared"], trial["overlap"]) == ("popularity", 1, None)
        assert metric("warmstart_shadow_comparisons_total", result="compared") == compared + 1
        first = await service.post("/v1/cold-start/recommendations", LIST)
        assert [part["checkpoint"] for part in first["parts"]] == ["bias"]
        with_list = await seen(service, 2, all_of_them)
        assert with_list["serving_seconds"] > 0
        assert with_list["seconds"] > 0
        await service.post(RELOAD, PLACE | {"checkpoint": "popularity"})
        assert await trials(service) == []
        differences = np.abs(np.array(serving) - np.array(await predictions(service)))
        assert trial["difference"] == pytest.approx(differences.mean(), abs=1e-3)
        second = await service.post("/v1/cold-start/recommendations", LIST)
        ids = [{item["item_id"] for item in slate["items"]} for slate in (first, second)]
        assert with_list["overlap"] == pytest.approx(len(ids[0] & ids[1]) / 10)


async def test_a_copy_of_what_serves_differs_in_nothing(start: Start) -> None:
    async with start(("bias",), shadow_share=1) as service:
        folder = service.settings.checkpoints
        shutil.copytree(folder / "bias", folder / "copy")
        await try_out(service, "copy")
        await predictions(service)
        await service.post("/v1/cold-start/recommendations", LIST)
        trial = await seen(service, 2, all_of_them)
        assert (trial["compared"], trial["difference"], trial["overlap"]) == (2, 0, 1)


async def test_a_trial_that_fails_fails_nobody(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        raise ArithmeticError

    async with start(("popularity", "bias"), shadow_share=1, probation_seconds=60) as service:
        await try_out(service, "popularity")
        monkeypatch.setattr(RECOMMENDERS["popularity"], "adapt", fails)
        assert len(await predictions(service)) == len(ITEMS)
        trial = await seen(service, 1, all_of_them)
        assert (trial["failed"], trial["compared"], trial["difference"]) == (1, 0, None)
        assert [entry["role"] for entry in (await service.get("/v1/domains"))[0]["parts"]] == ["collaborative"]


async def test_what_comes_too_fast_is_not_compared(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """And answered all the same."""
    monkeypatch.setattr(shadow, "WAITING", 1)
    async with start(("popularity", "bias"), shadow_share=1, max_wait_seconds=30) as service:
        await try_out(service, "popularity")
        await asyncio.gather(*(predictions(service) for _ in range(40)))
        trial = await seen(service, 40, all_of_them)
        assert trial["failed"] == 0
        assert trial["dropped"] > 0


async def test_trials_take_a_share_and_pass_the_gates(start: Start) -> None:
    async with start(("popularity", "bias")) as service:
        body = PLACE | {"checkpoint": "popularity", "shadow": True}
        problem = refused(await service.http.post(RELOAD, json=body), "validation-error")
        assert problem["errors"][0]["pointer"] == "/shadow"
    async with start((), shadow_share=0.5) as service:
        refused(await service.http.post(RELOAD, json=body | {"gate": {}}), "validation-error")
        flipped(service.settings.checkpoints / "popularity")
        refused(await service.http.post(RELOAD, json=body), "checkpoint-digest-mismatch")
        assert await trials(service) == []


async def test_a_trial_is_ended_by_a_rollback_of_it(start: Start) -> None:
    async with start(("popularity", "bias"), shadow_share=1) as service:
        end = PLACE | {"shadow": True}
        refused(await service.http.post(ROLLBACK, json=end), "nothing-to-roll-back")
        await try_out(service, "popularity")
        assert (await service.post(ROLLBACK, end))["checkpoint"] == "popularity"
        assert await trials(service) == []
        now = service.installation.runtime.now.deployed
        assert now["films", "collaborative"] == "bias"

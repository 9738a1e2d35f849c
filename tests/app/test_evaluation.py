"""Evaluation on the service's own log, and the gate before a promotion, over HTTP."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from models import checkpoint
from models.recommender import FitOptions, Fitted
from models.training.train import train
from tests.app.conftest import Service, Start
from tests.laws.entries import ENTRIES
from tests.laws.world import World

GATE = {"epsilon": 0, "effective_samples": 30, "confidence": 0.95}
"""For greedy slates, whatever the domain explores with."""


@pytest.fixture(scope="module")
def planted(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    """(a folder with `good`, which puts films in order, and `bad`, which puts them upside down; the films that `good`
    puts first, those that it puts last)."""
    folder = tmp_path_factory.mktemp("planted")
    made = train("bias", ENTRIES["bias"].settings, world.training, FitOptions(device="cpu"))
    table = made.fitted.table
    for name, sign in (("good", 1.0), ("bad", -1.0)):
        columns = {**table.columns, "bias": sign * table["bias"]}
        fitted = Fitted(replace(table, columns=columns), made.fitted.report)
        checkpoint.save(
            folder / name,
            made.recommender,
            fitted,
            world.training,
            metrics={},
            seed=0,
            fit_seconds=made.seconds,
            code_version="0",
        )
    order = table["bias"].argsort(descending=True).tolist()
    ids = world.training.items.ids
    return folder, [ids[i] for i in order[:4]], [ids[i] for i in order[-4:]]


async def shown(service: Service, ids: list[str], good: list[str], per_user: int, k: int = 1) -> None:
    """Only `ids` are on offer; 50 people get slates, and a film of `good` earns 1, another one nothing."""
    listed = (await service.get("/v1/items/films", limit=1000))["items"]
    rows = [
        {**{name: item[name] for name in ("domain", "item_id", "title", "attributes")}, "available": False}
        for item in listed
        if item["item_id"] not in ids
    ]
    await service.post("/v1/items", {"items": rows})
    people = [f"person-{n}" for n in range(50)]
    await service.post("/v1/users", {"users": [{"user_id": person} for person in people]})
    rewards: list[dict[str, Any]] = []
    for person in people:
        for _ in range(per_user):
            slate = await service.post("/v1/recommendations", {"domain": "films", "user_id": person, "k": k})
            rewards += [
                {"slate_id": slate["slate_id"], "item_id": i["item_id"], "value": float(i["item_id"] in good)}
                for i in slate["items"]
            ]
    for start in range(0, len(rewards), 500):
        await service.post("/v1/rewards", {"rewards": rewards[start : start + 500]}, 201)


async def explore(service: Service, epsilon: float) -> None:
    body = {"domain": "films", "exploration": {"policy": "epsilon_greedy", "epsilon": epsilon}}
    await service.put("/v1/admin/exploration", body, 200)


async def in_service(service: Service) -> str:
    """The checkpoint that serves the films."""
    (domain,) = await service.get("/v1/domains")
    (part,) = domain["parts"]
    return str(part["checkpoint"])


async def reload(service: Service, name: str, status: int = 200, **gate: Any) -> Any:
    body = {"domain": "films", "checkpoint": name} | ({"gate": gate} if gate else {})
    return await service.post("/v1/admin/checkpoints/reload", body, status)


async def test_the_gate_refuses_a_worse_checkpoint_and_accepts_a_better_one(
    start: Start, planted: tuple[Path, list[str], list[str]], tmp_path: Path
) -> None:
    folder, best, worst = planted
    (tmp_path / "checkpoints").symlink_to(folder)
    async with start(checkpoints=()) as service:
        await reload(service, "good")
        await explore(service, 1.0)
        await shown(service, best + worst, best, per_user=12)

        refused = await reload(service, "bad", 409, **GATE)
        assert refused["type"] == "/problems/gate-not-passed"
        assert refused["difference"] < -0.5
        assert refused["low"] < refused["difference"]
        assert await in_service(service) == "good"

        await reload(service, "bad")
        accepted = await reload(service, "good", **GATE)
        assert (accepted["checkpoint"], accepted["previous"]) == ("good", "bad")
        # The same again earns the same: nothing is lower.
        assert (await reload(service, "good", **GATE))["checkpoint"] == "good"

        few = await reload(service, "bad", 409, **GATE | {"effective_samples": 1000})
        assert few["type"] == "/problems/too-few-samples"
        assert few["missing"] == pytest.approx(1000 - few["effective_samples"], abs=0.11)
        assert 30 < few["effective_samples"] < 150

        said = await service.post("/v1/admin/evaluations", {"domain": "films", "checkpoint": "bad", "epsilon": 0})
        value = {
            name: {e["estimator"]: e["value"] for e in said[name]["estimates"]} for name in ("present", "candidate")
        }
        assert value["present"]["dr"] == pytest.approx(1, abs=0.1)
        assert value["candidate"]["dr"] == pytest.approx(0, abs=0.1)
        assert said["comparison"]["difference"] == pytest.approx(
            value["candidate"]["dr"] - value["present"]["dr"], abs=1e-5
        )
        assert (said["replayed"], said["present"]["places"]) == (600, 600)


async def test_the_policy_that_logged_is_worth_what_it_earned(
    start: Start, planted: tuple[Path, list[str], list[str]], tmp_path: Path
) -> None:
    """Every place of its slates has the weight 1, the first and the later ones: each estimate is the mean reward."""
    folder, best, worst = planted
    (tmp_path / "checkpoints").symlink_to(folder)
    async with start(checkpoints=()) as service:
        await reload(service, "good")
        await explore(service, 0.5)
        await shown(service, best + worst, best, per_user=2, k=3)
        await service.rate("person-0", {best[0]: 5, worst[0]: 1})
        said = await service.post("/v1/admin/evaluations", {"domain": "films", "places": 3})
        (logged,) = said["policies"]
        assert (logged["policy"], logged["slates"], logged["judged"]) == ("epsilon_greedy", 100, 300)
        assert (said["epsilon"], said["replayed"]) == (0.5, 100)
        assert said["present"]["effective_samples"] == pytest.approx(300)
        assert said["present"]["invalid_share"] == 0
        for estimate in said["present"]["estimates"]:
            if estimate["estimator"] != "dr":
                assert estimate["value"] == pytest.approx(logged["reward"], abs=1e-6)


async def test_the_command_says_what_the_route_says(
    start: Start, planted: tuple[Path, list[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`warmstart ope` on the installation of a service that has stopped."""
    folder, best, worst = planted
    (tmp_path / "checkpoints").symlink_to(folder)
    async with start(checkpoints=()) as service:
        await reload(service, "good")
        await explore(service, 1.0)
        await shown(service, best + worst, best, per_user=2)
        body = {"domain": "films", "checkpoint": "bad", "epsilon": 0}
        said = await service.post("/v1/admin/evaluations", body)
        settings = service.settings
    monkeypatch.setenv("WARMSTART_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("WARMSTART_DATABASE_URL", settings.database)
    monkeypatch.setenv("WARMSTART_DEVICE", "cpu")
    asked = ["ope", "--domain", "films", "--checkpoint", "bad", "--epsilon", "0"]
    result = await asyncio.to_thread(CliRunner().invoke, app, asked)
    assert result.exit_code == 0, result.output
    assert f"{said['comparison']['difference']}" in result.stdout
    for estimate in said["candidate"]["estimates"]:
        assert f"{estimate['value']:.5f}" in result.stdout
    refused = await asyncio.to_thread(CliRunner().invoke, app, ["ope", "--domain", "nothing"])
    assert (refused.exit_code, "no domain has that name" in refused.stderr) == (2, True)


async def test_slates_without_propensities_or_users_say_nothing(
    start: Start, planted: tuple[Path, list[str], list[str]], tmp_path: Path
) -> None:
    """Greedy slates have no propensities, and nobody knows whose a cold start was: all samples are missing."""
    folder, best, worst = planted
    (tmp_path / "checkpoints").symlink_to(folder)
    async with start(checkpoints=()) as service:
        await reload(service, "good")
        await shown(service, best + worst, best, per_user=1)
        few = await reload(service, "bad", 409, **GATE)
        assert (few["effective_samples"], few["missing"]) == (0, 30)
        for _ in range(3):
            await service.post("/v1/cold-start/recommendations", {"domain": "films", "k": 2})
        chosen = {"domain": "films", "user_id": "person-0", "filters": {"include_items": best}, "k": 1}
        await service.post("/v1/recommendations", chosen)
        said = await service.post("/v1/admin/evaluations", {"domain": "films"})
        assert said["policies"][0]["slates"] == 54
        assert said["replayed"] == 50
        assert said["present"] is None
        unknown = await service.post("/v1/admin/evaluations", {"domain": "nothing"}, 422)
        assert unknown["errors"][0]["pointer"] == "/domain"

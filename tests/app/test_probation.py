"""What a checkpoint must pass before it comes into service, and what puts it out of service again."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from app.engine import batching
from app.engine.answering import Answer, Question, answer
from app.services.probation import ENOUGH, FAILURES, MEMORY, Probation
from app.settings import Settings
from models.recommender import Evidence, ItemTable
from models.registry import RECOMMENDERS
from tests.app.conftest import Service, Start, running
from tests.app.refusals import refused
from tests.app.test_cache import Clock

RELOAD = "/v1/admin/checkpoints/reload"


async def ask(service: Service) -> str:
    """Name of the collaborative checkpoint that answers; empty where none did."""
    response = await service.http.post("/v1/cold-start/recommendations", json={"domain": "films"})
    if response.status_code != 200:
        return ""
    return next(part["checkpoint"] for part in response.json()["parts"] if part["role"] == "collaborative")


# before


async def test_a_checkpoint_that_draws_at_random_while_it_serves_is_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = RECOMMENDERS["popularity"]
    steady = kind.adapt

    def adapt(self: Any, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        return steady(self, evidence, table, target) + torch.rand(1)

    async with start(("bias", "popularity")) as service:
        await service.post(RELOAD, {"domain": "films", "checkpoint": "bias", "role": "collaborative"})
        monkeypatch.setattr(kind, "adapt", adapt)
        response = await service.http.post(RELOAD, json={"domain": "films", "checkpoint": "popularity"})
        refused(response, "checkpoint-unsteady")
        assert await ask(service) == "bias"


async def test_a_checkpoint_that_is_too_large_is_refused(start: Start) -> None:
    async with start(("bias", "popularity")) as service:
        await service.post(RELOAD, {"domain": "films", "checkpoint": "bias", "role": "collaborative"})
        service.installation.runtime.max_bytes = 1000
        response = await service.http.post(RELOAD, json={"domain": "films", "checkpoint": "popularity"})
        refused(response, "checkpoint-too-large")
        assert await ask(service) == "bias"


async def test_a_worker_follows_without_being_asked(start: Start) -> None:
    """A reload at one application reaches another on the same database while nobody asks that for anything."""
    async with start(("bias", "popularity")) as one, running(one.settings) as idle:
        await one.post(RELOAD, {"domain": "films", "checkpoint": "bias", "role": "collaborative"})
        async with asyncio.timeout(30):
            while "bias" not in idle.installation.runtime.now.served:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)


# after


class Verdicts:
    """What a `Probation` asked to be withdrawn."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    async def __call__(self, domain: str, role: str, name: str) -> bool:
        self.asked.append((domain, role, name))
        return True


async def watched(before: float, after: Sequence[float | None], clock: Clock | None = None) -> int:
    """How often a checkpoint is put out of service, by how long answers took before it and after; None is a failure."""
    probation, verdicts = Probation(60.0, 3.0, clock or Clock()), Verdicts()
    probation.withdraw = verdicts
    for _ in range(MEMORY):
        probation.answered("films", before)
    probation.begin("films", "collaborative", "new")
    for seconds in after:
        if seconds is None:
            probation.failed("films")
        else:
            probation.answered("films", seconds)
    await probation.close()
    assert set(verdicts.asked) <= {("films", "collaborative", "new")}
    return len(verdicts.asked)


async def test_failures_put_a_checkpoint_out_once() -> None:
    assert await watched(0.01, [None] * 3 * FAILURES) == 1


async def test_a_failure_among_many_answers_does_not() -> None:
    assert await watched(0.01, [0.01] * 500 + [None] * FAILURES) == 0


async def test_answers_that_take_far_longer_put_a_checkpoint_out() -> None:
    assert await watched(0.01, [0.2] * ENOUGH) == 1
    assert await watched(0.01, [0.02] * MEMORY) == 0
    assert await watched(0.2, [0.3] * MEMORY) == 0


async def test_after_its_time_nothing_is_held_against_a_checkpoint() -> None:
    clock = Clock()
    probation, verdicts = Probation(60.0, 3.0, clock), Verdicts()
    probation.withdraw = verdicts
    probation.begin("films", "collaborative", "new")
    clock.now += 61
    for _ in range(3 * FAILURES):
        probation.failed("films")
    await probation.close()
    assert not verdicts.asked


class Failing:
    """The engine, failing at every question that a checkpoint is the collaborative part of."""

    def __init__(self) -> None:
        self.bad = ""

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        parts = [part for question in questions for part in question.domain.parts]
        if any(part.served.name == self.bad and part.role == "collaborative" for part in parts):
            raise ArithmeticError
        return answer(questions)


async def test_a_checkpoint_that_fails_is_put_out_by_the_service_itself(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On record as a decision; and where the one before fails as well, the two do not take turns for ever."""
    engine = Failing()
    monkeypatch.setattr(batching, "answer", engine.answer)
    async with start(("bias", "popularity", "content"), probation_seconds=600) as service:
        for name in ("popularity", "content"):
            await service.post(RELOAD, {"domain": "films", "checkpoint": name, "role": "collaborative"})
        decisions = (await service.stored())["deployments"]
        engine.bad = "content"
        asked = 0
        while not await ask(service):
            asked += 1
            assert asked < 200
        assert asked >= FAILURES
        assert await ask(service) == "popularity"
        assert (await service.stored())["deployments"] == decisions + 1
        audit = await service.get("/v1/admin/audit")
        acts = [act for act in audit["acts"] if act["method"] == "SERVICE"]
        told = [(act["route"], act["status"], act["key_id"]) for act in acts]
        assert told[0] == ("checkpoints withdraw content", 200, None), "the newest"
        assert {route.rpartition(" ")[0] for route, _, _ in told[1:]} == {"checkpoints adopt"}, "at the start"
        engine.bad = "popularity"
        for _ in range(4 * FAILURES):
            assert not await ask(service)
        await service.installation.probation.close()
        assert (await service.stored())["deployments"] == decisions + 1


def test_probation_is_on_unless_it_is_turned_off() -> None:
    assert Settings().probation_seconds > 0

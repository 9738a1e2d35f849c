"""Exploration over HTTP: settings that every worker follows, slates that say how they were chosen, rewards."""

import asyncio
import time
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli import app as cli
from app.engine.policies.settings import Exploration
from app.services.upkeep import Upkeep
from app.storage import arms, slates
from tests.app.conftest import Service, Start, item_ids
from tests.app.refusals import refused

COLD = "/v1/cold-start/recommendations"
SUPPORT = [{"item_id": "item3", "value": 5}, {"item_id": "item10", "value": 1}]


async def cold(service: Service, policy: str | None = None, **settings: Any) -> Any:
    body: dict[str, Any] = {"domain": "films", "support": SUPPORT, "k": 5}
    if policy:
        body["exploration"] = {"policy": policy, **settings}
    return await service.post(COLD, body)


async def put(service: Service, status: int = 200, **body: Any) -> Any:
    return await service.put("/v1/admin/exploration", {"domain": "films"} | body, status)


async def reward(service: Service, slate_id: str, values: dict[str, float], status: int = 201) -> Any:
    rows = [{"slate_id": slate_id, "item_id": item_id, "value": value} for item_id, value in values.items()]
    return await service.post("/v1/rewards", {"rewards": rows}, status)


async def films(service: Service) -> dict[tuple[str, str], dict[str, Any]]:
    """Arms by (item id, policy), read page by page."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await service.get("/v1/admin/arms", domain="films", limit=7, **cursor)
        found += page["arms"]
        if page["next_cursor"] is None:
            return {(arm["item_id"], arm["policy"]): arm for arm in found}
        cursor = {"cursor": page["next_cursor"]}


async def check(service: Service) -> None:
    """Arms are what the log says."""
    async with service.installation.database.read(snapshot=True) as connection:
        assert await arms.differences(connection) == []


# slates


@pytest.mark.parametrize("policy", ["epsilon_greedy", "ucb", "thompson", "lin_ucb", "lin_thompson"])
async def test_a_slate_is_logged_as_it_was_answered(service: Service, policy: str) -> None:
    """With all that it takes to choose it again: settings, seed, what was open, digests, scores and propensities."""
    answer = await cold(service, policy, epsilon=0.25)
    assert answer["exploration"]["policy"] == policy
    assert answer["exploration"]["propensity_valid"] is True
    async with service.installation.database.read() as connection:
        (logged,) = (await slates.get(connection, [answer["slate_id"]])).values()
    assert logged.policy["policy"] == policy
    assert logged.policy["epsilon"] == 0.25
    assert logged.policy["seed"] == answer["exploration"]["seed"]
    assert logged.policy["catalogue"] == service.installation.runtime.now.catalogue.revision
    assert len(logged.policy["open"]) == 16
    assert [item.item_id for item in logged.items] == item_ids(answer)
    for item, shown in zip(logged.items, answer["items"], strict=True):
        assert item.score == pytest.approx(shown["score"], abs=1e-4)
        assert (item.propensity, item.explored) == (shown["propensity"], shown["explored"])
        assert item.propensity is not None
        assert 0.25 / 80 <= item.propensity <= 1
    assert [part["digest"] for part in logged.parts] == [part["digest"] for part in answer["parts"]]
    if "thompson" in policy:
        assert logged.policy["samples"] == answer["exploration"]["samples"] == 100
    if "lin" in policy:
        assert logged.policy["context"]["digest"] == answer["parts"][0]["digest"]


async def test_greedy_is_the_default_and_says_nothing_of_chance(service: Service) -> None:
    for answer in (await cold(service), await cold(service, "greedy")):
        assert answer["exploration"] == {"policy": "greedy", "propensity_valid": False}
        assert all(item["propensity"] is None and not item["explored"] for item in answer["items"])


async def test_exploring_answers_keep_to_filters(service: Service) -> None:
    body = {
        "domain": "films",
        "k": 5,
        "filters": {"include_items": [f"item{i}" for i in range(20)], "exclude_items": ["item4"]},
        "exploration": {"policy": "epsilon_greedy", "epsilon": 1.0},
    }
    allowed = {f"item{i}" for i in range(20)} - {"item4"}
    for _ in range(10):
        answer = await service.post(COLD, body)
        assert set(item_ids(answer)) <= allowed
        assert answer["items"][0]["propensity"] == pytest.approx(1 / 19)


async def test_a_domain_without_checkpoints_explores_too(service: Service, shop: str) -> None:
    items = [{"domain": shop, "item_id": f"i{i}", "attributes": {"year": i}} for i in range(20)]
    await service.post("/v1/items", {"items": items})
    for policy in ("epsilon_greedy", "ucb", "thompson", "lin_ucb", "lin_thompson"):
        answer = await service.post(COLD, {"domain": shop, "exploration": {"policy": policy, "epsilon": 0.5}})
        assert len(answer["items"]) == 10
        assert answer["exploration"]["propensity_valid"]
        await service.post(
            "/v1/rewards",
            {"rewards": [{"slate_id": answer["slate_id"], "item_id": item_ids(answer)[0], "value": 1}]},
            201,
        )


# settings


async def test_settings_reach_every_worker_with_its_next_request(start: Start) -> None:
    """And outlive a restart; a request may still say otherwise."""
    async with start() as one, start() as two:
        told = await put(one, exploration={"policy": "thompson", "samples": 7}, reward_wait_seconds=60)
        assert told["exploration"]["samples"] == 7
        said = (await cold(two))["exploration"]
        assert (said["policy"], said["samples"]) == ("thompson", 7)
        assert (await cold(two, "greedy"))["exploration"]["policy"] == "greedy"
        by_address = await two.get("/v1/users/nobody/recommendations", domain="films")
        assert by_address["exploration"]["policy"] == "thompson"
        (listed,) = await two.get("/v1/admin/exploration")
        assert listed == told
    async with start() as again:
        assert (await cold(again))["exploration"]["policy"] == "thompson"
        await put(again, exploration={"policy": "greedy"})
        assert (await cold(again))["exploration"]["policy"] == "greedy"


async def test_settings_that_cannot_be_are_refused(service: Service) -> None:
    async def ask(method: str, path: str, body: Any) -> httpx.Response:
        return await service.http.request(method, path, json=body)

    bad = [
        ({"policy": "ucb", "samples": 5}, "/exploration"),
        ({"policy": "epsilon_greedy", "epsilon": 1.5}, "/exploration/epsilon"),
        ({"policy": "canary"}, "/exploration/policy"),
        ({"policy": "ucb", "canary": 1}, "/exploration"),
    ]
    for settings, pointer in bad:
        for method, path in (("POST", COLD), ("PUT", "/v1/admin/exploration")):
            problem = refused(await ask(method, path, {"domain": "films", "exploration": settings}), "validation-error")
            assert [error["pointer"] for error in problem["errors"]] == [pointer]
    unknown = {"domain": "canary", "exploration": {"policy": "greedy"}}
    assert (
        refused(await ask("PUT", "/v1/admin/exploration", unknown), "validation-error")["errors"][0]["pointer"]
        == "/domain"
    )


# rewards and arms


async def test_rewards_and_interactions_count_in_the_arms(start: Start) -> None:
    """A rating is worth its place on the scale, a click what the domain says, and un-rating takes it back."""
    async with start() as service:
        answer = await cold(service, "epsilon_greedy", epsilon=0.5)
        first, second, third, *_ = item_ids(answer)
        assert await reward(service, answer["slate_id"], {first: 0.1}) == {"accepted": 1, "duplicates": 0}
        row = {"user_id": "ada", "domain": "films", "slate_id": answer["slate_id"]}
        events = [
            row | {"event_id": "rating", "item_id": second, "value": 4},
            row | {"event_id": "click", "item_id": third, "kind": "click"},
        ]
        await service.post("/v1/interactions", {"interactions": events}, 201)
        await service.post("/v1/interactions", {"interactions": events}, 200)
        known = await films(service)
        assert [known[i, "epsilon_greedy"]["reward"] for i in (first, second, third)] == [0.1, 0.75, 0.5]
        assert {arm["shows"] for arm in known.values()} == {1}
        assert sum(arm["judged"] for arm in known.values()) == 3
        await service.delete("/v1/interactions/rating")
        known = await films(service)
        assert known[second, "epsilon_greedy"] == known[second, "epsilon_greedy"] | {"judged": 0, "reward": 0}
        await check(service)


async def test_a_reward_names_what_is_wrong_with_it(service: Service) -> None:
    answer = await cold(service)
    slate_id, item_id = answer["slate_id"], item_ids(answer)[0]
    good = {"slate_id": slate_id, "item_id": item_id, "value": 1}

    async def post(*rows: dict[str, Any]) -> httpx.Response:
        return await service.http.post("/v1/rewards", json={"rewards": list(rows)})

    problem = refused(await post(good, good | {"slate_id": "canary"}), "unknown-slate")
    assert problem["pointers"] == ["/rewards/1/slate_id"]
    problem = refused(await post(good, good | {"item_id": "canary"}), "validation-error")
    assert problem["errors"] == [{"pointer": "/rewards/1/item_id", "reason": "is no item of that slate"}]
    await service.post("/v1/rewards", {"rewards": [good | {"event_id": slate_id}]}, 201)
    await service.post("/v1/rewards", {"rewards": [good | {"event_id": slate_id}]}, 200)
    problem = refused(await post(good, good | {"event_id": slate_id, "value": 0.5}), "event-id-conflict")
    assert problem["pointers"] == ["/rewards/1/event_id"]
    for value in (1e7, "1", None, True):
        problem = refused(await post(good | {"value": value}), "validation-error")
        assert problem["errors"][0]["pointer"] == "/rewards/0/value"


async def test_time_settles_slates_and_then_prunes_them(start: Start) -> None:
    """By the upkeep that every worker does in the background; arms keep what left the log."""
    async with start(slate_retention_days=2, upkeep_seconds=1e6) as service:
        await put(service, exploration={"policy": "epsilon_greedy"}, reward_wait_seconds=100, default_reward=0.25)
        answer = await cold(service)
        first, second, *_ = item_ids(answer)
        await reward(service, answer["slate_id"], {first: 1})
        upkeep, now = Upkeep(service.installation), time.time()
        assert await upkeep.once(now + 50) == (0, 0)
        assert await upkeep.once(now + 101) == (1, 0)
        known = await films(service)
        assert [known[i, "epsilon_greedy"]["reward"] for i in (first, second)] == [1, 0.25]
        assert {arm["judged"] for arm in known.values()} == {1}
        assert await upkeep.once(now + 3 * 86_400) == (0, 1)
        assert await films(service) == known
        await check(service)
        await reward(service, answer["slate_id"], {first: 1}, 404)


async def test_linear_policies_learn_from_the_log_and_again_after_a_restart(start: Start) -> None:
    """An item whose shows are rewarded is preferred by everybody alike; a service that starts anew knows it too."""
    async with start(("bayes",), arms_seconds=0) as service:
        before = await cold(service, "lin_ucb", scale=0.0)
        for _ in range(6):
            answer = await cold(service, "lin_ucb", epsilon=1.0, scale=0.0)
            poor = dict.fromkeys(item_ids(answer), -1.0)
            await reward(service, answer["slate_id"], poor)
        best = item_ids(before)[0]
        for _ in range(2):
            await reward(service, before["slate_id"], {best: -3.0})
        after = await cold(service, "lin_ucb", scale=0.0)
        assert best not in item_ids(after)
    async with start(("bayes",), arms_seconds=0) as service:
        again = await cold(service, "lin_ucb", scale=0.0)
        assert again["items"] == after["items"]


async def test_a_reward_takes_the_default_s_place_in_linear_policies_too(start: Start) -> None:
    """Whether a worker learnt the default before or reads both from the log at its start."""
    async with start(("bayes",), arms_seconds=0, upkeep_seconds=1e6) as service:
        await put(service, exploration={"policy": "lin_ucb"}, reward_wait_seconds=0.05, default_reward=0.2)
        answer = await cold(service)
        first, second, *_ = item_ids(answer)
        await reward(service, answer["slate_id"], {first: 0.9})
        upkeep = Upkeep(service.installation)
        while await upkeep.once(time.time()) != (1, 0):
            pass
        await put(service, exploration={"policy": "lin_ucb"})  # later slates wait for nothing
        await cold(service)
        await reward(service, answer["slate_id"], {second: -5.0})
        learnt = await matrices(service)
        assert len(learnt) == 5
    async with start(("bayes",), arms_seconds=0, upkeep_seconds=1e6) as service:
        await cold(service)
        again = await matrices(service)
    assert learnt.keys() == again.keys()
    for key, (mean, std) in learnt.items():
        assert again[key] == pytest.approx((mean, std), abs=1e-6)


async def matrices(service: Service) -> dict[int, tuple[float, float]]:
    """What the linear policies know of each film by its key: mean and standard deviation in one context."""
    domain = service.installation.runtime.now.domains["films"]
    plan = await service.installation.policies.plan(domain, Exploration(policy="lin_ucb"))
    assert plan is not None
    (arms_,) = plan.linear.values()
    mean, std = arms_.predict(plan.item_keys, np.ones(arms_.width))
    unknown = np.sqrt(arms_.width)
    return {
        key: (float(m), float(s))
        for key, m, s in zip(plan.item_keys.tolist(), mean, std, strict=True)
        if s < unknown - 1e-9
    }


async def test_the_commands_check_and_rebuild(start: Start) -> None:
    async with start() as service:
        answer = await cold(service)
        await reward(service, answer["slate_id"], {item_ids(answer)[0]: 1})
        known = await films(service)
        url = service.settings.database

    def run(command: str) -> str:
        return CliRunner().invoke(cli, ["arms", command, "--database-url", url]).stdout

    assert await asyncio.to_thread(run, "check") == "arms equal the log\n"
    assert await asyncio.to_thread(run, "rebuild") == f"{len(known)} arms\n"
    async with start() as service:
        assert await films(service) == known

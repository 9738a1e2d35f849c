"""Checkpoints come into service and go: a reload, a rollback, a restart; requests under way never notice."""

import asyncio
from typing import Any

import pytest

from app.errors import PROBLEMS
from tests.app.conftest import RECOMMENDERS, Service, Start, item_ids

ASK = {"domain": "films", "support": [{"item_id": "item3", "value": 5}, {"item_id": "item10", "value": 1}]}


async def reload(service: Service, name: str, **more: Any) -> Any:
    return await service.post("/v1/admin/checkpoints/reload", {"domain": "films", "checkpoint": name} | more)


async def rollback(service: Service, role: str = "collaborative") -> Any:
    return await service.post("/v1/admin/checkpoints/rollback", {"domain": "films", "role": role})


async def serving(service: Service) -> dict[str, str]:
    """Role → checkpoint, as an answer tells it."""
    answer = await service.post("/v1/cold-start/recommendations", ASK)
    return {part["role"]: part["checkpoint"] for part in answer["parts"]}


async def test_a_new_installation_takes_the_newest_of_each_role(start: Start) -> None:
    """And has the checkpoints' domains and items."""
    async with start() as service:
        assert await serving(service) == {"content": "content", "collaborative": "bayes"}
        (films,) = await service.get("/v1/domains")
        assert (films["domain"], films["items"], films["rating_max"]) == ("films", 80, 5)
        assert films["parts"] == [
            {"role": "content", "recommender": "content", "checkpoint": "content"},
            {"role": "collaborative", "recommender": "bayes", "checkpoint": "bayes"},
        ]


async def test_the_list_of_checkpoints_tells_what_each_is(start: Start) -> None:
    async with start() as service:
        (service.settings.checkpoints / "notes").mkdir()
        (service.settings.checkpoints / ".half-written").mkdir()
        listed = {entry["checkpoint"]: entry for entry in await service.get("/v1/admin/checkpoints")}
        assert set(listed) == {*RECOMMENDERS, "notes"}
        bayes = listed["bayes"]
        assert (bayes["recommender"], bayes["role"], bayes["domains"]) == ("bayes", "collaborative", ["films"])
        assert bayes["serving"] == [{"domain": "films", "role": "collaborative"}]
        assert bayes["metrics"]["rmse"] > 0
        assert len(bayes["digest"]) == 64
        assert bayes["problem"] is None
        assert listed["bias"]["serving"] == []
        assert listed["notes"]["problem"] in PROBLEMS


async def test_a_reload_answers_what_it_did_and_rollbacks_undo_it(start: Start) -> None:
    async with start() as service:
        before = await service.post("/v1/cold-start/recommendations", ASK)
        done = await reload(service, "popularity")
        digests = {entry["checkpoint"]: entry["digest"] for entry in await service.get("/v1/admin/checkpoints")}
        assert done == {
            "domain": "films",
            "role": "collaborative",
            "checkpoint": "popularity",
            "digest": digests["popularity"],
            "previous": "bayes",
            "shadow": False,
        }
        after = await service.post("/v1/cold-start/recommendations", ASK)
        assert (await serving(service))["collaborative"] == "popularity"
        assert after["items"] != before["items"]
        assert (await rollback(service))["checkpoint"] == "bayes"
        again = await service.post("/v1/cold-start/recommendations", ASK)
        assert again["items"] == before["items"]


async def test_a_reload_may_name_another_role(start: Start) -> None:
    async with start() as service:
        done = await reload(service, "bias", role="adaptive")
        assert (done["role"], done["previous"]) == ("adaptive", None)
        answer = await service.post("/v1/cold-start/recommendations", ASK)
        weights = {part["role"]: part["weight"] for part in answer["parts"]}
        assert weights == {"content": 0.8, "collaborative": 0.0, "adaptive": pytest.approx(0.2)}
        asked = {part["role"]: part["adaptation"] is not None for part in answer["parts"]}
        assert asked == {"content": True, "collaborative": False, "adaptive": True}


async def test_a_restart_keeps_what_was_decided(start: Start) -> None:
    """A checkpoint that was rolled back does not come back because it is the newest."""
    async with start() as service:
        await reload(service, "bias")
    async with start() as service:
        assert (await serving(service))["collaborative"] == "bias"
        assert (await rollback(service))["checkpoint"] == "bayes"


async def test_a_checkpoint_that_is_gone_keeps_the_service_up(start: Start) -> None:
    """At a restart the rest answers; content and counts where nothing is left, and whoever looks hears why."""
    async with start(("bias",)) as service:
        folder = service.settings.checkpoints
    (folder / "bias").rename(folder.parent / "bias")
    async with start(()) as service:
        answer = await service.post("/v1/cold-start/recommendations", ASK)
        assert answer["fallback"] is not None
        assert len(answer["items"]) == 10
        lag = {"domain": "films", "role": "collaborative", "checkpoint": "bias"}
        missing = lag | {"problem": "checkpoint-unsupported-format"}
        assert (await service.get("/readyz"))["behind"] == [missing]


async def test_every_answer_under_reloads_is_one_checkpoints_own(start: Start) -> None:
    """Requests that run beside ten reloads and rollbacks succeed, and equal what the named checkpoint answers alone."""
    async with start() as service:
        golden = {}
        for name in ("bias", "bayes"):
            await reload(service, name)
            answer = await service.post("/v1/cold-start/recommendations", ASK)
            golden[answer["parts"][1]["digest"]] = answer["items"]
        done = asyncio.Event()
        named = set()

        async def keep_asking() -> None:
            while not done.is_set():
                answer = await service.post("/v1/cold-start/recommendations", ASK)
                digest = answer["parts"][1]["digest"]
                assert answer["items"] == golden[digest]
                named.add(digest)

        askers = [asyncio.create_task(keep_asking()) for _ in range(4)]
        for _ in range(5):
            await reload(service, "bias")
            await rollback(service)
        done.set()
        await asyncio.gather(*askers)
        assert named == set(golden)


async def test_what_one_worker_does_the_other_sees_at_once(start: Start) -> None:
    """Two applications on one database: interactions and items at the next request, a reload soon after."""
    async with start() as one, start() as two:
        await one.rate("ada", {"item3": 5})
        mine = await one.get("/v1/users/ada/recommendations", domain="films")
        assert (await two.get("/v1/users/ada/recommendations", domain="films"))["items"] == mine["items"]
        await one.put("/v1/items/films/new", {"title": "New"})
        only = {"domain": "films", "filters": {"include_items": ["new"]}}
        assert item_ids(await two.post("/v1/cold-start/recommendations", only)) == ["new"]
        await one.put("/v1/domains/books", {})
        assert "books" in [domain["domain"] for domain in await two.get("/v1/domains")]
        await reload(one, "popularity")
        async with asyncio.timeout(5):
            while (await serving(two))["collaborative"] != "popularity":
                pass


async def test_all_checkpoints_of_a_domain_follow_a_new_item(start: Start) -> None:
    """One that comes into service later has a row for it too."""
    async with start() as service:
        await service.put("/v1/items/films/new", {"title": "New", "attributes": {"genres": ["genre1"]}})
        for name in RECOMMENDERS:
            await reload(service, name)
            body = {"domain": "films", "user": {}, "items": ["new", "item1"]}
            answer = await service.post("/v1/predictions", body)
            assert all(1 <= p["rating"] <= 5 for p in answer["predictions"])


async def test_what_was_put_stays_when_a_checkpoint_knows_the_item_otherwise(start: Start) -> None:
    async with start(("content",)) as service:
        await service.put("/v1/items/films/item1", {"title": "Mine", "attributes": {"year": 2020}}, 200)
        await service.delete("/v1/items/films/item2")
    async with start(("content", "bias")) as service:
        await reload(service, "bias")
        assert (await service.get("/v1/items/films/item1"))["title"] == "Mine"
        await service.get("/v1/items/films/item2", 404)

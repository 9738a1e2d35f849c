"""A part for the order of lists: what it changes, what it leaves, and what is said of it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.blend import Blend, BlendPart, Bucket
from tests.app.conftest import RECOMMENDERS, Service, Start, item_ids, train_into
from tests.laws.world import World

COLD = "/v1/cold-start/recommendations"
ASK = {"domain": "films", "support": [{"item_id": "item3", "value": 5}, {"item_id": "item10", "value": 5}], "k": 80}


@pytest.fixture(scope="module")
def ease(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a recommender that orders items and predicts nothing."""
    return train_into(tmp_path_factory.mktemp("ranking") / "ease", "ease", world)


@pytest.fixture
def with_ease(ease: Path, tmp_path: Path) -> str:
    shutil.copytree(ease, tmp_path / "checkpoints" / "ease")
    return "ease"


async def ask(service: Service, **more: Any) -> Any:
    return await service.post(COLD, ASK | more)


async def test_a_ranking_part_orders_lists_and_ratings_stay_what_they_were(start: Start, with_ease: str) -> None:
    async with start() as service:
        ranked, rated = await ask(service), await ask(service, rank_by="rating")
        assert (ranked["ranked_by"], rated["ranked_by"]) == ("preference", "rating")
        assert set(item_ids(ranked)) == set(item_ids(rated))
        assert item_ids(ranked) != item_ids(rated)
        scores = [item["score"] for item in rated["items"]]
        assert scores == sorted(scores, reverse=True)
        assert {i["item_id"]: i["score"] for i in ranked["items"]} == pytest.approx(
            {i["item_id"]: i["score"] for i in rated["items"]}, abs=1e-4
        )
        ranking = ranked["parts"][-1]
        assert (ranking["role"], ranking["recommender"], ranking["weight"]) == ("ranking", "ease", 0)
        assert ranking["ranking_weight"] == 1
        assert ranking["adaptation"]["loss_before"] is None  # a preference has no error in ratings


async def test_without_a_ranking_part_preference_is_the_rating(start: Start) -> None:
    async with start() as service:
        answer = await ask(service)
        assert answer["ranked_by"] == "rating"
        assert [part["ranking_weight"] for part in answer["parts"]] == [part["weight"] for part in answer["parts"]]


async def test_a_learnt_blend_weighs_ranking_and_rating_apart(start: Start, with_ease: str) -> None:
    async with start() as service:
        parts = [
            BlendPart(role=part["role"], digest=part["digest"], recommender=part["recommender"])
            for part in (await ask(service))["parts"]
        ]
        weights = Bucket(min_support=0, weights=[0.5, 0.5, 0.25], centres=[0, 0, 0.1], ranking_weights=[0.0, 1.0, 3.0])
        Blend(domain="films", parts=parts, buckets=[weights]).save(service.settings.checkpoints / "blend.json")
    async with start() as service:
        answer = await ask(service, explain=True)
        assert answer["schedule"] == "learnt"
        own = np.array([[why["score"] for why in item["why"]] for item in answer["items"]])  # (n, parts)
        mixed = np.clip(own @ [0.5, 0.5, 0.25], 1, 5)
        assert [item["score"] for item in answer["items"]] == pytest.approx(mixed, abs=2e-4)
        seen = {event["item_id"] for event in ASK["support"]}
        assert len(own) == len(service.installation.runtime.now.domains["films"].shelf.items) - len(seen)
        order = own @ ([0.0, 1.0, 3.0] / own.std(0))
        assert (np.diff(order) <= 0.02).all()  # the two films that were seen count in the spread as well


async def test_with_nothing_else_ratings_come_from_content_and_counts(start: Start, with_ease: str) -> None:
    async with start(checkpoints=()) as service:
        answer = await ask(service)
        assert [part["role"] for part in answer["parts"]] == ["content", "ranking"]
        assert answer["ranked_by"] == "preference"
        assert answer["fallback"] is not None
        assert all(1 <= item["score"] <= 5 for item in answer["items"])


@pytest.mark.parametrize("role", ["content", "collaborative", "adaptive", "transfer"])
async def test_preferences_cannot_take_the_place_of_ratings(start: Start, with_ease: str, role: str) -> None:
    async with start(checkpoints=RECOMMENDERS) as service:
        body = {"domain": "films", "checkpoint": "ease", "role": role}
        refused = await service.post("/v1/admin/checkpoints/reload", body, 422)
        assert refused["type"] == "/problems/checkpoint-incompatible"
        assert "ranking" in refused["detail"]

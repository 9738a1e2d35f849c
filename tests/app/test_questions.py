"""Questions for newcomers: the rule by hand, and the route on the real service."""

from uuid import uuid4

import numpy as np
import pytest
import torch

from app.engine.questions import Rule, most_telling
from tests.app.conftest import Service, Start, item_ids

NOTHING = np.empty(0, np.int64)


def test_the_rule_by_hand() -> None:
    """Three items with unit noise: the first two are one taste (covariance 1), the third another of variance 4.

    w = 1/3 each, so that asking 0 or 1 removes (1 + 1) / 3 / (1 + 1) = 1/3 of 6/3, and asking 2 removes 16 / 3 / 5.
    """
    root = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    sure = torch.ones(3)
    asked = most_telling(root, torch.ones(3), sure, NOTHING, 3, Rule(crowd=1, level=1))
    assert [one.local for one in asked] == [2, 0, 1]
    assert asked[0].reduction == pytest.approx((16 / 3 / 5) / 2)
    # What is left: 2/3 of the first taste and 4/5 / 3 of the second.
    assert asked[1].reduction == pytest.approx((1 / 3) / (2 / 3 + 4 / 15))
    # The third repeats the second: half of the taste's variance is left, of which 1 / 3 goes.
    assert asked[2].reduction == pytest.approx((1 / 3 / 3) / (1 / 3 + 4 / 15))


def test_who_is_not_known_is_not_asked_about() -> None:
    """An item that tells four times as much loses where it is known to a tenth as many."""
    root = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    by_chance = [
        most_telling(root, torch.ones(2), torch.tensor([chance, 0.9]), NOTHING, 1, Rule(crowd=0, level=1))[0].local
        for chance in (0.9, 0.09)
    ]
    assert by_chance == [0, 1]


def test_a_level_that_does_not_count_is_not_asked_for() -> None:
    """With level 0 only what sets items apart counts: a taste that all items share equally tells nothing."""
    root = torch.tensor([[3.0, 0.5], [3.0, -0.5], [3.0, 0.0]])
    sure = torch.ones(3)
    assert most_telling(root, torch.ones(3), sure, NOTHING, 1, Rule(crowd=1, level=0))[0].local in (0, 1)
    (asked,) = most_telling(root[2:], torch.ones(1), sure[:1], NOTHING, 1, Rule(crowd=1, level=0))
    assert asked.reduction == 0


async def test_questions_come_from_the_posterior_and_say_so(service: Service, nothing_stored: None) -> None:
    body = {"domain": "films", "attributes": {"age": 30}, "n": 5}
    answer = await service.post("/v1/cold-start/questions", body)
    asked = [question["item_id"] for question in answer["questions"]]
    assert len(set(asked)) == 5
    assert answer["part"]["recommender"] == "bayes"
    assert answer["fallback"] is None
    assert all(0 < q["chance"] < 1 and 0 < q["reduction"] < 1 for q in answer["questions"])
    assert await service.post("/v1/cold-start/questions", body) == answer


async def test_answers_and_skipped_items_are_not_asked_again_and_change_what_is(service: Service) -> None:
    """A whole conversation: no question comes twice, and each answer changes how sure the next ones are."""
    support: list[dict[str, object]] = []
    skipped: list[str] = []
    seen: list[str] = []
    for turn in range(8):
        body = {"domain": "films", "support": support, "skipped": skipped}
        (question,) = (await service.post("/v1/cold-start/questions", body))["questions"]
        assert question["item_id"] not in seen
        seen.append(question["item_id"])
        if turn % 2:
            skipped.append(question["item_id"])
        else:
            support.append({"item_id": question["item_id"], "value": 4})


async def test_not_knowing_an_item_makes_others_less_likely_to_be_known(service: Service) -> None:
    """Who does not know the best-known items knows fewer of the others."""
    first = await service.post("/v1/cold-start/questions", {"domain": "films", "n": 50})
    chance = {q["item_id"]: q["chance"] for q in first["questions"]}
    best_known = sorted(chance, key=lambda item_id: -chance[item_id])[:5]
    body = {"domain": "films", "skipped": best_known, "n": 50}
    after = {q["item_id"]: q["chance"] for q in (await service.post("/v1/cold-start/questions", body))["questions"]}
    both = chance.keys() & after.keys()
    assert sum(after[i] for i in both) < sum(chance[i] for i in both)


async def test_items_nobody_has_added_are_ignored_and_named(service: Service) -> None:
    body = {"domain": "films", "support": [{"item_id": "nope", "value": 3}], "skipped": ["neither"]}
    answer = await service.post("/v1/cold-start/questions", body)
    assert answer["ignored"] == ["nope", "neither"]


async def test_refusals(service: Service) -> None:
    unknown = await service.post("/v1/cold-start/questions", {"domain": f"no-{uuid4().hex}"}, 422)
    assert unknown["errors"] == [{"pointer": "/domain", "reason": "no domain has that name"}]
    await service.post("/v1/cold-start/questions", {"domain": "films", "n": 0}, 422)
    off_scale = {"domain": "films", "support": [{"item_id": "films-1", "value": 99}]}
    answer = await service.post("/v1/cold-start/questions", off_scale, 422)
    assert answer["type"] == "/problems/validation-error"


async def test_a_domain_without_a_posterior_asks_for_popular_and_diverse_items_and_says_so(
    service: Service, shop: str
) -> None:
    """The most popular first, then the most popular of those unlike it; what is not available or was skipped never."""
    genres = {"a": ["War"], "b": ["War"], "c": ["Comedy"], "d": ["Comedy"], "e": ["War"]}
    items = [{"domain": shop, "item_id": i, "attributes": {"genres": g}} for i, g in genres.items()]
    items[4]["available"] = False
    await service.post("/v1/items", {"items": items})
    events = {"a": 4, "b": 3, "c": 2, "d": 1, "e": 9}
    rows = [
        {"user_id": f"{shop}-{n}", "domain": shop, "item_id": item_id, "value": 3}
        for item_id, count in events.items()
        for n in range(count)
    ]
    await service.post("/v1/interactions", {"interactions": rows}, 201)
    answer = await service.post("/v1/cold-start/questions", {"domain": shop, "n": 3})
    assert [q["item_id"] for q in answer["questions"]] == ["a", "c", "b"]
    assert answer["part"] is None
    assert answer["questions"][0]["chance"] is None
    assert "popular" in answer["fallback"]
    answer = await service.post("/v1/cold-start/questions", {"domain": shop, "n": 9, "skipped": ["a"]})
    assert [q["item_id"] for q in answer["questions"]] == ["c", "b", "d"]


async def test_joint_draws_stand_in_where_no_posterior_has_a_closed_form(start: Start) -> None:
    """`bias` draws jointly: what it asks tells of how generous somebody is."""
    async with start(checkpoints=("bias",)) as service:
        answer = await service.post("/v1/cold-start/questions", {"domain": "films", "n": 2})
        assert answer["part"]["recommender"] == "bias"
        assert len(answer["questions"]) == 2
        slate = await service.post("/v1/cold-start/recommendations", {"domain": "films", "k": 3})
        assert len(item_ids(slate)) == 3

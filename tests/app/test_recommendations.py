"""Recommendations and predictions: who gets what, what may be filtered, and what the answer says of itself."""

from typing import Any

import httpx
import pytest

from app.errors import RETRY_AFTER
from app.storage import slates
from models.blend import fixed_schedule
from tests.app.conftest import Service, Start, item_ids
from tests.app.refusals import refused
from tests.laws.world import World

LIKES = [
    {"item_id": item, "value": value} for item, value in (("item3", 5), ("item10", 1), ("item42", 5), ("item7", 2))
]
COLD = "/v1/cold-start/recommendations"


async def cold(service: Service, **body: Any) -> Any:
    return await service.post(COLD, {"domain": "films"} | body)


async def test_three_ways_to_ask_give_one_answer(service: Service, user: str) -> None:
    """Evidence in a cold start, in a recommendation's body, or stored before."""
    stateless = await cold(service, support=LIKES)
    inline = await service.post("/v1/recommendations", {"domain": "films", "user": {"support": LIKES}})
    await service.rate(user, {row["item_id"]: row["value"] for row in LIKES})
    stored = await service.post("/v1/recommendations", {"domain": "films", "user_id": user})
    by_address = await service.get(f"/v1/users/{user}/recommendations", domain="films")
    assert stateless["items"] == inline["items"] == stored["items"] == by_address["items"]
    assert len({answer["slate_id"] for answer in (stateless, inline, stored, by_address)}) == 4


async def test_an_answer_tells_how_it_came_to_be(service: Service) -> None:
    answer = await cold(service, support=LIKES, k=7)
    assert answer["domain"] == "films"
    assert answer["ignored"] == []
    assert answer["fallback"] is None
    assert answer["schedule"] == "fixed"
    assert answer["exploration"] == {"policy": "greedy", "propensity_valid": False}
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 7
    for item in answer["items"]:
        assert item["title"] == item["item_id"].replace("item", "Item ")
        assert 1 <= item["score"] <= 5
        assert item["std"] > 0
        assert (item["propensity"], item["explored"]) == (None, False)
    roles = [part["role"] for part in answer["parts"]]
    assert roles == ["content", "collaborative"]
    assert [part["weight"] for part in answer["parts"]] == fixed_schedule(["content", "collaborative"], 4)
    assert [part["checkpoint"] for part in answer["parts"]] == ["content", "bayes"]
    digests = {entry["checkpoint"]: entry["digest"] for entry in await service.get("/v1/admin/checkpoints")}
    for part in answer["parts"]:
        assert part["digest"] == digests[part["checkpoint"]]
        adaptation = part["adaptation"]
        assert (adaptation["support_size"], adaptation["cached"]) == (4, False)
        assert adaptation["loss_after"] < adaptation["loss_before"]


async def test_without_evidence_there_is_no_loss_to_tell(service: Service) -> None:
    for part in (await cold(service))["parts"]:
        assert part["adaptation"] == {"support_size": 0, "loss_before": None, "loss_after": None, "cached": False}


async def test_the_weights_follow_how_much_is_known(service: Service) -> None:
    """0.8 of content under 5 interactions, 0.5 from 5, 0.2 from 20 on."""
    for n, content in ((0, 0.8), (4, 0.8), (5, 0.5), (19, 0.5), (20, 0.2)):
        support = [{"item_id": f"item{i}", "value": 3} for i in range(n)]
        assert (await cold(service, support=support))["parts"][0]["weight"] == content


async def test_explain_gives_the_parts_own_scores(service: Service) -> None:
    """Which mix to the score of the item."""
    answer = await cold(service, support=LIKES, explain=True)
    for item in answer["items"]:
        mixed = sum(part["weight"] * part["score"] for part in item["why"])
        assert item["score"] == pytest.approx(min(5, max(1, mixed)), abs=2e-4)
    assert all(item["why"] is None for item in (await cold(service, support=LIKES))["items"])


async def test_opposite_tastes_give_different_lists(service: Service, world: World) -> None:
    """Five ratings each, the same items, liked by one and disliked by the other."""
    items = [f"item{i}" for i in range(1, 6)]
    one = await cold(service, support=[{"item_id": i, "value": 5 - 4 * (n % 2)} for n, i in enumerate(items)], k=20)
    two = await cold(service, support=[{"item_id": i, "value": 1 + 4 * (n % 2)} for n, i in enumerate(items)], k=20)
    nobody = await cold(service, k=20)
    assert len({tuple(item_ids(answer)) for answer in (one, two, nobody)}) == 3


async def test_unknown_items_of_the_support_are_named_and_ignored(service: Service) -> None:
    answer = await cold(service, support=[*LIKES, {"item_id": "nobody's", "value": 1}, {"item_id": "🎬", "value": 5}])
    assert answer["ignored"] == ["nobody's", "🎬"]
    assert answer["items"] == (await cold(service, support=LIKES))["items"]


async def test_of_several_ratings_in_a_support_the_last_counts(service: Service) -> None:
    twice = [{"item_id": "item3", "value": 1}, *LIKES[1:], LIKES[0]]
    answer = await cold(service, support=twice)
    assert answer["items"] == (await cold(service, support=[*LIKES[1:], LIKES[0]]))["items"]
    assert answer["parts"][0]["adaptation"]["support_size"] == 4


async def test_a_support_counts_in_the_order_in_which_it_occurred(service: Service) -> None:
    earlier, later = ({"item_id": "item3", "value": value, "occurred_at": at} for value, at in ((1, 100), (5, 200)))
    answers = [await cold(service, support=support) for support in ([later, earlier], [earlier, later])]
    assert answers[0]["items"] == answers[1]["items"] == (await cold(service, support=[later]))["items"]


async def test_seen_items_are_left_out_unless_wanted(service: Service) -> None:
    seen = {row["item_id"] for row in LIKES}
    assert not seen & set(item_ids(await cold(service, support=LIKES, k=1000)))
    everything = await cold(service, support=LIKES, k=1000, filters={"exclude_seen": False})
    assert seen <= set(item_ids(everything))
    assert len(everything["items"]) == len(set(item_ids(everything)))


async def test_k_larger_than_the_catalogue_gives_all_of_it(service: Service, shop: str) -> None:
    assert (await service.post(COLD, {"domain": shop}))["items"] == []
    await service.post("/v1/items", {"items": [{"domain": shop, "item_id": f"i{i}"} for i in range(3)]})
    assert len((await service.post(COLD, {"domain": shop, "k": 1000}))["items"]) == 3
    total = (await service.get("/v1/domains"))[0]["items"]
    assert len((await cold(service, k=1000))["items"]) == total


async def test_filters_keep_and_leave_out(service: Service) -> None:
    """The items that pass, in the order that they have without filters."""
    ranked = item_ids(await cold(service, support=LIKES, k=1000))
    included = await cold(service, support=LIKES, filters={"include_items": ["item1", "item2", "item3", "no", "item1"]})
    assert item_ids(included) == [i for i in ranked if i in ("item1", "item2")]
    excluded = await cold(service, support=LIKES, k=5, filters={"exclude_items": [*ranked[:3], "no"]})
    assert item_ids(excluded) == ranked[3:8]
    both = {"include_items": ranked[:4], "exclude_items": ranked[1:3]}
    assert item_ids(await cold(service, support=LIKES, filters=both)) == [ranked[0], ranked[3]]
    assert (await cold(service, filters={"include_items": []}))["items"] == []


async def test_where_filters_by_attributes(service: Service, world: World) -> None:
    """One of the values of each attribute, all attributes."""
    rows = world.data.items.attributes
    wanted = {"genres": ["genre1", "genre2"]}
    found = set(item_ids(await cold(service, k=1000, filters={"where": wanted})))
    assert found == {f"item{i}" for i, row in enumerate(rows) if set(row["genres"]) & {"genre1", "genre2"}}
    year = str(rows[0]["year"])
    narrower = await cold(service, k=1000, filters={"where": {"genres": rows[0]["genres"], "year": [year]}})
    assert "item0" in item_ids(narrower)
    assert (await cold(service, filters={"where": {"genres": ["never"]}}))["items"] == []
    assert (await cold(service, filters={"where": {"no such": ["thing"]}}))["items"] == []


async def test_pages_made_of_earlier_slates_never_repeat(service: Service) -> None:
    """Four pages are the first forty items, best first."""
    earlier: list[str] = []
    shown: list[dict[str, Any]] = []
    for _ in range(4):
        page = await cold(service, support=LIKES, filters={"exclude_slates": earlier})
        earlier.append(page["slate_id"])
        shown += page["items"]
    together = await cold(service, support=LIKES, k=40)
    assert {item["item_id"] for item in shown} == set(item_ids(together))
    assert [item["score"] for item in shown] == [item["score"] for item in together["items"]]
    assert (await cold(service, filters={"exclude_slates": ["no such slate"]}))["items"]


async def test_predictions_come_in_the_order_asked(service: Service, user: str) -> None:
    """And agree with the scores of the recommendations; seen items are predicted too."""
    items = ["item9", "item3", "item50", "item9"]
    answer = await service.post("/v1/predictions", {"domain": "films", "user": {"support": LIKES}, "items": items})
    assert [p["item_id"] for p in answer["predictions"]] == items
    every = await cold(service, support=LIKES, k=1000, filters={"exclude_seen": False})
    scores = {item["item_id"]: (item["score"], item["std"]) for item in every["items"]}
    for p in answer["predictions"]:
        assert (p["rating"], p["std"]) == pytest.approx(scores[p["item_id"]], abs=2e-4)
    await service.rate(user, {row["item_id"]: row["value"] for row in LIKES})
    stored = await service.post("/v1/predictions", {"domain": "films", "user_id": user, "items": items})
    assert stored["predictions"] == answer["predictions"]
    assert answer["fallback"] is None


async def test_a_second_request_finds_the_state_in_the_cache(service: Service, user: str) -> None:
    """A new rating, new attributes or a new item make it anew."""
    url = f"/v1/users/{user}/recommendations"

    async def cached() -> list[bool]:
        answer = await service.get(url, domain="films")
        return [part["adaptation"]["cached"] for part in answer["parts"]]

    await service.rate(user, {"item3": 5})
    assert await cached() == [False, False]
    assert await cached() == [True, True]
    await service.rate(user, {"item10": 2})
    assert await cached() == [False, False]
    await service.put(f"/v1/users/{user}", {"attributes": {"age": 50}}, 200)
    assert await cached() == [False, False]
    assert await cached() == [True, True]
    await service.put(f"/v1/items/films/cached-{user}", {"title": "New"})
    assert await cached() == [False, False]
    await service.delete(f"/v1/items/films/cached-{user}")


async def test_a_domain_without_checkpoints_answers_from_content_and_counts(
    service: Service, shop: str, user: str
) -> None:
    """What was missing is told; a rating moves the list toward what is like it."""
    tags = {"a": "x", "b": "x", "c": "x", "d": "y", "e": "y", "f": "y"}
    rows = [{"domain": shop, "item_id": name, "attributes": {"genres": [tag]}} for name, tag in tags.items()]
    await service.post("/v1/items", {"items": rows})
    newcomer = await service.post(COLD, {"domain": shop})
    assert set(item_ids(newcomer)) == set(tags)
    assert "no checkpoint" in newcomer["fallback"]
    assert [part["checkpoint"] for part in newcomer["parts"]] == [None]
    for liked, expected in (("a", {"b", "c"}), ("d", {"e", "f"})):
        support = [{"item_id": liked, "value": 5}]
        answer = await service.post(COLD, {"domain": shop, "support": support, "k": 2})
        assert set(item_ids(answer)) == expected
    await service.rate(user, {"a": 5, "d": 1}, shop)
    assert set(item_ids(await service.get(f"/v1/users/{user}/recommendations", domain=shop, k=2))) == {"b", "c"}


async def test_who_wants_no_fallback_is_told_that_there_is_nothing_else(service: Service, shop: str, user: str) -> None:
    """On each route that has one; where a checkpoint answers it makes no difference."""
    await service.put(f"/v1/items/{shop}/a", {})

    async def ask(domain: str, item_id: str) -> list[httpx.Response]:
        no = {"domain": domain, "allow_fallback": False}
        by_address = f"/v1/users/{user}/recommendations?domain={domain}&allow_fallback=false"
        return [
            await service.http.post(COLD, json=no),
            await service.http.post("/v1/recommendations", json=no | {"user_id": user}),
            await service.http.get(by_address),
            await service.http.post("/v1/predictions", json=no | {"user": {}, "items": [item_id]}),
        ]

    for response in await ask(shop, "a"):
        refused(response, "model-unavailable")
        assert response.headers["retry-after"] == RETRY_AFTER["model-unavailable"]
    for response in await ask("films", "item1"):
        assert (response.status_code, response.json()["fallback"]) == (200, None)


async def test_live_counts_put_what_is_liked_first(start: Start) -> None:
    """While nothing is known of the user, in a domain that no checkpoint serves."""
    async with start((), live_counts_seconds=0) as service:
        await service.put("/v1/domains/shop", {})
        await service.post("/v1/items", {"items": [{"domain": "shop", "item_id": f"i{i}"} for i in range(5)]})
        for n in range(6):
            await service.rate(f"user{n}", {"i3": 5, "i1": 1}, "shop")
        ranked = item_ids(await service.post(COLD, {"domain": "shop"}))
        assert (ranked[0], ranked[-1]) == ("i3", "i1")


async def test_every_answer_is_on_record(service: Service, user: str) -> None:
    """A slate each, with the evidence of a cold start left out."""
    answer = await cold(service, support=LIKES, k=3)
    async with service.installation.database.read() as connection:
        stored = (await slates.get(connection, [answer["slate_id"]]))[answer["slate_id"]]
    assert stored.user_key is None
    assert [item.item_id for item in stored.items] == item_ids(answer)
    assert [round(item.score, 4) for item in stored.items] == [item["score"] for item in answer["items"]]
    assert [part["digest"] for part in stored.parts] == [part["digest"] for part in answer["parts"]]

"""Domains and items: what is put is what is listed, filtered and recommended."""

import math
from typing import Any

from tests.app.conftest import Service, item_ids


def items_of(shop: str, n: int, **attributes: Any) -> list[dict[str, Any]]:
    return [{"domain": shop, "item_id": f"i{i}", "title": f"Item {i}", "attributes": attributes} for i in range(n)]


async def test_a_domain_is_declared_changed_and_listed(service: Service, shop: str) -> None:
    body = {
        "title": "A shop",
        "rating_min": 0,
        "rating_max": 10,
        "kinds": {"purchase": {"value": 9, "weight": 0.75, "reward": 1}},
        "item_attributes": {"maker": "categorical"},
    }
    put = await service.put(f"/v1/domains/{shop}", body, 200)
    listed = {domain["domain"]: domain for domain in await service.get("/v1/domains")}
    assert listed[shop] == put
    assert put == body | {"domain": shop, "items": 0, "parts": []}
    assert {part["role"] for part in listed["films"]["parts"]} == {"content", "collaborative"}


async def test_paging_gives_each_item_once(service: Service, shop: str) -> None:
    """In the order in which they came, whatever is put or deleted in between."""
    await service.post("/v1/items", {"items": items_of(shop, 23)})
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(5):
        page = await service.get(f"/v1/items/{shop}", limit=5, **cursor)
        seen += [item["item_id"] for item in page["items"]]
        if len(seen) == 5:
            await service.put(f"/v1/items/{shop}/i2", {"title": "changed"}, 200)
            await service.put(f"/v1/items/{shop}/late", {})
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [f"i{i}" for i in range(23)] + ["late"]
    assert page["next_cursor"] is None


async def test_a_page_that_ends_with_the_last_item_is_the_last(service: Service, shop: str) -> None:
    await service.post("/v1/items", {"items": items_of(shop, 4)})
    assert (await service.get(f"/v1/items/{shop}", limit=4))["next_cursor"] is None
    assert (await service.get(f"/v1/items/{shop}", limit=3))["next_cursor"] is not None


async def test_a_batch_of_items_is_put_whole(service: Service, shop: str) -> None:
    assert await service.post("/v1/items", {"items": items_of(shop, 3)}) == {"created": 3, "updated": 0}
    again = [*items_of(shop, 4), {"domain": "films", "item_id": "item1", "title": "Item 1"}]
    before = await service.get("/v1/items/films/item1")
    assert await service.post("/v1/items", {"items": again}) == {"created": 1, "updated": 4}
    await service.post("/v1/items", {"items": [{k: before[k] for k in ("domain", "item_id", "title", "attributes")}]})


async def test_a_put_replaces_what_was_known(service: Service, shop: str) -> None:
    await service.put(f"/v1/items/{shop}/a", {"title": "A", "attributes": {"maker": "x", "year": 1999}})
    await service.put(f"/v1/items/{shop}/a", {"attributes": {"maker": "y"}}, 200)
    item = await service.get(f"/v1/items/{shop}/a")
    assert item == {"item_id": "a", "domain": shop, "title": "a", "attributes": {"maker": "y"}, "available": True}


async def test_an_item_that_is_not_available_is_kept_but_not_recommended(service: Service, shop: str) -> None:
    await service.post("/v1/items", {"items": items_of(shop, 3)})
    await service.put(f"/v1/items/{shop}/i1", {"title": "Item 1", "available": False}, 200)
    assert (await service.get(f"/v1/items/{shop}/i1"))["available"] is False
    assert len((await service.get(f"/v1/items/{shop}"))["items"]) == 3
    ask = {"domain": shop, "k": 100}
    assert set(item_ids(await service.post("/v1/cold-start/recommendations", ask))) == {"i0", "i2"}
    only = ask | {"filters": {"include_items": ["i1", "i2"]}}
    assert item_ids(await service.post("/v1/cold-start/recommendations", only)) == ["i2"]
    predicted = await service.post("/v1/predictions", {"domain": shop, "user": {}, "items": ["i1"]})
    assert predicted["predictions"][0]["item_id"] == "i1"
    await service.put(f"/v1/items/{shop}/i1", {"title": "Item 1"}, 200)
    assert set(item_ids(await service.post("/v1/cold-start/recommendations", ask))) == {"i0", "i1", "i2"}


async def test_a_deleted_item_is_gone_and_comes_back_when_put(service: Service, shop: str, user: str) -> None:
    """What users did with it still counts as evidence about them."""
    await service.post("/v1/items", {"items": items_of(shop, 3)})
    await service.rate(user, {"i1": 5}, shop)
    await service.delete(f"/v1/items/{shop}/i1")
    await service.get(f"/v1/items/{shop}/i1", 404)
    await service.delete(f"/v1/items/{shop}/i1", 404)
    assert [item["item_id"] for item in (await service.get(f"/v1/items/{shop}"))["items"]] == ["i0", "i2"]
    ask = {"domain": shop, "user_id": user, "k": 100, "filters": {"exclude_seen": False}}
    answer = await service.post("/v1/recommendations", ask)
    assert set(item_ids(answer)) == {"i0", "i2"}
    assert answer["parts"][0]["adaptation"]["support_size"] == 1
    await service.post("/v1/predictions", {"domain": shop, "user_id": user, "items": ["i1"]}, 404)
    await service.put(f"/v1/items/{shop}/i1", {"title": "back"}, 201)
    assert set(item_ids(await service.post("/v1/recommendations", ask))) == {"i0", "i1", "i2"}


async def test_similar_items_have_similar_content(service: Service, shop: str) -> None:
    """Cosine of the content, 1 for the same; the item itself and unavailable ones are left out."""
    tags = {"a": ["x", "y"], "b": ["x", "y"], "c": ["x", "z"], "d": ["z", "w"], "e": ["w", "v"], "f": ["x", "y"]}
    rows = [{"domain": shop, "item_id": name, "attributes": {"genres": of}} for name, of in tags.items()]
    rows[-1]["available"] = False
    await service.post("/v1/items", {"items": rows})
    similar = await service.get(f"/v1/items/{shop}/a/similar", k=3)
    assert [(s["item_id"], s["similarity"]) for s in similar[:2]] == [("b", 1.0), ("c", 0.5)]
    assert len(similar) == 3
    assert {s["item_id"] for s in await service.get(f"/v1/items/{shop}/a/similar", k=100)} == {"b", "c", "d", "e"}


async def test_a_new_item_is_recommended_at_once(service: Service, shop: str, user: str) -> None:
    """On a checkpoint that has never heard of it, by its content; and predicted, and filtered by."""
    name = f"new-{user}"
    like = (await service.get("/v1/items/films/item2"))["attributes"]
    await service.put(f"/v1/items/films/{name}", {"title": "New", "attributes": like})
    ask = {"domain": "films", "k": 1000}
    answer = await service.post("/v1/cold-start/recommendations", ask)
    assert name in item_ids(answer)
    assert answer["fallback"] is None
    only = ask | {"filters": {"include_items": [name]}}
    (item,) = (await service.post("/v1/cold-start/recommendations", only))["items"]
    assert item["title"] == "New"
    assert 1 <= item["score"] <= 5
    await service.delete(f"/v1/items/films/{name}")
    assert name not in item_ids(await service.post("/v1/cold-start/recommendations", ask))


async def test_a_number_of_any_size_stops_no_answer(service: Service, shop: str) -> None:
    for item_id, year in (("huge", 1e308), ("tiny", -1e308), ("usual", 1990)):
        await service.put(f"/v1/items/{shop}/{item_id}", {"attributes": {"year": year}})
    answer = await service.post(
        "/v1/cold-start/recommendations", {"domain": shop, "support": [{"item_id": "huge", "value": 5}]}
    )
    assert sorted(item_ids(answer)) == ["tiny", "usual"]
    assert all(math.isfinite(item["score"]) for item in answer["items"])

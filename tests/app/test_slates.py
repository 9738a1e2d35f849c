"""What a user was shown, why, and what came of it, over HTTP."""

from typing import Any

from tests.app.conftest import Service
from tests.app.refusals import refused


async def shown(service: Service, user: str, **query: Any) -> Any:
    return await service.get(f"/v1/users/{user}/recommendations", domain="films", **query)


async def test_a_slate_is_told_as_it_was_shown_with_what_came_of_it(service: Service, user: str) -> None:
    await service.rate(user, {"item3": 5, "item10": 1})
    answer = await shown(service, user, k=3)
    first, second, third = (item["item_id"] for item in answer["items"])
    rewards = [{"slate_id": answer["slate_id"], "item_id": i, "value": v} for i, v in ((first, 1), (first, 0.5))]
    await service.post("/v1/rewards", {"rewards": rewards}, 201)
    (slate,) = (await service.get(f"/v1/users/{user}/slates"))["slates"]
    assert slate["slate_id"] == answer["slate_id"]
    assert slate["domain"] == "films"
    assert slate["policy"]["policy"] == "greedy"
    for item, told in zip(answer["items"], slate["items"], strict=True):
        assert told.items() >= {name: item[name] for name in ("item_id", "title", "score", "propensity")}.items()
    assert [(item["item_id"], item["reward"]) for item in slate["items"]] == [
        (first, 1.5),
        (second, None),
        (third, None),
    ]
    names = ("role", "recommender", "checkpoint", "digest", "weight", "ranking_weight")
    assert slate["parts"] == [{name: part[name] for name in names} for part in answer["parts"]]


async def test_pages_of_slates_are_newest_first_and_complete(service: Service, user: str) -> None:
    await service.rate(user, {"item3": 5})
    made = [(await shown(service, user))["slate_id"] for _ in range(7)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {} if cursor is None else {"cursor": cursor}
        page = await service.get(f"/v1/users/{user}/slates", limit=3, **query)
        seen += [slate["slate_id"] for slate in page["slates"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


async def test_nobody_and_nonsense_are_refused(service: Service, user: str) -> None:
    refused(await service.http.get(f"/v1/users/{user}/slates"), "not-found")
    await service.rate(user, {"item3": 5})
    assert await service.get(f"/v1/users/{user}/slates") == {"slates": [], "next_cursor": None}
    for query in ({"cursor": "nonsense"}, {"cursor": "-1_x"}, {"limit": 0}, {"limit": 101}):
        refused(await service.http.get(f"/v1/users/{user}/slates", params=query), "validation-error")

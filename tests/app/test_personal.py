"""All that is known of somebody: exported as one document, and taken over by another user."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from app.services import people
from app.services.erase import go_on
from app.storage import arms, tables
from tests.app.conftest import Service
from tests.app.refusals import refused


async def live(service: Service, user: str, n_events: int = 3) -> dict[str, Any]:
    """Somebody with attributes, events, a slate and two rewards of it; the slate."""
    await service.put(f"/v1/users/{user}", {"attributes": {"age": 34, "tags": ["a"]}})
    rows = [
        {"user_id": user, "domain": "films", "item_id": f"item{i}", "value": 1 + i % 5, "event_id": f"{user}-{i}"}
        | {"occurred_at": 1_600_000_000 + i // 2, "context": {"device": "phone"}}
        for i in range(n_events)
    ]
    for start in range(0, n_events, 500):
        await service.post("/v1/interactions", {"interactions": rows[start : start + 500]}, 201)
    slate: dict[str, Any] = await service.post("/v1/recommendations", {"domain": "films", "user_id": user, "k": 2})
    place = {"slate_id": slate["slate_id"], "item_id": slate["items"][0]["item_id"]}
    await service.post("/v1/rewards", {"rewards": [place | {"value": 0.5, "event_id": f"{user}-reward"}]}, 201)
    click = {"user_id": user, "domain": "films", "kind": "rating", "value": 5, "event_id": f"{user}-follow"}
    await service.post("/v1/interactions", {"interactions": [click | place | {"occurred_at": 1_700_000_000}]}, 201)
    return slate


async def test_an_export_has_everything(service: Service, user: str) -> None:
    slate = await live(service, user)
    export = await service.get(f"/v1/users/{user}/export")
    assert (export["user_id"], export["attributes"]) == (user, {"age": 34, "tags": ["a"]})
    assert [event["event_id"] for event in export["interactions"]] == [f"{user}-{n}" for n in (0, 1, 2, "follow")]
    first = export["interactions"][0]
    assert first.pop("received_at") > 1_700_000_000
    assert first == {
        "domain": "films",
        "item_id": "item0",
        "kind": "rating",
        "value": 1,
        "occurred_at": 1_600_000_000,
        "event_id": f"{user}-0",
        "slate_id": None,
        "context": {"device": "phone"},
    }
    (shown,) = export["slates"]
    assert shown["slate_id"] == slate["slate_id"]
    assert [item["item_id"] for item in shown["items"]] == [item["item_id"] for item in slate["items"]]
    assert [(reward["event_id"], reward["interaction_id"], reward["value"]) for reward in shown["rewards"]] == [
        (f"{user}-reward", None, 0.5),
        (None, f"{user}-follow", 1.0),
    ]


async def test_an_export_is_as_long_as_it_has_to_be(service: Service, user: str) -> None:
    """More pages than one, of events at equal times too, each event once; of slates as well."""
    await live(service, user, people.EXPORT_PAGE * 2)
    for _ in range(3):
        await service.post("/v1/recommendations", {"domain": "films", "user_id": user})
    export = await service.get(f"/v1/users/{user}/export")
    ids = [event["event_id"] for event in export["interactions"]]
    assert sorted(ids[:-1], key=lambda event_id: int(event_id.rpartition("-")[2])) == ids[:-1]
    assert len(set(ids)) == people.EXPORT_PAGE * 2 + 1
    assert len(export["slates"]) == 4


async def test_nobody_has_no_export(service: Service, user: str) -> None:
    refused(await service.http.get(f"/v1/users/{user}/export"), "not-found")


@pytest.fixture
def visitor() -> str:
    return f"visitor-{uuid4().hex}"


def known(export: dict[str, Any]) -> dict[str, Any]:
    """An export without what tells whose it is."""
    return {name: value for name, value in export.items() if name not in ("user_id", "revision")}


async def merge(service: Service, user: str, visitor: str) -> dict[str, int]:
    answer: dict[str, int] = await service.post(f"/v1/users/{user}/merge", {"from": visitor})
    return answer


async def test_a_visitor_who_signs_in_brings_everything_along(service: Service, user: str, visitor: str) -> None:
    """To somebody who is there or not: events, slates, rewards, attributes that were not there. Arms stay."""
    await live(service, visitor)
    everything = await service.get(f"/v1/users/{visitor}/export")
    async with service.installation.database.read() as connection:
        counted = await arms.totals(connection, service.installation.domains["films"].key)
    assert await merge(service, user, visitor) == {"interactions": 4, "slates": 1, "attributes": 2}
    assert known(await service.get(f"/v1/users/{user}/export")) == known(everything)
    await service.get(f"/v1/users/{visitor}", 404)
    async with service.installation.database.read() as connection:
        assert await arms.totals(connection, service.installation.domains["films"].key) == counted
        assert await arms.differences(connection) == []


async def test_attributes_that_both_have_stay(service: Service, user: str, visitor: str) -> None:
    await service.put(f"/v1/users/{user}", {"attributes": {"age": 40, "name": None}})
    await service.put(f"/v1/users/{visitor}", {"attributes": {"age": 34, "name": "x", "group": "group1"}})
    before = await service.get(f"/v1/users/{user}")
    assert (await merge(service, user, visitor))["attributes"] == 1
    after = await service.get(f"/v1/users/{user}")
    assert after["attributes"] == {"age": 40, "name": None, "group": "group1"}
    assert after["revision"] > before["revision"]


async def test_the_next_list_knows_both_histories(service: Service, user: str, visitor: str) -> None:
    """As if all of it had been posted under one id; cached states of either are not used again."""
    url = "/v1/users/{}/recommendations"
    both = f"both-{user}"
    for who, ratings in ((user, {"item3": 5.0}), (visitor, {"item10": 1.0, "item42": 5.0})):
        for name in (who, both):
            await service.rate(name, ratings)
        await service.get(url.format(who), domain="films")
    await merge(service, user, visitor)
    expected = await service.get(url.format(both), domain="films", k=80)
    assert (await service.get(url.format(user), domain="films", k=80))["items"] == expected["items"]
    gone = await service.get(url.format(visitor), domain="films")
    assert gone["parts"][0]["adaptation"]["support_size"] == 0


async def test_merging_again_changes_nothing(service: Service, user: str, visitor: str) -> None:
    """Nor does sending the visitor's events again: they are known as what they were."""
    await live(service, visitor)
    await merge(service, user, visitor)
    before = await service.stored()
    export = await service.get(f"/v1/users/{user}/export")
    assert await merge(service, user, visitor) == {"interactions": 0, "slates": 0, "attributes": 0}
    row = {"user_id": visitor, "domain": "films", "item_id": "item0", "value": 1, "event_id": f"{visitor}-0"}
    row |= {"occurred_at": 1_600_000_000, "context": {"device": "phone"}}
    assert (await service.post("/v1/interactions", {"interactions": [row]}))["duplicates"] == 1
    assert await service.get(f"/v1/users/{user}/export") == export
    assert await service.stored() == before


async def test_merges_at_once_move_everything_once(service: Service, user: str, visitor: str) -> None:
    """Ten at the same time, while the visitor goes on rating."""
    await live(service, visitor)

    async def rate(n: int) -> None:
        await service.rate(visitor, {f"item{20 + n}": 3})

    answers = await asyncio.gather(
        *(merge(service, user, visitor) for _ in range(10)), *(rate(n) for n in range(5)), return_exceptions=False
    )
    moved = [answer for answer in answers if answer is not None]
    left = await service.http.get(f"/v1/users/{visitor}/export")
    remaining = len(left.json()["interactions"]) if left.is_success else 0
    assert sum(answer["interactions"] for answer in moved) + remaining == 4 + 5
    assert sum(answer["slates"] for answer in moved) == 1
    together = await service.get(f"/v1/users/{user}/export")
    assert len(together["interactions"]) + remaining == 4 + 5


async def test_who_was_merged_is_erased_with_the_other(service: Service, user: str, visitor: str) -> None:
    """Nothing that either sent comes back."""
    await live(service, visitor)
    await merge(service, user, visitor)
    await service.delete(f"/v1/users/{user}")
    await go_on(service.installation, 2e9)
    row = {"user_id": visitor, "domain": "films", "item_id": "item0", "value": 1, "event_id": f"{visitor}-0"}
    row |= {"occurred_at": 1_600_000_000, "context": {"device": "phone"}}
    assert (await service.post("/v1/interactions", {"interactions": [row]}))["duplicates"] == 1
    async with service.installation.database.read() as connection:
        for name, table in tables.metadata.tables.items():
            text = repr((await connection.execute(select(table))).all())
            assert user not in text, name
            assert visitor not in text, name
        open_ones = select(func.count()).where(tables.erasures.c.finished_at.is_(None))
        assert (await connection.execute(open_ones)).scalar_one() == 0


async def test_what_cannot_be_merged(service: Service, user: str, visitor: str) -> None:
    response = await service.http.post(f"/v1/users/{user}/merge", json={"from": user})
    assert refused(response, "validation-error")["errors"] == [{"pointer": "/from", "reason": "must be another user"}]
    refused(await service.http.post(f"/v1/users/{user}/merge", json={"from": visitor}), "not-found")
    refused(await service.http.post(f"/v1/users/{user}/merge", json={"from": visitor, "x": 1}), "validation-error")
    refused(await service.http.post(f"/v1/users/{user}/merge", json={"from_id": visitor}), "validation-error")

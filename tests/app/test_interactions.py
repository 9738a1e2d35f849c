"""Interactions and users: what is posted is stored whole, counts at once, and can be taken back."""

import asyncio
import time

from app.services import erase
from app.storage import erasures
from tests.app.conftest import Service, Start, item_ids
from tests.app.refusals import ECHO, refused


async def test_a_batch_is_stored_whole_and_read_back(service: Service, user: str) -> None:
    """Unknown users and items are created; times are kept to the microsecond; a time not given is now."""
    before = time.time()
    rows = [
        {"user_id": user, "domain": "films", "item_id": "item1", "value": 4.5, "occurred_at": 1_600_000_000.25},
        {
            "user_id": user,
            "domain": "films",
            "item_id": f"new-{user}",
            "kind": "click",
            "occurred_at": "2021-01-01T02:00:00+02:00",
            "context": {"dwell_seconds": 12.5, "device": "phone", "location": "home"},
            "slate_id": "elsewhere",
        },
        {"user_id": user, "domain": "films", "item_id": "item2", "value": 1},
    ]
    assert await service.post("/v1/interactions", {"interactions": rows}, 201) == {"accepted": 3, "duplicates": 0}
    known = await service.get(f"/v1/users/{user}")
    assert known["attributes"] == {}
    first, second, third = known["interactions"]
    assert (first["item_id"], first["kind"], first["value"]) == ("item1", "rating", 4.5)
    assert first["occurred_at"] == 1_600_000_000.25
    assert (second["item_id"], second["kind"], second["value"]) == (f"new-{user}", "click", None)
    assert second["occurred_at"] == 1_609_459_200
    assert before - 1 <= third["occurred_at"] <= time.time() + 1
    item = await service.get(f"/v1/items/films/new-{user}")
    assert (item["title"], item["attributes"]) == (f"new-{user}", {})
    await service.delete(f"/v1/items/films/new-{user}")


async def test_each_rating_moves_the_list(service: Service, user: str) -> None:
    """After every answer the seen items are gone and what is left is scored anew."""
    url = f"/v1/users/{user}/recommendations"
    shown = [await service.get(url, domain="films", k=20)]
    for item, value in (("item3", 5), ("item10", 1), ("item42", 5)):
        await service.rate(user, {item: value})
        answer = await service.get(url, domain="films", k=20)
        assert item not in item_ids(answer)
        assert [i["score"] for i in answer["items"]] != [i["score"] for i in shown[-1]["items"]]
        shown.append(answer)
    assert [a["parts"][0]["adaptation"]["support_size"] for a in shown] == [0, 1, 2, 3]


async def test_taking_a_rating_back_brings_the_old_answer_back(service: Service, user: str) -> None:
    url = f"/v1/users/{user}/recommendations"
    await service.rate(user, {"item3": 5})
    before = await service.get(url, domain="films")
    event = {"event_id": f"e-{user}", "user_id": user, "domain": "films", "item_id": before["items"][0]["item_id"]}
    await service.post("/v1/interactions", {"interactions": [event | {"value": 1}]}, 201)
    assert (await service.get(url, domain="films"))["items"] != before["items"]
    await service.delete(f"/v1/interactions/e-{user}")
    assert (await service.get(url, domain="films"))["items"] == before["items"]
    await service.delete(f"/v1/interactions/e-{user}", 404)


async def test_the_rating_that_occurred_last_counts(service: Service, user: str) -> None:
    """Whatever the order in which they arrive."""
    for value, when in ((5, 2_000), (1, 3_000), (3, 1_000)):
        row = {"user_id": user, "domain": "films", "item_id": "item5", "value": value, "occurred_at": when}
        await service.post("/v1/interactions", {"interactions": [row]}, 201)
    (counted,) = (await service.get(f"/v1/users/{user}"))["interactions"]
    assert (counted["value"], counted["occurred_at"]) == (1, 3_000)


async def test_clicks_are_evidence(service: Service, user: str) -> None:
    """Stored ones and those in a request, by the value and weight that the domain gives the kind."""
    nobody = await service.post("/v1/cold-start/recommendations", {"domain": "films", "k": 80})
    clicks = [{"item_id": item, "kind": "click"} for item in ("item3", "item10", "item42")]
    asked = await service.post("/v1/cold-start/recommendations", {"domain": "films", "support": clicks, "k": 80})
    assert asked["parts"][0]["adaptation"]["support_size"] == 3
    assert not {"item3", "item10", "item42"} & set(item_ids(asked))
    scores = {item["item_id"]: item["score"] for item in nobody["items"]}
    assert any(item["score"] != scores[item["item_id"]] for item in asked["items"])
    rows = [{"user_id": user, "domain": "films"} | click for click in clicks]
    await service.post("/v1/interactions", {"interactions": rows}, 201)
    stored = await service.get(f"/v1/users/{user}/recommendations", domain="films", k=80)
    assert stored["items"] == asked["items"]


async def test_users_are_put_read_changed_and_erased(service: Service, user: str) -> None:
    put = await service.put(f"/v1/users/{user}", {"attributes": {"age": 34, "group": "group1", "tags": ["a", "b"]}})
    assert put["attributes"] == {"age": 34, "group": "group1", "tags": ["a", "b"]}
    await service.rate(user, {"item3": 5})
    changed = await service.put(f"/v1/users/{user}", {"attributes": {"age": 35}}, 200)
    assert changed["attributes"] == {"age": 35}
    assert changed["revision"] > put["revision"]
    assert len(changed["interactions"]) == 1
    slate = await service.get(f"/v1/users/{user}/recommendations", domain="films")
    stored = await service.stored()
    await service.delete(f"/v1/users/{user}")
    after = await service.stored()
    assert {name: stored[name] - after[name] for name in ("users", "interactions", "slates")} == {
        "users": 1,
        "interactions": 1,
        "slates": 1,
    }
    await service.get(f"/v1/users/{user}", 404)
    await service.delete(f"/v1/users/{user}", 404)
    again = await service.get(f"/v1/users/{user}/recommendations", domain="films")
    assert slate["parts"][0]["adaptation"]["support_size"] == 1
    assert again["parts"][0]["adaptation"]["support_size"] == 0


async def test_many_users_at_once(service: Service, user: str) -> None:
    body = {"users": [{"user_id": f"{user}-{i}", "attributes": {"age": i}} for i in range(500)]}
    assert await service.post("/v1/users", body) == {"created": 500, "updated": 0}
    assert await service.post("/v1/users", {"users": body["users"][:2]}) == {"created": 0, "updated": 2}


async def test_attributes_change_the_answer(service: Service, user: str) -> None:
    """Two people of whom only the attributes are known get different scores, stored or not."""
    url = f"/v1/users/{user}/recommendations"
    answers = []
    for group in ("group0", "group1"):
        await service.post("/v1/users", {"users": [{"user_id": user, "attributes": {"group": group, "age": 30}}]})
        stored = await service.get(url, domain="films")
        body = {"domain": "films", "attributes": {"group": group, "age": 30}}
        assert stored["items"] == (await service.post("/v1/cold-start/recommendations", body))["items"]
        answers.append(stored["items"])
    assert answers[0] != answers[1]


async def test_concurrent_batches_lose_nothing(service: Service, user: str) -> None:
    """Forty writers, ten events each, all for one user."""

    async def write(writer: int) -> None:
        rows = [
            {
                "user_id": user,
                "domain": "films",
                "item_id": f"item{i}",
                "kind": "click",
                "event_id": f"{user}-{writer}-{i}",
            }
            for i in range(10)
        ]
        await service.post("/v1/interactions", {"interactions": rows}, 201)

    await service.post("/v1/users", {"users": [{"user_id": user}]})
    before = await service.stored()
    await asyncio.gather(*(write(writer) for writer in range(40)))
    assert (await service.stored())["interactions"] - before["interactions"] == 400
    known = await service.get(f"/v1/users/{user}")
    assert known["revision"] == 41


async def test_a_restart_forgets_nothing(start: Start) -> None:
    """The same answer, score for score, from the same checkpoints."""
    async with start() as service:
        await service.put("/v1/users/ada", {"attributes": {"age": 30, "group": "group2"}})
        await service.rate("ada", {"item3": 5, "item10": 1})
        await service.put("/v1/items/films/new", {"title": "New", "attributes": {"genres": ["genre1"], "year": 2001}})
        before = await service.get("/v1/users/ada/recommendations", domain="films", k=100)
        person = await service.get("/v1/users/ada")
    async with start() as service:
        after = await service.get("/v1/users/ada/recommendations", domain="films", k=100)
        assert after["items"] == before["items"]
        assert [part["digest"] for part in after["parts"]] == [part["digest"] for part in before["parts"]]
        assert await service.get("/v1/users/ada") == person


async def test_the_scale_of_a_domain_with_interactions_stays(start: Start) -> None:
    async with start() as service:
        await service.rate("ada", {"item1": 4})
        body = {"rating_min": 1, "rating_max": 10}
        problem = refused(await service.http.put("/v1/domains/films", json=body), "validation-error")
        assert problem["errors"][0]["pointer"] == "/rating_min"
        assert (await service.get("/v1/domains"))[0]["rating_max"] == 5


async def test_an_event_id_with_other_content(service: Service, user: str) -> None:
    """The whole batch is refused and each conflicting row is named, whether the first use is stored or beside it."""
    other = {"user_id": ECHO, "domain": "films", "item_id": "item1", "value": 4}
    first = other | {"user_id": user, "event_id": user}
    await service.post("/v1/interactions", {"interactions": [first]}, 201)
    before = await service.stored()
    batch = [other, first | {"value": 5}, first, first | {"item_id": "item2"}]
    response = await service.http.post("/v1/interactions", json={"interactions": batch})
    assert refused(response, "event-id-conflict")["pointers"] == [
        "/interactions/1/event_id",
        "/interactions/3/event_id",
    ]
    twice = [other | {"event_id": f"{ECHO}-{user}"}, other | {"event_id": f"{ECHO}-{user}", "value": 1}]
    response = await service.http.post("/v1/interactions", json={"interactions": twice})
    assert refused(response, "event-id-conflict")["pointers"] == ["/interactions/1/event_id"]
    assert await service.stored() == before


async def test_a_batch_that_is_refused_harms_no_other_that_comes_with_it(service: Service, user: str) -> None:
    """Batches that arrive together are stored in one transaction; each hears of its own rows only."""
    row = {"user_id": user, "domain": "films", "item_id": "item1", "value": 4}
    await service.post("/v1/interactions", {"interactions": [row | {"event_id": user}]}, 201)
    gone = f"gone-{user}"
    await service.put(f"/v1/users/{gone}", {})
    installation = service.installation
    await installation.database.transact(
        lambda connection: erasures.start(connection, gone, installation.digests, time.time())
    )
    conflicting = [row, row | {"event_id": user, "value": 1}]
    bodies = [
        *([row | {"event_id": f"{user}-{n}"}] for n in range(10)),
        conflicting,
        [row, row, row | {"user_id": gone}],
        *([row | {"event_id": f"{user}-{n}"}] for n in range(10)),
    ]
    answers = await asyncio.gather(
        *(service.http.post("/v1/interactions", json={"interactions": body}) for body in bodies)
    )
    assert refused(answers[10], "event-id-conflict")["pointers"] == ["/interactions/1/event_id"]
    assert refused(answers[11], "user-erasing")["pointers"] == ["/interactions/2/user_id"]
    good = [*answers[:10], *answers[12:]]
    assert {answer.status_code for answer in good} == {200, 201}, [answer.text for answer in good]
    assert sum(answer.json()["accepted"] for answer in good) == 10
    assert sum(answer.json()["duplicates"] for answer in good) == 10
    assert (await service.get(f"/v1/users/{user}"))["revision"] == 11
    await erase.go_on(installation, time.time())

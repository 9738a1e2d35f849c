"""Values that cannot be accepted: ids, ratings, times, sizes, unknown names.

For each the exact status and problem type, nothing of it echoed, and nothing stored.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.app.conftest import Service
from tests.app.refusals import ECHO, JSON, refused

pytestmark = pytest.mark.usefixtures("nothing_stored")

TOO_LONG = "x" * 129
MISSING = object()


@dataclass(frozen=True)
class Bad:
    """A request, and where the answer says that it is wrong."""

    name: str
    path: str
    body: Any
    pointer: str | None = None
    method: str = "POST"


def rating(**changes: Any) -> dict[str, Any]:
    """An interaction that would be accepted, but for the changes."""
    row = {"user_id": ECHO, "domain": "films", "item_id": "item1", "value": 4} | changes
    return {name: value for name, value in row.items() if value is not MISSING}


def post(name: str, pointer: str | None = None, **changes: Any) -> Bad:
    """An interaction with something wrong in it."""
    return Bad(name, "/v1/interactions", {"interactions": [rating(**changes)]}, pointer)


def ask(name: str, pointer: str | None, **changes: Any) -> Bad:
    """A request for recommendations with something wrong in it."""
    return Bad(name, "/v1/recommendations", {"domain": "films", "user_id": ECHO} | changes, pointer)


def cold(name: str, pointer: str | None, **changes: Any) -> Bad:
    """A cold-start request with something wrong in it."""
    return Bad(name, "/v1/cold-start/recommendations", {"domain": "films"} | changes, pointer)


def put(name: str, path: str, body: Any, pointer: str | None = None) -> Bad:
    """A PUT with something wrong in it."""
    return Bad(name, path, body, pointer, "PUT")


# 422

BAD_IDS = {
    "empty": "",
    "blank": "   ",
    "of 129 characters": TOO_LONG,
    "with NUL": "canary\0",
    "with a bell": "canary\x07",
    "with DEL": "canary\x7f",
    "with a newline": "canary\n",
    "with a C1 control": "canary\x85",
    "with an override": "canary\u202egnp",
    "with an isolate": "canary\u2066",
    "with a mark of direction": "canary\u200f",
    "not NFC": "canarye\u0301",
    "blank in Unicode": "\u2003\u00a0",
    "a noncharacter": "canary\uffff",
    "a number": 7,
    "null": None,
    "true": True,
    "a list": ["canary"],
}

INVALID = [
    post("rating true", "/interactions/0/value", value=True),
    post("rating '4'", "/interactions/0/value", value="4"),
    post("rating 6", "/interactions/0/value", value=6),
    post("rating -1", "/interactions/0/value", value=-1),
    post("rating 0.99", "/interactions/0/value", value=0.99),
    post("rating null", "/interactions/0/value", value=None),
    post("no rating", "/interactions/0/value", value=MISSING),
    post("rating in a list", "/interactions/0/value", value=[4]),
    post("rating 1e300", "/interactions/0/value", value=1e300),
    post("unknown kind", "/interactions/0/kind", kind=ECHO),
    post("unknown domain", "/interactions/0/domain", domain=ECHO),
    post("unknown field", "/interactions/0", canary=1),
    post("no user", "/interactions/0/user_id", user_id=MISSING),
    post("no item", "/interactions/0/item_id", item_id=MISSING),
    post("no domain", "/interactions/0/domain", domain=MISSING),
    post("naive time", "/interactions/0/occurred_at", occurred_at="2024-05-01T12:00:00"),
    post("time of year 1", "/interactions/0/occurred_at", occurred_at="0001-01-01T00:00:00Z"),
    post("time before 1970", "/interactions/0/occurred_at", occurred_at=-1),
    post("time in milliseconds", "/interactions/0/occurred_at", occurred_at=1_700_000_000_000),
    post("time true", "/interactions/0/occurred_at", occurred_at=True),
    post("time in words", "/interactions/0/occurred_at", occurred_at=ECHO),
    post("time of the 30th of February", "/interactions/0/occurred_at", occurred_at="2024-02-30T00:00:00Z"),
    post("date without time", "/interactions/0/occurred_at", occurred_at="2024-05-01"),
    post("time as digits", "/interactions/0/occurred_at", occurred_at="1700000000"),
    post("context unknown", "/interactions/0/context", context={"canary": 1}),
    post("context dwell -1", "/interactions/0/context/dwell_seconds", context={"dwell_seconds": -1}),
    post("context a string", "/interactions/0/context", context=ECHO),
    *(post(f"user id {name}", "/interactions/0/user_id", user_id=bad) for name, bad in BAD_IDS.items()),
    *(post(f"item id {name}", "/interactions/0/item_id", item_id=bad) for name, bad in BAD_IDS.items()),
    *(post(f"event id {name}", "/interactions/0/event_id", event_id=bad) for name, bad in BAD_IDS.items() if bad),
    Bad("no list", "/v1/interactions", {}, "/interactions"),
    Bad("empty batch", "/v1/interactions", {"interactions": []}, "/interactions"),
    Bad("batch of 501", "/v1/interactions", {"interactions": [rating()] * 501}, "/interactions"),
    Bad("unknown field beside", "/v1/interactions", {"interactions": [rating()], "canary": 1}, "/"),
    Bad(
        "bad last row",
        "/v1/interactions",
        {"interactions": [rating()] * 9 + [rating(value=9)]},
        "/interactions/9/value",
    ),
    Bad("a list", "/v1/interactions", [ECHO], "/"),
    Bad("a string", "/v1/interactions", ECHO, "/"),
    Bad("null", "/v1/interactions", None, "/"),
    ask("k = 0", "/k", k=0),
    ask("k = -1", "/k", k=-1),
    ask("k = 1001", "/k", k=1001),
    ask("k = 1.5", "/k", k=1.5),
    ask("k = '10'", "/k", k="10"),
    ask("k = true", "/k", k=True),
    ask("k = null", "/k", k=None),
    ask("unknown domain", "/domain", domain=ECHO),
    ask("user and user_id", "/", user={}),
    ask("no user", "/", user_id=None),
    ask("explain = 1", "/explain", explain=1),
    ask("policy unknown", "/exploration/policy", exploration={"policy": ECHO}),
    ask("filter unknown", "/filters", filters={"canary": []}),
    ask("where no values", "/filters/where", filters={"where": {"canary": []}}),
    ask("where a string", "/filters/where", filters={"where": {"canary": ECHO}}),
    ask("exclude_items a string", "/filters/exclude_items", filters={"exclude_items": ECHO}),
    ask("exclude_seen 'no'", "/filters/exclude_seen", filters={"exclude_seen": "no"}),
    *(ask(f"user id {name}", "/user_id", user_id=bad) for name, bad in BAD_IDS.items() if bad is not None),
    cold("support of 1,001", "/support", support=[{"item_id": "item1", "value": 3}] * 1001),
    cold("support rating 6", "/support/0/value", support=[{"item_id": "item1", "value": 6}]),
    cold("support rating null", "/support/0/value", support=[{"item_id": "item1"}]),
    cold("support of an unknown domain", "/support/0/domain", support=[{"item_id": "i", "value": 3, "domain": ECHO}]),
    cold("support kind unknown", "/support/0/kind", support=[{"item_id": "item1", "kind": ECHO}]),
    cold("support not a list", "/support", support={"item_id": ECHO}),
    cold("attribute nested", "/attributes", attributes={"canary": {"canary": 1}}),
    cold("attribute true", "/attributes", attributes={"canary": True}),
    cold("attribute a list of numbers", "/attributes", attributes={"canary": [1]}),
    cold("attribute without a name", "/attributes", attributes={"": ECHO}),
    cold("65 attributes", "/attributes", attributes={f"canary{i}": 1 for i in range(65)}),
    Bad("no items", "/v1/predictions", {"domain": "films", "user_id": ECHO, "items": []}, "/items"),
    Bad("1,001 items", "/v1/predictions", {"domain": "films", "user_id": ECHO, "items": ["item1"] * 1001}, "/items"),
    Bad("user of two kinds", "/v1/predictions", {"domain": "films", "user_id": ECHO, "user": {}, "items": ["i"]}, "/"),
    Bad(
        "prediction support",
        "/v1/predictions",
        {"domain": "films", "user": {"support": [{"item_id": ECHO, "value": 9}]}, "items": ["item1"]},
        "/user/support/0/value",
    ),
    put("scale upside down", "/v1/domains/canary", {"rating_min": 5, "rating_max": 1}, "/"),
    put("scale without width", "/v1/domains/canary", {"rating_min": 5, "rating_max": 5}, "/"),
    put("kind of no weight", "/v1/domains/canary", {"kinds": {"canary": {"value": 3, "weight": 0}}}, "/kinds"),
    put("kind of weight 2", "/v1/domains/canary", {"kinds": {"canary": {"value": 3, "weight": 2}}}, "/kinds"),
    put("kind off the scale", "/v1/domains/canary", {"kinds": {"canary": {"value": 9}}}, "/kinds"),
    put("kind named rating", "/v1/domains/canary", {"kinds": {"rating": {"value": 3}}}, "/kinds"),
    put("attribute of no kind", "/v1/domains/canary", {"item_attributes": {"canary": ECHO}}, "/item_attributes"),
    put("domain field unknown", "/v1/domains/canary", {"canary": 1}, "/"),
    put("item field unknown", "/v1/items/films/canary", {"canary": 1}, "/"),
    put("item available 'yes'", "/v1/items/films/canary", {"available": "yes"}, "/available"),
    put("item title of 501", "/v1/items/films/canary", {"title": "x" * 501}, "/title"),
    put(
        "item attribute of another kind", "/v1/items/films/canary", {"attributes": {"genres": 7}}, "/attributes/genres"
    ),
    put("user field unknown", "/v1/users/canary", {"canary": 1}, "/"),
    put("user attributes a list", "/v1/users/canary", {"attributes": [ECHO]}, "/attributes"),
    Bad("501 items", "/v1/items", {"items": [{"domain": "films", "item_id": ECHO}] * 501}, "/items"),
    Bad(
        "bad last item",
        "/v1/items",
        {"items": [{"domain": "films", "item_id": ECHO}, {"domain": ECHO, "item_id": ECHO}]},
        "/items/1/domain",
    ),
    Bad("501 users", "/v1/users", {"users": [{"user_id": ECHO}] * 501}, "/users"),
    Bad("bad last user", "/v1/users", {"users": [{"user_id": ECHO}, {"user_id": ""}]}, "/users/1/user_id"),
    Bad("rollback of no role", "/v1/admin/checkpoints/rollback", {"domain": "films", "role": ECHO}, "/role"),
    Bad("rollback of no domain", "/v1/admin/checkpoints/rollback", {"domain": ECHO, "role": "content"}, "/domain"),
    Bad(
        "reload of no role",
        "/v1/admin/checkpoints/reload",
        {"domain": "films", "checkpoint": "bias", "role": ECHO},
        "/role",
    ),
]


@pytest.mark.parametrize(
    "bad", INVALID, ids=lambda bad: f"{bad.path.removeprefix('/v1/').partition('/canary')[0]} {bad.name}"
)
async def test_validation_error(service: Service, bad: Bad) -> None:
    problem = refused(
        await service.http.request(bad.method, bad.path, content=json.dumps(bad.body), headers=JSON), "validation-error"
    )
    errors = problem["errors"]
    assert 1 <= len(errors) <= 20
    assert errors[0]["pointer"] == bad.pointer
    assert all(set(error) == {"pointer", "reason"} for error in errors)


IN_ADDRESSES = {
    "user id with NUL": "/v1/users/canary%00",
    "user id of 129 characters": f"/v1/users/{TOO_LONG}",
    "user id not NFC": "/v1/users/canarye%CC%81",
    "item id with an override": "/v1/items/films/canary%E2%80%AE",
    "blank domain": "/v1/items/%20",
    "k = 0": "/v1/users/canary/recommendations?domain=films&k=0",
    "k = 1001": "/v1/users/canary/recommendations?domain=films&k=1001",
    "k = 1.5": "/v1/users/canary/recommendations?domain=films&k=1.5",
    "k = canary": "/v1/users/canary/recommendations?domain=films&k=canary",
    "no domain": "/v1/users/canary/recommendations",
    "unknown domain": "/v1/users/ada/recommendations?domain=canary",
    "limit = 0": "/v1/items/films?limit=0",
    "limit = 1001": "/v1/items/films?limit=1001",
    "cursor = canary": "/v1/items/films?cursor=canary",
    "cursor = -1": "/v1/items/films?cursor=-1",
    "cursor of 400 digits": f"/v1/items/films?cursor={'9' * 400}",
    "similar k = 0": "/v1/items/films/item1/similar?k=0",
}


@pytest.mark.parametrize("path", IN_ADDRESSES.values(), ids=IN_ADDRESSES)
async def test_validation_error_in_the_address(service: Service, path: str) -> None:
    refused(await service.http.get(path), "validation-error")


@pytest.mark.parametrize("path", ["/v1/users/canary%FF", "/v1/canary%FF"])
async def test_an_address_that_is_not_utf8(service: Service, path: str) -> None:
    refused(await service.http.get(path), "bad-request")


async def test_at_most_20_errors_are_listed(service: Service) -> None:
    body = {"interactions": [rating(value="4", user_id="") for _ in range(30)]}
    problem = refused(await service.http.post("/v1/interactions", json=body), "validation-error")
    assert len(problem["errors"]) == 20


@pytest.mark.parametrize("ahead", [301, 86_400])
async def test_timestamp_out_of_range(service: Service, ahead: float) -> None:
    body = {"interactions": [rating(), rating(occurred_at=time.time() + ahead)]}
    problem = refused(await service.http.post("/v1/interactions", json=body), "timestamp-out-of-range")
    assert problem["errors"][0]["pointer"] == "/interactions/1/occurred_at"

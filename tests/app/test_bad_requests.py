"""Requests that cannot be read: malformed, misdirected, too large, too slow.

For each the exact status and problem type, nothing of it echoed, and nothing stored.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.api.parsing import parse_json
from tests.app.conftest import Service, Start
from tests.app.refusals import ECHO, JSON, refused

pytestmark = pytest.mark.usefixtures("nothing_stored")

# 400

MALFORMED = {
    "NaN": b'{"interactions": [{"user_id": "canary", "domain": "films", "item_id": "item1", "value": NaN}]}',
    "Infinity": b'{"interactions": [{"user_id": "canary", "domain": "films", "item_id": "item1", "value": Infinity}]}',
    "-Infinity": b'{"interactions": [{"user_id": "canary", "domain": "films", "item_id": "i", "value": -Infinity}]}',
    "1e999": b'{"interactions": [{"user_id": "canary", "domain": "films", "item_id": "item1", "value": 1e999}]}',
    "-1e999": b'{"interactions": [{"user_id": "canary", "domain": "films", "item_id": "item1", "value": -1e999}]}',
    "1E+0400": b'{"interactions": [{"user_id": "canary", "domain": "films", "item_id": "item1", "value": 1E+0400}]}',
    "lone surrogate": rb'{"interactions": [{"user_id": "canary\ud800", "domain": "films", "item_id": "i"}]}',
    "reversed surrogates": rb'{"interactions": [{"user_id": "\udc00\ud800", "domain": "films", "item_id": "i"}]}',
    "lone surrogate in a key": rb'{"canary\udfff": 1}',
    "invalid UTF-8": b'{"interactions": [{"user_id": "canary\xff", "domain": "films", "item_id": "i", "value": 4}]}',
    "overlong UTF-8": b'{"canary": "\xc0\xaf"}',
    "UTF-16": '{"canary": 1}'.encode("utf-16"),
    "truncated": b'{"interactions": [{"user_id": "canary", "domain": "films", "item_id": "item1", "value": 4}',
    "truncated string": b'{"canary',
    "trailing bytes": b'{"interactions": []} canary',
    "second document": b'{"interactions": []}{"canary": 1}',
    "nesting of 33": b"[" * 33 + b"]" * 33,
    "nesting of 33 objects": b'{"canary": ' * 33 + b"1" + b"}" * 33,
    "nesting of 100,000": b"[" * 100_000 + b"]" * 100_000,
    "integer of 5,000 digits": b'{"interactions": [{"value": ' + b"9" * 5000 + b"}]}",
    "integer of 400 digits": b'{"interactions": [{"value": ' + b"9" * 400 + b"}]}",
    "duplicate keys": b'{"interactions": [{"user_id": "canary", "user_id": "canary"}]}',
    "duplicate keys, one escaped": rb'{"canary": 1, "c\u0061nary": 2}',
    "empty": b"",
    "blank": b" \n",
    "not JSON": b"canary=1",
    "single quotes": b"{'canary': 1}",
    "comment": b"{} // canary",
    "leading zero": b'{"canary": 01}',
    "control character": b'{"canary": "\x01"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_json(service: Service, body: bytes) -> None:
    for method, path in (("POST", "/v1/interactions"), ("PUT", "/v1/users/ada"), ("POST", "/v1/recommendations")):
        refused(await service.http.request(method, path, content=body, headers=JSON), "malformed-json")


def test_nesting_of_32_is_still_read() -> None:
    assert parse_json(b"[" * 32 + b"]" * 32) is not None


# 404, 405

NOT_FOUND = {
    "no such route": ("GET", "/v1/canary"),
    "no such method's route": ("POST", "/canary"),
    "a slash too many": ("GET", "/v1/domains/"),
    "user": ("GET", "/v1/users/canary"),
    "user to erase": ("DELETE", "/v1/users/canary"),
    "item": ("GET", "/v1/items/films/canary"),
    "item to delete": ("DELETE", "/v1/items/films/canary"),
    "item to compare": ("GET", "/v1/items/films/canary/similar"),
    "domain of an item": ("GET", "/v1/items/canary/item1"),
    "domain of items": ("GET", "/v1/items/canary"),
    "domain of an item to delete": ("DELETE", "/v1/items/canary/item1"),
    "domain of an item to compare": ("GET", "/v1/items/canary/item1/similar"),
    "event to take back": ("DELETE", "/v1/interactions/canary"),
}


@pytest.mark.parametrize(("method", "path"), NOT_FOUND.values(), ids=NOT_FOUND)
async def test_not_found(service: Service, method: str, path: str) -> None:
    refused(await service.http.request(method, path), "not-found")


async def test_an_item_for_an_unknown_domain_is_not_found(service: Service) -> None:
    refused(await service.http.put("/v1/items/canary/item1", json={"title": "T"}), "not-found")


async def test_a_prediction_for_an_unknown_item_is_not_found(service: Service) -> None:
    body = {"domain": "films", "user_id": "ada", "items": ["item1", ECHO]}
    problem = refused(await service.http.post("/v1/predictions", json=body), "unknown-item")
    assert problem["pointers"] == ["/items/1"]


NOT_ALLOWED = {
    ("PATCH", "/v1/users/canary"): {"GET", "PUT", "DELETE"},
    ("POST", "/v1/items/films/canary"): {"GET", "PUT", "DELETE"},
    ("GET", "/v1/interactions"): {"POST"},
    ("DELETE", "/v1/interactions"): {"POST"},
    ("GET", "/v1/interactions/canary"): {"DELETE"},
    ("PUT", "/v1/recommendations"): {"POST"},
    ("DELETE", "/v1/domains"): {"GET"},
    ("POST", "/v1/domains/canary"): {"PUT"},
    ("GET", "/v1/admin/checkpoints/reload"): {"POST"},
    ("POST", "/readyz"): {"GET"},
}


@pytest.mark.parametrize(("method", "path"), NOT_ALLOWED, ids=[" ".join(key) for key in NOT_ALLOWED])
async def test_method_not_allowed(service: Service, method: str, path: str) -> None:
    response = await service.http.request(method, path)
    refused(response, "method-not-allowed")
    assert set(response.headers["allow"].split(", ")) == NOT_ALLOWED[method, path]


# 408, 413, 415, 431

WRONG_TYPES = {
    "none": {},
    "text": {"content-type": "text/plain"},
    "form": {"content-type": "application/x-www-form-urlencoded"},
    "a relative": {"content-type": "application/json-patch+json"},
    "nonsense": {"content-type": "canary"},
}


@pytest.mark.parametrize("headers", WRONG_TYPES.values(), ids=WRONG_TYPES)
async def test_unsupported_media_type(service: Service, headers: dict[str, str]) -> None:
    body = b'{"interactions": [{"user_id": "canary", "domain": "films", "item_id": "item1", "value": 4}]}'
    refused(await service.http.post("/v1/interactions", content=body, headers=headers), "unsupported-media-type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_spellings_of_the_media_type_are_welcome(service: Service, kind: str) -> None:
    response = await service.http.post(
        "/v1/interactions", content=b'{"interactions": []}', headers={"content-type": kind}
    )
    refused(response, "validation-error")


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 3 * 1024 * 1024, 20 * 1024 * 1024])
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
async def test_payload_too_large(service: Service, size: int, chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, size, 65_536):
            yield b" " * min(65_536, size - start)

    content = chunks() if chunked else b" " * size
    refused(await service.http.post("/v1/interactions", content=content, headers=JSON), "payload-too-large")


async def test_a_body_of_exactly_the_limit_is_read(service: Service) -> None:
    """And then found empty of JSON."""
    refused(await service.http.post("/v1/interactions", content=b" " * 1024 * 1024, headers=JSON), "malformed-json")


@pytest.mark.parametrize("header", [{"x-canary": "x" * 32_768}, {f"x-canary-{i}": "x" * 320 for i in range(101)}])
async def test_headers_too_large(service: Service, header: dict[str, str]) -> None:
    refused(await service.http.get("/v1/domains", headers=header), "headers-too-large")


async def test_a_stalled_body_is_given_up(start: Start) -> None:
    """The first half of the body arrives, the second never does."""
    async with start(body_timeout_seconds=0.05) as service:

        async def stalled() -> AsyncIterator[bytes]:
            yield b'{"interactions": '
            await asyncio.get_running_loop().create_future()

        before = await service.stored()
        refused(await service.http.post("/v1/interactions", content=stalled(), headers=JSON), "request-timeout")
        assert await service.stored() == before


async def test_a_caller_who_goes_away_gets_nothing(service: Service) -> None:
    """No answer is sent and nothing is stored for a body that breaks off."""
    sent = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/interactions",
        "raw_path": b"/v1/interactions",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1),
    }
    await service.app(scope, receive, send)
    assert sent == []

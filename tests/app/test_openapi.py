"""The OpenAPI document: valid, complete, and its own examples are accepted."""

from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import Start


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    made: dict[str, Any] = create_app(Settings()).openapi()
    return made


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_route_has_a_summary_and_a_description(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        assert operation["summary"].endswith("."), (method, path)
        assert operation["tags"], (method, path)


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            assert content["examples"], (method, path)


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    """And none is the framework's own."""
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (method, path, status)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_answer_has_a_schema(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status in ("200", "201") and path != "/metrics":
                assert response["content"]["application/json"]["schema"], (method, path, status)


async def test_examples_are_accepted(start: Start, document: dict[str, Any]) -> None:
    """Each against a service that has what the example speaks of: a domain `movies` and the items in it."""
    film_ids = ("1", "9", "50", "89", "127", "181")
    async with start(()) as service:
        body = {"kinds": {"click": {"value": 4, "weight": 0.2}}, "item_attributes": {"genres": "multi"}}
        await service.put("/v1/domains/movies", body)
        await service.put("/v1/domains/books", {})
        await service.post("/v1/items", {"items": [{"domain": "movies", "item_id": i} for i in film_ids]})
        for method, path, operation in operations(document):
            if "requestBody" not in operation or "/admin/" in path:
                continue
            examples = operation["requestBody"]["content"]["application/json"]["examples"]
            url = path.format(domain="movies" if "items" in path else "books", item_id="solaris", user_id="ada")
            for name, example in examples.items():
                value = example["value"]
                if path == "/v1/rewards":  # for a slate that is on record, which none is under the example's id
                    shown = await service.post("/v1/cold-start/recommendations", {"domain": "movies"})
                    value = {"rewards": [row | {"slate_id": shown["slate_id"]} for row in value["rewards"]]}
                response = await service.http.request(method, url, json=value)
                assert response.status_code in (200, 201), (path, name, response.text)

"""The OpenAPI document: valid, complete, and its own examples are accepted."""

import inspect
import json
from collections.abc import Iterator
from typing import Any, is_typeddict

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.client import answers, asynchronous, bodies
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


def test_every_answer_has_an_example_that_its_schema_lets_through(document: dict[str, Any]) -> None:
    """Of a problem, one of each type that the status may have."""
    plain = json.loads(json.dumps(document))
    for method, path, operation in operations(plain):
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                examples = [entry["$ref"].rpartition("/")[2] for entry in content.get("examples", {}).values()]
                values = [plain["components"]["examples"][name]["value"] for name in examples]
                values += [content["example"]] if "example" in content else []
                assert values or media_type == "text/plain", (method, path, status)
                schema = {**content["schema"], "components": plain["components"]}
                for value in values:
                    errors = list(Draft202012Validator(schema).iter_errors(value))
                    assert errors == [], (method, path, status)
                    assert media_type == "application/json" or value["status"] == int(status)


def test_every_parameter_is_shown(document: dict[str, Any]) -> None:
    """By an example, a default or the values that it may have; a cursor is whatever the page before says."""
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            shown = {"example", "examples", "default", "enum", "const"} & {*parameter, *parameter["schema"]}
            assert shown or parameter["name"] == "cursor", (method, path, parameter["name"])


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


NOT_IN_THE_CLIENT = {
    "/v1/users/{user_id}/recommendations": "recommend(user_id=…) asks for the same, and for more, with a body",
}
"""Routes that the Python client has no method for, and why."""


def test_every_route_is_a_method_of_the_python_client(document: dict[str, Any]) -> None:
    """Where this fails: add it to app/client/asynchronous.py, then `make client-python`."""
    source = inspect.getsource(asynchronous)
    missing = {path for path in document["paths"] if f'"{path}"' not in source}
    assert missing == set(NOT_IN_THE_CLIENT)


def test_the_python_client_knows_every_field(document: dict[str, Any]) -> None:
    """Its answers have the fields of the document, of the same types; its bodies the same fields, the same required.

    Where this fails: app/client/answers.py or app/client/bodies.py.
    """
    schemas = document["components"]["schemas"]
    for name, kind in inspect.getmembers(answers, inspect.isclass):
        if issubclass(kind, answers.Answer) and kind is not answers.Answer:
            known = kind.model_json_schema(mode="validation")
            assert _types(known) == _types(schemas[name]), name
    for name, kind in inspect.getmembers(bodies, is_typeddict):
        assert kind.__annotations__.keys() == schemas[name]["properties"].keys(), name
        assert kind.__required_keys__ == set(schemas[name].get("required", [])), name
    reached = {name for _, _, operation in operations(document) for name in _answered(operation)}
    assert {name for name in reached if not hasattr(answers, name)} == set()


def _answered(operation: dict[str, Any]) -> Iterator[str]:
    """Names of the schemas of an operation's good answers."""
    for status, response in operation["responses"].items():
        schema = response.get("content", {}).get("application/json", {}).get("schema", {})
        schema = schema.get("items", schema)
        if int(status) < 300 and "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]


def _types(schema: dict[str, Any]) -> dict[str, Any]:
    """Type of each field, by what a caller can tell apart."""
    return {name: _type(field) for name, field in schema.get("properties", {}).items()}


def _type(field: dict[str, Any]) -> Any:
    if "anyOf" in field:
        return sorted(str(_type(option)) for option in field["anyOf"])
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    inner = field.get("items") or field.get("additionalProperties")
    return (field.get("type"), field.get("const"), field.get("enum"), _type(inner) if isinstance(inner, dict) else None)

"""Examples of answers for the OpenAPI document, from their schemas and a value for each name: no route goes without."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import PROBLEMS, invalid

Schema = Mapping[str, Any]

DIGEST = "25cb5aaeb4552d822d74119cb6d752e62ce1b4c2248e880e75ebe87b255ff788"
SLATE = "018bcfe5-6800-7000-8000-000000000000"

VALUES: dict[str, Any] = {
    "attributes": {"age": 34, "occupation": "writer"},
    "checkpoint": "movies-bayes-2026-01-01-25cb5aae",
    "checkpoints": ["movies-bayes-2026-01-01-25cb5aae", "movies-content-2026-01-01-f9f7e768"],
    "chance": 0.83,
    "context": {"device": "phone"},
    "created": "2026-01-01T20:15:00+00:00",
    "created_at": 1767298500.0,
    "cursor": None,
    "detail": None,
    "digest": DIGEST,
    "domain": "movies",
    "domains": ["movies"],
    "epsilon": 0.1,
    "estimator": "dr",
    "event_id": "e-1",
    "exploration": {"policy": "epsilon_greedy", "epsilon": 0.1},
    "fallback": None,
    "idempotency-key": "import-42",
    "ignored": [],
    "interaction": {"domain": "movies", "item_id": "50", "kind": "rating", "value": 5.0, "occurred_at": 1767298500.0},
    "interaction_id": "e-1",
    "item_attributes": {"genres": "multi", "year": "numeric"},
    "item_id": "50",
    "k": 10,
    "kind": "rating",
    "kinds": {"click": {"value": 4, "weight": 0.2, "reward": 0.3}},
    "limit": 100,
    "metrics": {"rmse": 0.914},
    "next_cursor": None,
    "occurred_at": 1767298500.0,
    "part": {"role": "collaborative", "recommender": "bayes", "checkpoint": "movies-bayes-2026-01-01-25cb5aae"},
    "policy": "epsilon_greedy",
    "previous": "movies-bayes-2025-12-01-9f12c0de",
    "problem": None,
    "propensity": 0.91,
    "rating": 4.4,
    "rating_max": 5.0,
    "rating_min": 1.0,
    "received_at": 1767298501.0,
    "recommender": "bayes",
    "role": "collaborative",
    "score": 4.4,
    "serving": [{"domain": "movies", "role": "collaborative"}],
    "slate_id": SLATE,
    "sources": ["thrills"],
    "std": 0.8,
    "title": "Star Wars (1977)",
    "transfer": None,
    "user_id": "ada",
    "why": None,
}
"""Name of a field → what it may be. Names that are not here get the first of their values, or a plain one."""

TITLES = {"DomainOut": "Films"}
"""Title of what is no item."""
_PLAIN = {"string": "text", "integer": 3, "number": 0.5, "boolean": False, "object": {}, "null": None}


def example(schema: Schema, schemas: Mapping[str, Schema], name: str = "") -> Any:
    """A value that the schema lets through; `name` is the field that it is for.

    >>> example({"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}, {})
    ['a']
    """
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    value: Any
    if "properties" in schema:
        value = {field: example(inner, schemas, field) for field, inner in schema["properties"].items()}
        if schema["title"] in TITLES:
            value["title"] = TITLES[schema["title"]]
    elif name in VALUES and _fits(VALUES[name], schema):
        value = VALUES[name]
    elif "anyOf" in schema:
        value = example(schema["anyOf"][0], schemas, name)
    elif schema.get("type") == "array":
        value = [example(schema["items"], schemas, name.removesuffix("s"))]
    else:
        one = [schema[given] for given in ("const", "default") if given in schema] or schema.get("enum")
        value = one[0] if one else _PLAIN[schema.get("type", "string")]
    return value


def _fits(value: Any, schema: Schema) -> bool:
    """Whether a value is of the type that the schema has for it."""
    if "anyOf" in schema:
        return any(_fits(value, option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds: dict[str, type | tuple[type, ...]] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "array": list,
        "object": dict,
        "null": type(None),
    }
    return "type" in schema and isinstance(value, kinds[schema["type"]])


def problem_examples() -> dict[str, Any]:
    """Components of the document: an example of each problem type."""
    made = {}
    for slug, kind in PROBLEMS.items():
        body: dict[str, Any] = {"type": f"/problems/{slug}", "title": kind.title, "status": kind.status}
        if slug == "validation-error":
            body |= invalid("/interactions/0/value", "ratings here lie between 1 and 5").extra
        made[slug] = {"summary": kind.title, "value": body}
    return made


def show_examples(document: dict[str, Any]) -> None:
    """Put an example into every answer and every parameter of a document that has none."""
    schemas = document["components"]["schemas"]
    document["components"]["examples"] = problem_examples()
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            if not {"example", "examples"} & parameter.keys() and "examples" not in parameter["schema"]:
                value = example(parameter["schema"], schemas, parameter["name"])
                if value is not None:
                    parameter["example"] = value
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                if media_type == "application/problem+json":
                    slugs = [slug for slug, kind in PROBLEMS.items() if kind.status == int(status)]
                    content["examples"] = {slug: {"$ref": f"#/components/examples/{slug}"} for slug in slugs}
                elif media_type == "application/json" and not {"example", "examples"} & content.keys():
                    content["example"] = example(content["schema"], schemas)


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from methods.values()

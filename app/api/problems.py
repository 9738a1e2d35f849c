"""How problems appear in the OpenAPI document."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from app.api.access import ACCESS, Access
from app.api.examples import show_examples
from app.api.shedding import has_deadline
from app.errors import PROBLEMS

KEY, TOKEN = "key", "user-token"
SCHEMES = {
    KEY: {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of `warmstart keys create`. A service without any key asks for none, and answers its own "
        "machine only. Beside each route stands the scope that it needs; `admin` is enough for all.",
    },
    TOKEN: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of `POST /v1/tokens`: for what is about its user, or about nobody who is stored.",
    },
}
REFERENCE = "#/components/schemas/{model}"


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    pointer: str
    """JSON pointer into the body, or `?name` for a query parameter."""
    reason: str


class ProblemOut(BaseModel):
    """RFC 9457 problem details. The input is never in it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """`/problems/<slug>`; docs/problems.md says what each means."""
    title: str
    """The type in a sentence, always the same."""
    status: int
    detail: str | None = None
    """What to know of this case."""
    errors: list[FieldError] | None = None
    """At most 20, of `validation-error` and `timestamp-out-of-range`."""
    pointers: list[str] | None = None
    """At most 20 places in the body, of `event-id-conflict` and `unknown-item`."""
    missing: float | None = None
    """Effective samples that the log lacks, of `too-few-samples`."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these error statuses: which problem types each may have."""
    return {status: _described(status) for status in statuses}


def _described(status: int) -> dict[str, Any]:
    types = ", ".join(f"`{slug}`" for slug, kind in PROBLEMS.items() if kind.status == status)
    content = {"application/problem+json": {"schema": {"$ref": REFERENCE.format(model=ProblemOut.__name__)}}}
    return {"description": f"Problem: {types}.", "content": content}


def created(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI response for a put that created something."""
    return {201: {"model": model, "description": "Created."}}


def describe(app: FastAPI) -> None:
    """Put the problems, and who may use which route, into the application's document; FastAPI would offer problems as
    `application/json` too."""
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        document = derive()
        document["components"]["securitySchemes"] = SCHEMES
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                _say_who_may(operation, ACCESS[f"{method.upper()} {path}"])
                if has_deadline(path):
                    operation["responses"].setdefault("504", problems(504)[504])
        for model in (ProblemOut, FieldError):
            schema = model.model_json_schema(ref_template=REFERENCE)
            schema.pop("$defs", None)
            document["components"]["schemas"][model.__name__] = schema
        show_examples(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _say_who_may(operation: dict[str, Any], access: Access) -> None:
    """Put into an operation what a key needs for it, and the answers without."""
    if access.scope is not None:
        operation["security"] = [{KEY: [access.scope]}, *([] if access.own is None else [{TOKEN: []}])]
        operation["responses"] |= {str(status): answer for status, answer in problems(401, 403, 429).items()}

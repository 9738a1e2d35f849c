"""How problems appear in the OpenAPI document."""

from typing import Any

from pydantic import BaseModel


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str
    """JSON pointer into the body, or `?name` for a query parameter."""
    reason: str


class ProblemOut(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str | None = None
    errors: list[FieldError] | None = None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these error statuses."""
    content: dict[str, Any] = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemOut"}}}
    said: dict[int | str, dict[str, Any]] = {
        status: {"description": "Problem", "content": content} for status in statuses
    }
    if statuses:
        said[statuses[0]] = {"description": "Problem", "model": ProblemOut, "content": content}
    return said


def created(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI response for a put that created something."""
    return {201: {"model": model, "description": "Created."}}

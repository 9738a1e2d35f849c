"""Problem types: what went wrong, as RFC 9457 `application/problem+json`. One table; the input is never echoed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from app.engine.deadline import DeadlinePassed
from app.storage.errors import StorageUnavailable

log = structlog.get_logger()

MAX_VALIDATION_ERRORS = 20


@dataclass(frozen=True)
class ProblemType:
    """A row of the table."""

    status: int
    title: str


PROBLEMS: dict[str, ProblemType] = {
    "malformed-json": ProblemType(400, "The body is not the JSON this service reads."),
    "bad-request": ProblemType(400, "The request cannot be understood."),
    "unauthorized": ProblemType(401, "This takes a key, and there was none that opens anything."),
    "insufficient-scope": ProblemType(403, "The key is not for this."),
    "not-found": ProblemType(404, "There is nothing here."),
    "unknown-item": ProblemType(404, "An item that nobody has added."),
    "unknown-slate": ProblemType(404, "A slate that is not on record."),
    "method-not-allowed": ProblemType(405, "This address does not answer to that method."),
    "request-timeout": ProblemType(408, "The body did not arrive in time."),
    "event-id-conflict": ProblemType(409, "An event id that was stored before, with other content."),
    "idempotency-in-flight": ProblemType(409, "The first request with this Idempotency-Key is not done yet."),
    "reload-in-progress": ProblemType(409, "Another reload of this domain and role is under way."),
    "too-few-samples": ProblemType(409, "The log says too little to decide."),
    "gate-not-passed": ProblemType(409, "By the log the checkpoint may earn less than what is in service."),
    "user-erasing": ProblemType(409, "The user is being erased."),
    "payload-too-large": ProblemType(413, "The body is larger than this service takes."),
    "unsupported-media-type": ProblemType(415, "Bodies must be application/json."),
    "validation-error": ProblemType(422, "The request is understood, but some of it cannot be accepted."),
    "idempotency-key-reused": ProblemType(422, "An Idempotency-Key that was used before, for another request."),
    "timestamp-out-of-range": ProblemType(422, "A time that lies in the future."),
    "invalid-checkpoint-id": ProblemType(422, "A checkpoint is named, never addressed by path or URL."),
    "checkpoint-not-found": ProblemType(422, "There is no checkpoint of that name."),
    "checkpoint-unsupported-format": ProblemType(422, "That is not a checkpoint folder."),
    "checkpoint-invalid": ProblemType(422, "The checkpoint cannot be read."),
    "checkpoint-incompatible": ProblemType(422, "The checkpoint does not fit this service or this domain."),
    "checkpoint-non-finite": ProblemType(422, "The checkpoint holds values that are not finite."),
    "checkpoint-too-large": ProblemType(422, "The checkpoint is larger than this service loads."),
    "checkpoint-unsteady": ProblemType(422, "The checkpoint does not answer the same twice."),
    "checkpoint-digest-mismatch": ProblemType(422, "The checkpoint is not what was saved."),
    "nothing-to-roll-back": ProblemType(422, "No earlier checkpoint was deployed here."),
    "rate-limited": ProblemType(429, "More requests than this caller may send."),
    "headers-too-large": ProblemType(431, "The headers are larger than this service takes."),
    "internal-error": ProblemType(500, "Something went wrong on our side."),
    "overloaded": ProblemType(503, "More requests than this service can answer now."),
    "storage-unavailable": ProblemType(503, "The database does not answer."),
    "model-unavailable": ProblemType(503, "No checkpoint can answer, and the request wants no fallback."),
    "draining": ProblemType(503, "The service is shutting down."),
    "deadline-exceeded": ProblemType(504, "There is no answer in time."),
}

RETRY_AFTER = {
    "idempotency-in-flight": "1",
    "user-erasing": "1",
    "overloaded": "1",
    "storage-unavailable": "2",
    "model-unavailable": "5",
    "draining": "5",
}


class Problem(HTTPException):
    """Raise it anywhere below a route: the caller gets the problem's status, title, type and `detail`."""

    def __init__(self, slug: str, detail: str = "", **extra: Any) -> None:
        super().__init__(PROBLEMS[slug].status, detail)
        self.slug = slug
        self.extra = extra


def invalid(pointer: str, reason: str) -> Problem:
    """A validation error at one place of the body, found after its shape was checked."""
    return Problem("validation-error", errors=[{"pointer": pointer, "reason": reason}])


def problem_response(slug: str, detail: str = "", headers: Mapping[str, str] | None = None, **extra: Any) -> Response:
    """The response for a problem."""
    kind = PROBLEMS[slug]
    body: dict[str, Any] = {"type": f"/problems/{slug}", "title": kind.title, "status": kind.status}
    if detail:
        body["detail"] = detail
    all_headers = dict(headers or {})
    if slug in RETRY_AFTER:
        all_headers["Retry-After"] = RETRY_AFTER[slug]
    return Response(orjson.dumps(body | extra), kind.status, all_headers, "application/problem+json")


def told(error: Exception) -> tuple[int, str]:
    """Status and problem type that an error is answered with."""
    if isinstance(error, Problem):
        return error.status_code, error.slug
    if isinstance(error, RequestValidationError):
        return 422, "validation-error"
    if isinstance(error, StorageUnavailable):
        return 503, "storage-unavailable"
    if isinstance(error, DeadlinePassed):
        return 504, "deadline-exceeded"
    return 500, "internal-error"


def install(app: FastAPI) -> None:
    """Answer every error of the application as a problem."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(DeadlinePassed, _on_deadline_passed)
    app.add_exception_handler(StorageUnavailable, _on_storage_unavailable)
    app.add_exception_handler(Exception, _on_crash)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem_response(error.slug, str(error.detail), **error.extra)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return problem_response("method-not-allowed", headers={"Allow": ", ".join(_allowed(request))})
    return problem_response("not-found" if error.status_code == 404 else "bad-request", headers=error.headers)


def _allowed(request: Request) -> list[str]:
    """The methods that the address answers to; the framework knows those of the first matching route only."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"pointer": _pointer(entry), "reason": _reason(entry)} for entry in error.errors()[:MAX_VALIDATION_ERRORS]
    ]
    return problem_response("validation-error", errors=errors)


async def _on_storage_unavailable(request: Request, error: Exception) -> Response:
    log.error("storage_unavailable", route=_route(request), reason=str(error))
    return problem_response(
        "storage-unavailable", "It may or may not have been stored: send it again with the same event ids."
    )


async def _on_deadline_passed(request: Request, error: Exception) -> Response:
    return problem_response("deadline-exceeded")


async def _on_crash(request: Request, error: Exception) -> Response:
    # Answered outside of all middleware, so what every answer carries is put on here.
    request_id = request.state.request_id
    log.error("request_failed", route=_route(request), request_id=request_id, exc_info=error)
    headers = {"X-Request-ID": request_id, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
    return problem_response("internal-error", headers=headers)


def _route(request: Request) -> str:
    """The pattern of the address; the address itself may name a person, and the log is not for that."""
    return getattr(request.scope.get("route"), "path", "unmatched")


OF_THE_CALLER = frozenset({"attributes", "where", "kinds", "item_attributes"})
"""Tables whose keys the caller chooses. A pointer ends there, for a key is input and never echoed."""


def _pointer(entry: Mapping[str, Any]) -> str:
    """A JSON pointer into the body; `?name` for a query parameter, the name itself for a part of the path.

    A field that is not known is pointed at by what it stands in.
    """
    where, *rest = entry["loc"]
    if where != "body":
        return f"?{rest[0]}" if where == "query" and rest else "/".join(str(part) for part in rest)
    if entry["type"] == "extra_forbidden":
        rest.pop()
    for i, part in enumerate(rest):
        if part in OF_THE_CALLER:
            rest = rest[: i + 1]
    return "".join(f"/{part}" for part in rest) or "/"


def _reason(entry: Mapping[str, Any]) -> str:
    """Pydantic's sentence, which never has the input in it, in the words of somebody who reads JSON."""
    kind = entry["type"]
    if kind == "extra_forbidden":
        return "has a field that is not known here"
    if kind == "missing":
        return "is missing"
    message = str(entry["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.replace("Input should", "must").replace("should", "must")
    message = message.replace("dictionary", "object").replace("list", "array")
    return message[:1].lower() + message[1:]

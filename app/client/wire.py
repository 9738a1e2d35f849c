"""What both clients do with HTTP: addresses, headers, retries, answers."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from httpx_retries import Retry
from pydantic import TypeAdapter, ValidationError

from app import __version__
from app.client.errors import WarmstartError

T = TypeVar("T")

MAX_WAIT = 10.0
"""Seconds between two tries at the most, whatever the service asks for."""
FIRST_WAIT = 0.2
"""Seconds, doubled at each try and shortened by chance, where the service does not say how long to wait."""
TRY_AGAIN = (408, 429, 502, 503, 504)
ONCE = Retry(total=0)
"""For what does something else the second time."""


class _ComeBack(Exception):
    """A conflict that passes."""


def _conflict_passes(response: httpx.Response) -> None:
    """A 409 that says when to come back is a request of ours that is still being worked on."""
    if response.status_code == 409 and "Retry-After" in response.headers:
        raise _ComeBack


def retries(total: int) -> Retry:
    """How often a request is tried again, and after what: `Retry-After` where the service says it."""
    return Retry(
        total=total,
        allowed_methods=("GET", "POST", "PUT", "DELETE"),
        status_forcelist=TRY_AGAIN,
        retry_on_exceptions=(*Retry.RETRYABLE_EXCEPTIONS, _ComeBack),
        backoff_factor=FIRST_WAIT,
        max_backoff_wait=MAX_WAIT,
        validate_response=_conflict_passes,
    )


def headers(token: str | None) -> dict[str, str]:
    """Headers of every request. `token` is an API key, or the token of one user."""
    given = {"User-Agent": f"warmstart-python/{__version__}", "Accept": "application/json"}
    return given | ({"Authorization": f"Bearer {token}"} if token else {})


def address(template: str, **ids: str) -> str:
    """A path with ids in it.

    >>> address("/v1/items/{domain}/{item_id}", domain="books", item_id="a/b c")
    '/v1/items/books/a%2Fb%20c'
    """
    return template.format_map({name: _segment(value) for name, value in ids.items()})


def _segment(value: str) -> str:
    """An id as a segment of a path; a segment of dots alone would be taken for a step upwards."""
    quoted = quote(value, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def filled(**values: Any) -> dict[str, Any]:
    """What of a body or a query is given; the rest is left to the service.

    >>> filled(k=3, filters=None)
    {'k': 3}
    """
    return {name: value for name, value in values.items() if value is not None}


def named(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Events each with an `event_id`, so that they may be sent again."""
    return [{**event, "event_id": event.get("event_id") or uuid4().hex} for event in events]


def once_per_call() -> dict[str, str]:
    """The header by which the service knows the retries of one call."""
    return {"Idempotency-Key": uuid4().hex}


def decoded(response: httpx.Response, answer: type[T]) -> T:
    """The answer. Raises WarmstartError where it is none of this service's."""
    try:
        return TypeAdapter(answer).validate_json(response.content)
    except ValidationError as error:
        raise WarmstartError(f"the answer of {response.url} cannot be read: {error}") from error

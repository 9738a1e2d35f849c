"""Strict JSON: what the standard decoder lets through and would come back as a 500 is refused with a 400."""

import re
from collections.abc import Callable
from dataclasses import asdict
from inspect import getdoc, signature
from math import isfinite
from typing import Any

import jiter
import orjson
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from app.api.access import Handler, access_of, guarded, only_own
from app.api.addresses import decoded
from app.api.depends import named_write
from app.errors import Problem
from app.security import Caller
from app.services.once import Done

MAX_DEPTH = 32
_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
_MAYBE_HUGE = (b"0e000", b"0e+000", b"0" * 309)
"""What a number beyond the largest float has in it, once its digits are made alike; a hit is looked at more closely.
A regular expression for the same takes as long as all the rest of reading a batch."""


def parse_json(body: bytes) -> Any:
    """The value of a JSON document.

    Raises Problem (malformed-json) for NaN and infinities, numbers that overflow, duplicate keys, lone surrogates,
    invalid UTF-8, trailing bytes and nesting over 32.

    >>> parse_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    try:
        value = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")
    except ValueError as error:
        raise Problem("malformed-json", _position(str(error))) from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_depth(value, 1)
    alike = body.translate(_ALIKE)
    if any(sign in alike for sign in _MAYBE_HUGE):
        _check_numbers(value)
    return value


def _check_depth(value: Any, depth: int) -> None:
    """Looks into what holds something only: a batch has thousands of values, and few of those."""
    for inner in value.values() if type(value) is dict else value if type(value) is list else ():
        if type(inner) is dict or type(inner) is list:
            if depth == MAX_DEPTH:
                raise Problem("malformed-json", f"nesting over {MAX_DEPTH}")
            _check_depth(inner, depth + 1)


def _check_numbers(value: Any) -> None:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_numbers(inner)
    elif (isinstance(value, float) and not isfinite(value)) or (isinstance(value, int) and abs(value) >= 2**1024):
        raise Problem("malformed-json", "a number that is too large")


def _position(message: str) -> str:
    """Where parsing failed, without the key that jiter names for a duplicate (the input is never echoed)."""
    return re.sub(r'"[^"]*" ', "", message).lower() if "duplicate" in message else message


class StrictRequest(Request):
    """A request whose body is parsed by `parse_json`."""

    async def json(self) -> Any:
        if not hasattr(self, "_parsed"):
            self._parsed = parse_json(await self.body())
        return self._parsed


class DescribedRoute(APIRoute):
    """A route that knows who may use it, and whose summary in the OpenAPI document is the first sentence of the
    endpoint's docstring."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        summary, _, more = (getdoc(endpoint) or "").partition(". ")
        options["summary"] = summary.rstrip(".") + "."
        options["description"] = more
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Handler:
        return guarded(access_of(self.methods or (), self.path), self.path, self.unguarded())

    def unguarded(self) -> Handler:
        """What answers those who may use the route."""
        return super().get_route_handler()


class StrictRoute(DescribedRoute):
    """A route that takes JSON bodies only and parses them strictly; the ids in its address may have slashes in them."""

    def unguarded(self) -> Handler:
        handle = super().unguarded()
        field, endpoint = self.body_field, self.endpoint
        access = access_of(self.methods or (), self.path)
        given = set(signature(endpoint).parameters)
        plain = given <= {"here", "body", "write"}

        async def strict(received: Request) -> Response:
            request = StrictRequest(received.scope, received.receive)
            if received.path_params:
                request.scope["path_params"] = {name: decoded(value) for name, value in received.path_params.items()}
            if field is None:
                return await handle(request)
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise Problem("unsupported-media-type")
            if not await request.body():
                raise Problem("malformed-json", "the body is empty")
            caller: Caller = request.state.caller
            if caller.user_id is not None:
                only_own(access, caller, await request.json())
            if not plain:
                return await handle(request)
            # The busiest routes have nothing for FastAPI's resolver of dependencies to resolve: it takes as long as
            # the validation of a body.
            body, errors = field.validate(await request.json(), {}, loc=("body",))
            if errors:
                raise RequestValidationError(errors)
            more = {}
            if "write" in given:
                more["write"] = await named_write(request, request.headers.get("idempotency-key"))
            response: Response = await endpoint(here=request.app.state.installation, body=body, **more)
            return response

        return strict


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Encode with orjson, past FastAPI's second validation of what the service itself made."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, "application/json")


REPLAYED = {"Idempotent-Replayed": "true"}


def done_response(done: Done[Any], status: int = 200) -> Response:
    """What a write came to, its counts; the same again where it was done before, which a header tells."""
    return json_response(asdict(done.result), status, REPLAYED if done.replayed else None)

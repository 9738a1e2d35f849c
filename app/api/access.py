"""Who may use which route: one table, and the check that every route makes before it does anything else.

A route that is not in the table cannot be made. Where the service asks for keys, one is sent as
`Authorization: Bearer KEY`; the answer to any request without one that holds is the same.
"""

import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope as AsgiScope

from app.errors import Problem
from app.security import ANYBODY, PREFIX, Caller, Scope
from app.services.installation import Installation

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a route."""

    scope: Scope | None
    """What a key needs; None: everybody may, without any."""


EVERYBODY = Access(None)
READ = Access(Scope.READ)
INGEST = Access(Scope.INGEST)
ADMIN = Access(Scope.ADMIN)

ACCESS: dict[str, Access] = {
    "GET /": EVERYBODY,
    "GET /admin": EVERYBODY,
    "GET /assets/{digest}/{name}": EVERYBODY,
    "GET /livez": EVERYBODY,
    "GET /readyz": EVERYBODY,
    "GET /metrics": READ,
    "POST /v1/recommendations": READ,
    "GET /v1/users/{user_id}/recommendations": READ,
    "POST /v1/cold-start/recommendations": READ,
    "POST /v1/cold-start/questions": READ,
    "POST /v1/predictions": READ,
    "POST /v1/interactions": INGEST,
    "DELETE /v1/interactions/{event_id}": INGEST,
    "POST /v1/rewards": INGEST,
    "GET /v1/domains": READ,
    "PUT /v1/domains/{domain}": ADMIN,
    "POST /v1/items": INGEST,
    "GET /v1/items/{domain}": READ,
    "PUT /v1/items/{domain}/{item_id}": INGEST,
    "GET /v1/items/{domain}/{item_id}": READ,
    "DELETE /v1/items/{domain}/{item_id}": INGEST,
    "GET /v1/items/{domain}/{item_id}/similar": READ,
    "POST /v1/users": INGEST,
    "PUT /v1/users/{user_id}": INGEST,
    "GET /v1/users/{user_id}": READ,
    "GET /v1/users/{user_id}/slates": READ,
    "GET /v1/users/{user_id}/export": READ,
    "POST /v1/users/{user_id}/merge": INGEST,
    "DELETE /v1/users/{user_id}": INGEST,
    "GET /v1/admin/checkpoints": ADMIN,
    "POST /v1/admin/checkpoints/reload": ADMIN,
    "POST /v1/admin/checkpoints/rollback": ADMIN,
    "POST /v1/admin/evaluations": ADMIN,
    "GET /v1/admin/exploration": ADMIN,
    "PUT /v1/admin/exploration": ADMIN,
    "GET /v1/admin/arms": ADMIN,
}
"""By method and path. Beside these there are `/openapi.json` and `/docs` only, which say nothing of the installation
and are for everybody."""

CHALLENGE = 'Bearer realm="warmstart"'


def access_of(methods: Iterable[str], path: str) -> Access:
    """The row of a route. Raises LookupError where there is none, or several that differ."""
    rows = {ACCESS.get(f"{method} {path}") for method in methods}
    if len(rows) != 1 or None in rows:
        raise LookupError(f"{path} does not say who may use it: it needs a row in app/api/access.py")
    (row,) = rows
    assert row is not None
    return row


def guarded(access: Access, handle: Handler) -> Handler:
    """A route's handler behind its check."""
    scope = access.scope
    if scope is None:
        return handle

    async def checked(request: Request) -> Response:
        caller = await caller_of(request)
        if not caller.may(scope):
            challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            raise Problem("insufficient-scope", f"It needs the scope {scope}.", headers={"WWW-Authenticate": challenge})
        request.state.caller = caller
        return await handle(request)

    return checked


async def caller_of(request: Request) -> Caller:
    """Whom a request is made for. Raises Problem (unauthorized)."""
    here: Installation = request.app.state.installation
    if here.settings.access == "proxy":
        return ANYBODY
    keyring = await here.keyring()
    if not keyring.keys and here.settings.access == "auto" and _from_this_machine(request.scope):
        return ANYBODY
    key = _given_key(request.scope)
    caller = None if key is None else keyring.caller(key, time.time())
    if caller is None:
        raise Problem("unauthorized", headers={"WWW-Authenticate": CHALLENGE})
    return caller


def _given_key(scope: AsgiScope) -> str | None:
    """The key that a request carries in the one place for it. One in the address is in somebody's log by now."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1 or PREFIX.encode() in scope["query_string"]:
        return None
    scheme, _, key = given[0].partition(b" ")
    return key.strip().decode("latin-1") if scheme.lower() == b"bearer" else None


def _from_this_machine(scope: AsgiScope) -> bool:
    """Whether a request comes from here and is meant for here.

    A page of another site that has its own name point at this machine comes from here, under that name.
    """
    client = scope.get("client")
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), None)
    return (client is None or _is_loopback(client[0])) and (host is None or _is_loopback(_without_port(host)))


def _without_port(host: str) -> str:
    """The name or address of a Host header.

    >>> _without_port("localhost:8000"), _without_port("[::1]:8000"), _without_port("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


@lru_cache(maxsize=256)
def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False

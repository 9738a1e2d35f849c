"""Who may use which route: one table, and the check that every route makes before it does anything else.

A route that is not in the table cannot be made. Where the service asks for keys, one is sent as
`Authorization: Bearer KEY`; the answer to any request without one that holds is the same.
"""

import re
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Scope as AsgiScope

from app.api.addresses import decoded
from app.errors import Problem, told
from app.security import ANYBODY, PREFIX, Caller, Scope
from app.services import audit
from app.services.access import Keyring
from app.services.installation import Installation, answering
from app.storage.records import Act, Revisions

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a route."""

    scope: Scope | None
    """What a key needs; None: everybody may, without any."""
    own: tuple[str, ...] | None = None
    """Where ids of users stand in a request, each of which must be the one that a user's token is for: a name is of the
    address, a path with `/` is of the body. None: tokens of users are for other routes."""


EVERYBODY = Access(None)
READ = Access(Scope.READ)
INGEST = Access(Scope.INGEST)
ADMIN = Access(Scope.ADMIN)
ASK = Access(Scope.READ, own=())
"""What is the same for all who ask it, or about somebody who is not stored."""
ASK_IN_BODY = Access(Scope.READ, own=("/user_id",))
READ_OWN = Access(Scope.READ, own=("user_id",))
CHANGE_OWN = Access(Scope.INGEST, own=("user_id",))

ACCESS: dict[str, Access] = {
    "GET /": EVERYBODY,
    "GET /admin": EVERYBODY,
    "GET /docs": EVERYBODY,
    "GET /assets/{digest}/{name}": EVERYBODY,
    "GET /livez": EVERYBODY,
    "GET /readyz": EVERYBODY,
    "GET /metrics": READ,
    "POST /v1/tokens": INGEST,
    "POST /v1/recommendations": ASK_IN_BODY,
    "GET /v1/users/{user_id}/recommendations": READ_OWN,
    "POST /v1/cold-start/recommendations": ASK,
    "POST /v1/cold-start/questions": ASK,
    "POST /v1/predictions": ASK_IN_BODY,
    "POST /v1/interactions": Access(Scope.INGEST, own=("/interactions/*/user_id",)),
    "DELETE /v1/interactions/{event_id}": Access(Scope.INGEST, own=()),  # which looks for events of the user only
    "POST /v1/rewards": INGEST,
    "GET /v1/domains": ASK,
    "PUT /v1/domains/{domain}": ADMIN,
    "POST /v1/items": INGEST,
    "GET /v1/items/{domain}": ASK,
    "PUT /v1/items/{domain}/{item_id}": INGEST,
    "GET /v1/items/{domain}/{item_id}": ASK,
    "DELETE /v1/items/{domain}/{item_id}": INGEST,
    "GET /v1/items/{domain}/{item_id}/similar": ASK,
    "POST /v1/users": INGEST,
    "PUT /v1/users/{user_id}": CHANGE_OWN,
    "GET /v1/users/{user_id}": READ_OWN,
    "GET /v1/users/{user_id}/slates": READ_OWN,
    "GET /v1/users/{user_id}/export": READ_OWN,
    "POST /v1/users/{user_id}/merge": INGEST,
    "DELETE /v1/users/{user_id}": CHANGE_OWN,
    "GET /v1/admin/checkpoints": ADMIN,
    "POST /v1/admin/checkpoints/reload": ADMIN,
    "POST /v1/admin/checkpoints/rollback": ADMIN,
    "POST /v1/admin/evaluations": ADMIN,
    "GET /v1/admin/exploration": ADMIN,
    "PUT /v1/admin/exploration": ADMIN,
    "GET /v1/admin/arms": ADMIN,
    "GET /v1/admin/audit": ADMIN,
}
"""By method and path. Beside these there is `/openapi.json` only, which says nothing of the installation and is for
everybody."""

CHALLENGE = 'Bearer realm="warmstart"'


def access_of(methods: Iterable[str], path: str) -> Access:
    """The row of a route. Raises LookupError where there is none, or several that differ."""
    rows = {ACCESS.get(f"{method} {path}") for method in methods}
    if len(rows) != 1 or None in rows:
        raise LookupError(f"{path} does not say who may use it: it needs a row in app/api/access.py")
    (row,) = rows
    assert row is not None
    return row


def guarded(access: Access, path: str, handle: Handler) -> Handler:
    """A route's handler behind its check; what admin routes are asked is put on record."""
    scope = access.scope
    if scope is None:
        return handle

    async def checked(request: Request) -> Response:
        caller, seen = await _identified(request)
        await _let(caller, access, request)
        with answering(seen):
            return await handle(request)

    async def recorded(request: Request) -> Response:
        here: Installation = request.app.state.installation
        act = Act(request.method, path, request_id=request.state.request_id)
        try:
            caller, _ = await _identified(request)
            act = replace(act, key_id=caller.key_id)
            await _let(caller, access, request)
        except Problem as refusal:
            if refusal.slug != "rate-limited" or act.key_id is not None:
                await audit.refused(here, act, refusal.status_code, refusal.slug)
            raise
        row = await audit.begin(here, act)
        try:
            response = await handle(request)
        except Exception as error:
            await audit.end(here, row, *told(error))
            raise
        await audit.end(here, row, response.status_code)
        return response

    return recorded if scope is Scope.ADMIN else checked


def is_welcome(scope: AsgiScope) -> bool:
    """Whether a request would pass its route's check by the keys that this worker knows of, so that its body is worth
    reading before its turn comes.

    Nothing is decided by that and nothing counted. The route checks again, by keys that are new; a body that was left
    unread is read when a route asks for it.
    """
    here: Installation = scope["app"].state.installation
    access = _access_at(scope["method"], scope["path"])
    if access is None or access.scope is None:
        return access is not None
    caller = _caller_by(here, here.keyring_at_hand, scope)
    if caller is None or caller.user_id is None:
        return caller is not None and caller.may(access.scope)
    return access.own is not None


def _access_at(method: str, path: str) -> Access | None:
    """The row that a path is for; None where there is none."""
    return next((access for pattern, access in _patterns(method) if pattern.match(path)), None)


@lru_cache(maxsize=16)
def _patterns(method: str) -> list[tuple[re.Pattern[str], Access]]:
    rows = [(route.split(), access) for route, access in ACCESS.items()]
    return [(compile_path(path)[0], access) for (of, path), access in rows if of == method]


def only_own(access: Access, caller: Caller, body: Any) -> None:
    """Check the users that a body speaks of. Raises Problem (insufficient-scope) where a token is for another one."""
    for place in access.own or ():
        if "/" in place and any(user_id != caller.user_id for user_id in _at(body, place.split("/")[1:])):
            raise _not_for(caller, access)


def _at(value: Any, steps: Sequence[str]) -> Iterator[Any]:
    """What stands at a place of a body, if it is there; `*` is each entry of a list. null is nobody."""
    if not steps:
        if value is not None:
            yield value
    elif steps[0] == "*" and isinstance(value, list):
        for entry in value:
            yield from _at(entry, steps[1:])
    elif isinstance(value, dict) and steps[0] in value:
        yield from _at(value[steps[0]], steps[1:])


async def _let(caller: Caller, access: Access, request: Request) -> None:
    """Let a caller near a route, and count that. Raises Problem: rate-limited, insufficient-scope."""
    request.state.caller = caller
    if caller.name:
        settings = request.app.state.installation.settings
        default = settings.rate_limit if caller.user_id is None else settings.user_rate_limit
        await _count(request, default if caller.rate_limit is None else caller.rate_limit, caller.name)
    if caller.user_id is None:
        if access.scope is not None and not caller.may(access.scope):
            raise _not_for(caller, access)
        return
    named = (request.path_params[place] for place in access.own or () if "/" not in place)
    if access.own is None or any(decoded(user_id) != caller.user_id for user_id in named):
        raise _not_for(caller, access)


def _not_for(caller: Caller, access: Access) -> Problem:
    challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{access.scope}"'
    detail = f"It needs the scope {access.scope}." if caller.user_id is None else "A token of a user is for that user."
    return Problem("insufficient-scope", detail, headers={"WWW-Authenticate": challenge})


async def _identified(request: Request) -> tuple[Caller, Revisions | None]:
    """Whom a request is made for, and the revisions that were read to know it, if any were.

    Raises Problem: unauthorized, or rate-limited where an address was told so too often.
    """
    here: Installation = request.app.state.installation
    caller, seen = await _caller_of(request)
    if caller is None:
        address = (request.client.host if request.client else "") or "unix"
        await _count(request, here.settings.refused_rate_limit, f"address {address}", shared=False)
        raise Problem("unauthorized", headers={"WWW-Authenticate": CHALLENGE})
    return caller, seen


async def _count(request: Request, limit: str, name: str, *, shared: bool = True) -> None:
    """Count a request towards a limit, and have its answer say how its caller stands. Raises Problem (rate-limited)."""
    if not limit:
        return
    standing = await request.app.state.installation.limiter.hit(limit, name, shared=shared)
    if not standing.allowed:
        raise Problem("rate-limited", headers=standing.headers)
    if shared:
        request.state.headers = standing.headers


async def _caller_of(request: Request) -> tuple[Caller | None, Revisions | None]:
    here: Installation = request.app.state.installation
    if here.settings.access == "proxy":
        return ANYBODY, None
    keyring, seen = await here.asked()
    return _caller_by(here, keyring, request.scope), seen


def _caller_by(here: Installation, keyring: Keyring, scope: AsgiScope) -> Caller | None:
    """Whom a request is made for, by those keys; None: nobody who may."""
    access = here.settings.access
    if access == "proxy" or (access == "auto" and not keyring.keys and _from_this_machine(scope)):
        return ANYBODY
    given = _given_key(scope)
    return None if given is None else keyring.caller(given, time.time())


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

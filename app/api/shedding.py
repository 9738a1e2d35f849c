"""Overload and deadlines, in pure ASGI: a request gets its turn or is refused, and an answer in time or none.

What keeps an installation running is never refused: health, metrics, the page, and admin calls, which have no deadline
either.
"""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.engine.deadline import DEADLINE
from app.errors import problem_response
from app.services.admission import Admission, Refused
from app.settings import Settings
from app.telemetry import DEADLINES_PASSED

UNKNOWN_OUTCOME = "A write may or may not have been stored: send it again with the same event ids."


_REFUSAL = problem_response("overloaded")


class Door:
    """Turns requests away before they are read, where even to let them wait would cost those that are answered."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self.app = app
        self.admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and has_deadline(scope["path"]) and self.admission.turn_away():
            await _refuse(self.admission, scope, receive, send)
        else:
            await self.app(scope, receive, send)


class LoadShedding:
    """Lets in as many requests as can be answered; see `app.services.admission`."""

    def __init__(self, app: ASGIApp, settings: Settings, admission: Admission) -> None:
        self.app = app
        self.admission = admission
        self.deadline = settings.deadline_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not has_deadline(scope["path"]):
            await self.app(scope, receive, send)
            return
        answer = _Answer(scope, receive, send)
        deadline = time.monotonic() + self.deadline
        DEADLINE.set(deadline)  # each request has a task of its own
        try:
            await self.admission.enter()
        except Refused:
            await _refuse(self.admission, scope, receive, send)
            return
        started = time.monotonic()
        timer = asyncio.get_running_loop().call_later(deadline - started, answer.expire)
        try:
            await self.app(scope, receive, answer.send)
        finally:
            timer.cancel()
            kind = getattr(scope.get("route"), "path", "unmatched")
            self.admission.leave(f"{scope['method']} {kind}", time.monotonic() - started)


class _Answer:
    """The answer to one request: the application's, or that there is none in time; whichever begins first.

    The work itself is not cancelled. It may be in the middle of a commit, and it gives up by itself where that is safe.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begun = False
        self._expired: asyncio.Task[None] | None = None

    async def send(self, message: Message) -> None:
        """Pass on a message of the application's."""
        if self._expired is None:
            self._begun = True
            await self._send(message)

    def expire(self) -> None:
        """The time is over."""
        if not self._begun:
            DEADLINES_PASSED.inc()
            detail = "" if self._scope["method"] == "GET" else UNKNOWN_OUTCOME
            response = problem_response("deadline-exceeded", detail)
            self._expired = asyncio.create_task(response(self._scope, self._receive, self._send))


async def _refuse(admission: Admission, scope: Scope, receive: Receive, send: Send) -> None:
    await admission.refusals.turn()
    await _REFUSAL(scope, receive, send)


def has_deadline(path: str) -> bool:
    """Whether requests for a path are admitted one by one and have to be answered in time."""
    return path.startswith("/v1/") and not path.startswith("/v1/admin/")

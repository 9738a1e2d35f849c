"""Limits on what comes in, in pure ASGI (BaseHTTPMiddleware breaks cancellation)."""

import asyncio
import time
from functools import lru_cache

import structlog
from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.access import is_welcome
from app.api.addresses import routed_path
from app.errors import Problem, problem_response
from app.settings import Settings
from app.telemetry import REQUEST_SECONDS

log = structlog.get_logger()

DRAIN_BYTES = 8 * 1024 * 1024
"""Of a body that is refused, this much is still read, so that the answer arrives before the connection closes."""


class RequestLimits:
    """Reads the body within the limits of size and time, then hands it on whole; counts and times every request.

    The body of somebody whom the route will refuse is left where it is: they are told so before they have sent it.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.max_body = settings.max_body_bytes
        self.max_headers = settings.max_header_bytes
        self.timeout = settings.body_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._look_at_head(scope)
            body = _Body(receive, self.max_body, self.timeout)
            if not is_welcome(scope) or await body.arrives():
                await self.app(scope, body.receive, watched)
        except Problem as refusal:
            await problem_response(refusal.slug)(scope, receive, watched)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "unmatched")
            _observed(scope["method"], path, status).observe(time.perf_counter() - started)

    def _look_at_head(self, scope: Scope) -> None:
        """Set the path to route by. Raises Problem: bad-request, headers-too-large."""
        try:
            scope["path"] = routed_path(scope["raw_path"])
        except UnicodeDecodeError:
            raise Problem("bad-request") from None
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self.max_headers:
            raise Problem("headers-too-large")


class _Body:
    """The body of a request: read whole, within its limits, when it is asked for the first time."""

    def __init__(self, receive: Receive, max_bytes: int, seconds: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._message: Message | None = None
        self._handed_on = False

    async def receive(self) -> Message:
        """The body as one message; then whatever else comes, which is that the client goes away."""
        if self._handed_on:
            return await self._receive()
        await self.arrives()
        self._handed_on = True
        assert self._message is not None
        return self._message

    async def arrives(self) -> bool:
        """Read it; False where the client went away. Raises Problem: payload-too-large, request-timeout."""
        if self._message is None:
            try:
                async with asyncio.timeout(self._seconds):
                    self._message = await self._read()
            except TimeoutError:
                raise Problem("request-timeout") from None
        arrived: bool = self._message["type"] == "http.request"
        return arrived

    async def _read(self) -> Message:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return message
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= self._max_bytes:
                chunks.append(chunk)
            if not message.get("more_body", False) or size > DRAIN_BYTES:
                break
        if size > self._max_bytes:
            raise Problem("payload-too-large")
        return {"type": "http.request", "body": b"".join(chunks), "more_body": False}


@lru_cache(maxsize=1000)
def _observed(method: str, path: str, status: int) -> Histogram:
    """The histogram of one kind of request; looking it up by labels takes longer than observing."""
    return REQUEST_SECONDS.labels(method, path, str(status))

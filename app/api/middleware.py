"""Limits on what comes in, in pure ASGI (BaseHTTPMiddleware breaks cancellation)."""

import asyncio
import time
from functools import lru_cache

import structlog
from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.addresses import routed_path
from app.errors import problem_response
from app.settings import Settings
from app.telemetry import REQUEST_SECONDS

log = structlog.get_logger()

DRAIN_BYTES = 8 * 1024 * 1024
"""Of a body that is refused, this much is still read, so that the answer arrives before the connection closes."""


class RequestLimits:
    """Reads the body within the limits of size and time, then hands it on whole; counts and times every request."""

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
            refused, body = await self._read(scope, receive)
            if refused:
                await problem_response(refused)(scope, receive, watched)
            elif body is not None:
                await self.app(scope, _replay(body, receive), watched)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "unmatched")
            _observed(scope["method"], path, status).observe(time.perf_counter() - started)

    async def _read(self, scope: Scope, receive: Receive) -> tuple[str | None, bytes | None]:
        """(problem, body): one of them, or neither where the client went away. Sets the path to route by."""
        try:
            scope["path"] = routed_path(scope["raw_path"])
        except UnicodeDecodeError:
            return "bad-request", None
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self.max_headers:
            return "headers-too-large", None
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None, None
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size <= self.max_body:
                        chunks.append(chunk)
                    if not message.get("more_body", False) or size > DRAIN_BYTES:
                        break
        except TimeoutError:
            return "request-timeout", None
        if size > self.max_body:
            return "payload-too-large", None
        return None, b"".join(chunks)


@lru_cache(maxsize=1000)
def _observed(method: str, path: str, status: int) -> Histogram:
    """The histogram of one kind of request; looking it up by labels takes longer than observing."""
    return REQUEST_SECONDS.labels(method, path, str(status))


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay

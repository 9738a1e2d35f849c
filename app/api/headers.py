"""What every answer carries, in pure ASGI (BaseHTTPMiddleware breaks cancellation)."""

import random
import re
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.services.limits import LIMIT_HEADERS

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_NO_STORE = (b"cache-control", b"no-store")


class AnswerHeaders:
    """Gives each request an id, and each answer that id, what a route has put into `request.state.headers`, and
    `no-store` where it does not say itself who may keep it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        # Unguessable it need not be, and a system call would give the interpreter away at each request.
        state["request_id"] = request_id = _given_id(scope) or f"{random.getrandbits(128):032x}"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"x-request-id", request_id.encode()), _NOSNIFF]
                if all(name != b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
                more: Mapping[str, str] = state.get("headers", {})
                headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
                message["headers"] = headers
            await send(message)

        await self.app(scope, receive, send_with_headers)


def cross_origin(origins: str) -> dict[str, Any]:
    """Arguments of Starlette's CORSMiddleware. Nothing is known by a cookie: a page of another origin has to have a key
    or a token to send, and what a browser would add by itself is not asked for."""
    return {
        "allow_origins": [origin.strip() for origin in origins.split(",")],
        "allow_methods": ["GET", "POST", "PUT", "DELETE"],
        "allow_headers": ["Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID"],
        "expose_headers": ["Idempotent-Replayed", "Retry-After", "X-Request-ID", *LIMIT_HEADERS],
        "max_age": 600,
    }


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text: str = value.decode("latin-1")
            return text if _REQUEST_ID.fullmatch(text) else None
    return None

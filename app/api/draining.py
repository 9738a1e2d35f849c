"""Leaving in good order: on SIGTERM readiness goes first, and only after a pause the server stops to accept.

The server (uvicorn) closes its listener at once on SIGTERM. Whoever distributes requests among several servers learns
of that by failed connections, unless it is told before: hence the pause.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger()


@contextmanager
def readiness_first(leave: Callable[[], None], pause: float) -> Iterator[None]:
    """Within the block SIGTERM calls `leave`, and `pause` seconds later what the server has set up for the signal.

    Nothing changes where the server handles no signals, as in tests of the application alone.
    """
    stop = signal.getsignal(signal.SIGTERM)
    if not callable(stop) or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    leaving = False

    def begin() -> None:
        nonlocal leaving
        if not leaving:
            leaving = True
            log.info("draining", seconds=pause)
            leave()
            loop.call_later(pause, stop, signal.SIGTERM, None)

    def on_signal(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin)

    signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, stop)


class LastAnswers:
    """While the service is not ready, closes each connection after its answer: the next request goes elsewhere."""

    def __init__(self, app: ASGIApp, ready: Callable[[], bool]) -> None:
        self.app = app
        self.ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and not self.ready():
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self.app(scope, receive, send_last if scope["type"] == "http" else send)

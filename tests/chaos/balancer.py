"""A balancer as small as one can be: it sends requests by turns to the servers whose `/readyz` answers 200.

It never sends a request twice, and keeps connections open between requests, for as long as real ones do by default.
What a server fails to answer comes back as 502, with the reason: a failure that somebody would have seen.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

LOOK_SECONDS = 0.1
"""Pause between two looks at a server's readiness."""
LOOK_TIMEOUT_SECONDS = 1.0
FALL = 3
"""Looks in a row without a 200 after which a server gets no more requests, as with HAProxy and Kubernetes."""
NOTICED_SECONDS = FALL * (LOOK_SECONDS + LOOK_TIMEOUT_SECONDS)
"""Time within which the balancer certainly knows that a server is not ready."""
IDLE_SECONDS = 60.0
"""A connection that was not used for longer is not used again, as with nginx. Nobody looks whether the server has
closed it meanwhile: one that does so sooner is found out."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Unanswered(Exception):
    """A request that a server did not answer; the message says why."""


class Backend:
    """One server, and the connections to it that nobody uses at the moment."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.ready = False
        self.seen = ["nobody has looked"]
        """What the last looks saw, the latest at the end."""
        self.idle: list[tuple[Connection, float]] = []
        """Each with when it was used last, the latest at the end."""

    async def exchange(self, request: bytes) -> bytes:
        """The answer to a request. Raises Unanswered where there is none."""
        now = time.monotonic()
        if self.idle and self.idle[-1][1] < now - IDLE_SECONDS:
            self.close_idle()
        (reader, writer), used = self.idle.pop() if self.idle else (await self._connect(), now)
        try:
            writer.write(request)
            head, body = await read_message(reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            writer.close()
            raise Unanswered(f"{error!r} on a connection that was idle for {now - used:.1f} s") from error
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self.idle.append(((reader, writer), time.monotonic()))
        return head + body

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        for (_, writer), _ in self.idle:
            writer.close()
        self.idle.clear()

    async def _connect(self) -> Connection:
        try:
            return await asyncio.open_connection("127.0.0.1", self.port)
        except OSError as error:
            raise Unanswered(f"no connection: {error!r}") from error

    async def look(self) -> None:
        """Find out whether it is ready, by a connection of its own."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: balancer\r\nconnection: close\r\n\r\n")
                head, _ = await read_message(reader)
                writer.close()
            seen = head.split(maxsplit=2)[1].decode()
        except (OSError, asyncio.IncompleteReadError) as error:
            seen = repr(error)
        self.seen = [*self.seen, seen][-FALL:]
        self.ready = seen == "200" or (self.ready and "200" in self.seen)
        if not self.ready:
            self.close_idle()


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """(head, body) of an HTTP message with a Content-Length or without a body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return head, await reader.readexactly(int(length or 0))


def _own_answer(status: str, why: str) -> bytes:
    """An answer of the balancer's own."""
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(why.encode())}\r\n\r\n{why}".encode()


class Balancer:
    """Runs in a thread of its own while the block lasts; `port` is where it listens."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.backends = [Backend(port) for port in ports]
        self.port = 0
        self._turn = 0
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def ready(self, port: int) -> bool:
        """Whether a server gets requests."""
        return any(backend.ready for backend in self.backends if backend.port == port)

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        looks = [asyncio.create_task(self._look(backend)) for backend in self.backends]
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        await self._over.wait()
        for look in looks:
            look.cancel()
        server.close()

    async def _look(self, backend: Backend) -> None:
        while True:
            await backend.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head, body = await read_message(reader)
                writer.write(await self._answer(head + body))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        ready = [backend for backend in self.backends if backend.ready]
        if not ready:
            seen = "; ".join(f"{backend.port}: {', '.join(backend.seen)}" for backend in self.backends)
            return _own_answer("503 Service Unavailable", f"nobody is ready: {seen}")
        self._turn += 1
        try:
            return await ready[self._turn % len(ready)].exchange(request)
        except Unanswered as error:
            return _own_answer("502 Bad Gateway", str(error))

"""A balancer as small as one can be: it sends requests by turns to the servers whose `/readyz` answers 200.

It never sends a request twice, and keeps connections open between requests, as real ones do by default. What a server
fails to answer comes back as 502: a failure that somebody would have seen.
"""

import asyncio
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

LOOK_SECONDS = 0.1
"""Pause between two looks at a server's readiness."""
FAILED = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n"
NOBODY = b"HTTP/1.1 503 Service Unavailable\r\nx-balancer: nobody is ready\r\ncontent-length: 0\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Backend:
    """One server, and the connections to it that nobody uses at the moment."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.ready = False
        self.idle: list[Connection] = []

    async def exchange(self, request: bytes) -> bytes:
        """The answer to a request. Raises OSError or IncompleteReadError where there is none."""
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            head, body = await read_message(reader)
        except BaseException:
            writer.close()
            raise
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self.idle.append((reader, writer))
        return head + body

    async def look(self) -> None:
        """Find out whether it is ready, by a connection of its own."""
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: balancer\r\nconnection: close\r\n\r\n")
                head, _ = await read_message(reader)
                writer.close()
            self.ready = head.split(maxsplit=2)[1] == b"200"
        except (OSError, asyncio.IncompleteReadError):
            self.ready = False
        if not self.ready:
            for _, writer in self.idle:
                writer.close()
            self.idle.clear()


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """(head, body) of an HTTP message with a Content-Length or without a body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return head, await reader.readexactly(int(length or 0))


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
            return NOBODY
        self._turn += 1
        try:
            return await ready[self._turn % len(ready)].exchange(request)
        except (OSError, asyncio.IncompleteReadError):
            return FAILED

"""A TCP proxy that behaves as badly as it is told to: it refuses, swallows, delays or drops connections."""

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

Manner = Literal["pass", "refuse", "black hole", "slow"]
SLOW_SECONDS = 2.0
"""Delay of each answer under `slow`."""


class Proxy:
    """Between a client and a server at `target`, in a thread of its own while the block lasts.

    `pass`: as if it were not there. `refuse`: nobody listens. `black hole`: connections are taken, also those there
    were, and nothing ever comes back. `slow`: every answer comes 2 s late.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.manner: Manner = "pass"
        self._up = threading.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
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

    def behave(self, manner: Manner) -> None:
        """From now on."""
        asyncio.run_coroutine_threadsafe(self._behave(manner), self._loop).result()

    async def _behave(self, manner: Manner) -> None:
        self.manner = manner
        if manner == "refuse":
            assert self._server is not None
            self._server.close()
            self._server = None
            self._drop()
        elif self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def _drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._up.set()
        await self._over.wait()
        self._drop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(back)
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer, late=True))
        self._writers -= {writer, back}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: bool = False) -> None:
        with suppress(OSError):
            while content := await reader.read(65536):
                if self.manner == "black hole":
                    continue
                if self.manner == "slow" and late:
                    await asyncio.sleep(SLOW_SECONDS)
                writer.write(content)
                await writer.drain()
        writer.close()

"""A load generator that costs little: n connections, each sends its next request when the last one is answered.

Run as a process of its own, `python -m benchmarks.closed_loop`: a `Job` as JSON comes by stdin, a `Result` leaves by
stdout. It speaks just enough HTTP/1.1 for servers that answer with Content-Length, so that a core that it shares with
the server goes to the server.
"""

import asyncio
import subprocess
import sys
import time
from itertools import cycle
from typing import cast

import uvloop
from pydantic import BaseModel


class Job(BaseModel):
    """What to send, where, for how long."""

    port: int
    requests: list[str]
    """Whole HTTP/1.1 requests in latin-1, sent in turn."""
    connections: int
    seconds: float
    warm_up_seconds: float = 0.5
    """Sent before, and not counted."""


class Result(BaseModel):
    """What came back."""

    completed: int
    refused: int
    """Answers whose status is not 2xx; not among the completed."""
    first_refused: str
    """One of them."""
    seconds: float
    cpu_seconds: float
    """Time that sending and receiving itself took of a core."""
    latencies: list[float]
    """Seconds from request to answer, of each completed one."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.completed / self.seconds


def run(job: Job) -> Result:
    """Do a job in a process of its own. Raises RuntimeError where a connection broke or no answer was good."""
    command = [sys.executable, "-m", "benchmarks.closed_loop"]
    done = subprocess.run(command, input=job.model_dump_json().encode(), capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    result = Result.model_validate_json(done.stdout)
    if not result.completed:
        raise RuntimeError(f"no good answer came; one of those that did:\n{result.first_refused}")
    return result


def request(method: str, path: str, body: bytes = b"") -> str:
    """One request as it goes over the wire."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n" + body.decode("latin-1")


class _Tally:
    """What all connections have in common."""

    def __init__(self, job: Job) -> None:
        self.requests = cycle([text.encode("latin-1") for text in job.requests])
        self.counting = False
        self.latencies: list[float] = []
        self.refused = 0
        self.first_refused = ""


class _Connection(asyncio.Protocol):
    def __init__(self, tally: _Tally, lost: asyncio.Future[None]) -> None:
        self.tally = tally
        self.lost = lost
        self.received = b""
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without being derived from it
        self._send()

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0 or len(self.received) < end + 4 + _content_length(self.received, end):
            return
        if self.tally.counting:
            if self.received[9:10] == b"2":
                self.tally.latencies.append(time.perf_counter() - self.sent_at)
            else:
                self.tally.refused += 1
                self.tally.first_refused = self.tally.first_refused or self.received.decode("latin-1")
        self.received = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_exception(exc or ConnectionResetError("the server closed a connection"))

    def _send(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(next(self.tally.requests))


def _content_length(received: bytes, end: int) -> int:
    head = received[:end].lower()
    start = head.index(b"content-length:") + 15
    stop = head.find(b"\r\n", start)
    return int(head[start : stop if stop > 0 else end])


async def _measure(job: Job) -> Result:
    loop = asyncio.get_running_loop()
    lost: asyncio.Future[None] = loop.create_future()
    tally = _Tally(job)
    for _ in range(job.connections):
        await loop.create_connection(lambda: _Connection(tally, lost), "127.0.0.1", job.port)
    await asyncio.wait([lost], timeout=job.warm_up_seconds)
    tally.counting = True
    started, cpu_started = time.perf_counter(), time.process_time()
    await asyncio.wait([lost], timeout=job.seconds)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    tally.counting = False
    if lost.done():
        lost.result()
    return Result(
        completed=len(tally.latencies),
        refused=tally.refused,
        first_refused=tally.first_refused,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        latencies=tally.latencies,
    )


if __name__ == "__main__":
    print(uvloop.run(_measure(Job.model_validate_json(sys.stdin.buffer.read()))).model_dump_json())

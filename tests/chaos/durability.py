"""Is what was acknowledged there after kills? `python -m tests.chaos.durability [--posts 50000] [--kills 200]`.

Eight writers post events with ids of their own; the service is killed (SIGKILL) again and again in between, a moment
after it has acknowledged enough, and whatever was not acknowledged is sent again. In the end the database is read, and
held against what was acknowledged (`tests.chaos.events`).

`--fault tests.chaos.late_commit` moves the commit behind the reply. The command must then fail.
"""

import argparse
import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.databases import KINDS, database, scratch
from tests.chaos.events import Found, Work, Writer, found, prepare
from tests.chaos.lives import Nursery, nursery

WRITERS = 8
LONGEST_DELAY = 0.02
"""Seconds between the POST after which a kill is due and the kill, at most: so that it hits any part of a request."""


@dataclass(frozen=True)
class Outcome:
    """What was seen, and what was found in the end."""

    work: Work
    kills: int
    seconds: float
    starts: list[float]
    """Seconds from each start to readiness."""
    found: Found

    def told(self) -> str:
        """In a line or two."""
        tries = ", ".join(f"{n:,} {what}" for what, n in sorted(self.work.target.tries.items()))
        started = sorted(self.starts)
        return (
            f"{len(self.work.acknowledged):,} POSTs acknowledged, {self.kills} kills, {self.seconds:.0f} s; "
            f"tries: {tries}; {self.work.again:,} POSTs had been stored without an answer; "
            f"start {started[len(started) // 2]:.2f} s in the median, {started[-1]:.2f} s at most\n"
            f"  {self.found.rows:,} rows, {self.found.missing} acknowledged missing, {self.found.duplicated} duplicated"
        )


def run(services: Nursery, folder: Path, url: str, posts: int, kills: int, fault: str | None = None) -> Outcome:
    """Do it on one database."""
    work = Work(posts)
    chance = random.Random(kills)
    writers = [Writer(work, number) for number in range(WRITERS)]
    began = time.monotonic()
    starts = []
    asyncio.run(prepare(url))
    for life in range(kills + 1):
        with services.life(folder, fault=fault, database_url=url) as service:
            starts.append(service.ready_after)
            work.target.url = service.url
            if not life:
                for writer in writers:
                    writer.start()
            if life < kills:
                work.wait_for(posts * (life + 1) // (kills + 1))
                time.sleep(chance.uniform(0, LONGEST_DELAY))
            else:
                for writer in writers:
                    writer.join()
            work.target.url = None
            service.kill()
        if work.target.refused:
            break
    return Outcome(work, life, time.monotonic() - began, starts, asyncio.run(found(url, work)))


def main() -> None:
    parser = argparse.ArgumentParser(description="kill the service under POSTs, and look for what it acknowledged")
    parser.add_argument("--posts", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--database", choices=[*KINDS, "both"], default="both")
    parser.add_argument("--fault", help="module that spoils the service")
    arguments = parser.parse_args()
    failed = False
    for kind in KINDS if arguments.database == "both" else (arguments.database,):
        with scratch() as folder, database(kind, folder) as url, nursery() as services:
            outcome = run(services, folder, url, arguments.posts, arguments.kills, arguments.fault)
        print(f"{kind}: {outcome.told()}", flush=True)
        for problem in outcome.found.problems:
            print(f"  {problem}", flush=True)
        failed |= bool(outcome.found.problems)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()

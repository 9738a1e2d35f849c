"""Is what was acknowledged there after Postgres crashed? `python -m tests.chaos.backends [--kills 50]`.

Eight writers post events with ids of their own, while a backend of Postgres that works for the service is killed
(SIGKILL) again and again: the server then ends all others, forgets its memory and recovers from its log. The service
stays up, says 503 meanwhile, and finds its database again. In the end the database is read, and held against what was
acknowledged (`tests.chaos.events`).
"""

import argparse
import asyncio
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.chaos.databases import postgres, scratch
from tests.chaos.events import Found, Work, Writer, found, prepare
from tests.chaos.lives import Nursery, nursery

WRITERS = 8
RECOVERY_SECONDS = 60.0
"""Longest wait for Postgres to take connections again."""
BUSY_FIRST = """
    SELECT pid FROM pg_stat_activity WHERE application_name = 'warmstart' AND pid <> pg_backend_pid()
    ORDER BY state = 'active' DESC, state = 'idle in transaction' DESC, random() LIMIT 1
"""


@dataclass(frozen=True)
class Outcome:
    """What was seen, and what was found in the end."""

    work: Work
    kills: int
    seconds: float
    longest: float
    """Seconds from a kill to the next acknowledged POST, at most."""
    found: Found

    def told(self) -> str:
        """In a line or two."""
        tries = ", ".join(f"{n:,} {what}" for what, n in sorted(self.work.target.tries.items()))
        return (
            f"{self.kills} backends killed, {len(self.work.acknowledged):,} POSTs acknowledged, {self.seconds:.0f} s; "
            f"tries: {tries}; {self.work.again:,} POSTs had been stored without an answer; "
            f"next POST acknowledged {self.longest:.2f} s after a kill at most\n"
            f"  {self.found.rows:,} rows, {self.found.missing} acknowledged missing, {self.found.duplicated} duplicated"
        )


def run(services: Nursery, folder: Path, url: str, kills: int, posts_between: int = 100) -> Outcome:
    """Kill a backend after each `posts_between` acknowledged POSTs."""
    work = Work((kills + 1) * posts_between)
    chance = random.Random(kills)
    writers = [Writer(work, number) for number in range(WRITERS)]
    began = time.monotonic()
    longest = 0.0
    asyncio.run(prepare(url))
    with services.life(folder, database_url=url) as service:
        work.target.url = service.url
        for writer in writers:
            writer.start()
        for kill in range(1, kills + 1):
            work.wait_for(kill * posts_between)
            if work.target.refused:
                break
            time.sleep(chance.uniform(0, 0.02))
            before, killed = len(work.acknowledged), time.monotonic()
            asyncio.run(kill_a_backend(url))
            work.wait_for(before + WRITERS + 1)  # as many answers may have been under way
            longest = max(longest, time.monotonic() - killed)
        for writer in writers:
            writer.join()
    return Outcome(work, kill, time.monotonic() - began, longest, asyncio.run(found(url, work)))


async def kill_a_backend(url: str) -> int:
    """Kill one that works for the service, a busy one where there is one; its pid. Waits until Postgres is back."""
    connection = await connected(url)
    pid: int | None = None
    while pid is None:
        pid = await connection.fetchval(BUSY_FIRST)
    os.kill(pid, signal.SIGKILL)
    try:
        while True:  # until the crash has ended this connection too
            await connection.execute("SELECT 1")
            await asyncio.sleep(0.01)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
    await (await connected(url)).close()
    return pid


async def connected(url: str) -> asyncpg.Connection:
    """A connection, as soon as the server takes one. Raises TimeoutError where it does not for long."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        try:
            return await asyncpg.connect(url, timeout=5)
        except (OSError, asyncpg.PostgresError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError("Postgres does not come back") from error
            await asyncio.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="kill Postgres backends under POSTs, and look for what was acknowledged"
    )
    parser.add_argument("--kills", type=int, default=50)
    arguments = parser.parse_args()
    with scratch() as folder, postgres() as server, nursery() as services:
        outcome = run(services, folder, server.get_uri(), arguments.kills)
    print(outcome.told(), flush=True)
    for problem in outcome.found.problems:
        print(f"  {problem}", flush=True)
    raise SystemExit(bool(outcome.found.problems))


if __name__ == "__main__":
    main()

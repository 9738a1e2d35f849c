"""Is nothing left of erased users when the service is killed midway? `python -m tests.chaos.erasure [--users 20]`.

Each user leaves traces wherever one can be left, thousands of events among them. Their erasure is asked for, and the
service is killed (SIGKILL) a moment later; the next start must go on with it. In the end every table, the cache's
keys and values, SQLite's files and the service's log are searched for what stood in everything that was said of each,
and again after all of their events have been sent once more. Of those who were not erased everything must be there.
"""

import argparse
import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import redis
from sqlalchemy import func, select

from app.storage import erasures, tables
from app.storage.database import Database
from tests.chaos.databases import KINDS, scratch
from tests.chaos.lives import Life, Nursery, nursery
from tests.chaos.retries import backing
from tests.chaos.world import PATIENT, stocked, world

BATCH = 500
LONGEST_DELAY = 0.03
"""Seconds from the first transaction of an erasure to the kill, at most."""
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Outcome:
    """What was seen, and what was found in the end."""

    users: int
    events: int
    """Of each."""
    midway: int
    """Kills that left somebody half erased."""
    slowest: float
    """Seconds from a start until nothing of them was left in the database, at most."""
    traces: int
    late: int
    """Events that were sent once more."""
    back: int
    """Traces after that."""
    seconds: float
    problems: list[str]

    def told(self) -> str:
        """In two lines."""
        return (
            f"{self.users} users of {self.events:,} events erased, {self.users} kills, {self.midway} of them midway, "
            f"{self.seconds:.0f} s\n  {self.traces} traces in tables, cache, files and log; completed within "
            f"{self.slowest:.1f} s of the start; {self.late:,} events sent once more: {self.back} traces"
        )


class Person:
    """Somebody whose mark stands in everything that is said of them."""

    def __init__(self, number: int, events: int) -> None:
        self.mark = f"mark-{number}-of-somebody"
        items = world().data.items.ids
        self.events = [
            {
                "event_id": f"{self.mark}-{n}",
                "user_id": self.mark,
                "domain": "films",
                "item_id": items[(7 * n + number) % len(items)],
                "value": 1 + n % 5,
                "context": {"device": self.mark},
            }
            for n in range(events)
        ]

    def send(self, client: httpx.Client, *, key: bool = False) -> int:
        """Send all events; how many were accepted."""
        accepted = 0
        for start in range(0, len(self.events), BATCH):
            headers = {"Idempotency-Key": f"{self.mark}-{start}"} if key else {}
            body = {"interactions": self.events[start : start + BATCH]}
            accepted += (
                client.post("/v1/interactions", json=body, headers=headers).raise_for_status().json()["accepted"]
            )
        return accepted

    def live(self, client: httpx.Client) -> None:
        """Leave traces."""
        client.put(f"/v1/users/{self.mark}", json={"attributes": {"name": self.mark}}).raise_for_status()
        self.send(client, key=True)
        for policy in ("greedy", "lin_ucb"):
            body = {"domain": "films", "user_id": self.mark, "exploration": {"policy": policy}, "k": 5}
            body["filters"] = {"exclude_seen": False}
            slate = client.post("/v1/recommendations", json=body).raise_for_status().json()
            place = {"slate_id": slate["slate_id"], "item_id": slate["items"][0]["item_id"]}
            reward = place | {"value": 1, "event_id": f"{self.mark}-{policy}"}
            client.post("/v1/rewards", json={"rewards": [reward]}).raise_for_status()
        client.get(f"/v1/users/{self.mark}", params={"nobody": self.mark})


def run(services: Nursery, folder: Path, url: str, users: int, events: int, **settings: Any) -> Outcome:
    """Do it on one database."""
    began = time.monotonic()
    people = [Person(n, events) for n in range(users + 1)]
    bystander = people.pop()
    chance = random.Random(users)
    settings = {"checkpoint_dir": stocked(folder / "checkpoints"), "database_url": url, **PATIENT, **settings}
    settings |= {"learn_seconds": 0, "upkeep_seconds": 1, "workers": 1}
    midway, slowest = 0, 0.0
    for number in range(users + 1):
        with services.life(folder, **settings) as life, httpx.Client(base_url=life.url, timeout=60) as client:
            slowest = max(slowest, _until(url, _nobody_is_half_erased))
            if not number:
                for person in (bystander, *people):
                    person.live(client)
            elif client.get(f"/v1/users/{people[number - 1].mark}").status_code == 200:
                client.delete(f"/v1/users/{people[number - 1].mark}").raise_for_status()  # killed before it began
            if number < users:
                _erase_and_kill(life, url, people[number], chance.uniform(0, LONGEST_DELAY))
                midway += not asyncio.run(_holds(url, _nobody_is_half_erased))
                continue
            _until(url, _everything_is_finished)
            traces = _traces(folder, url, people, settings.get("redis_url"))
            late = sum(len(person.events) for person in people)
            accepted = sum(person.send(client) for person in people)
            back = _traces(folder, url, people, settings.get("redis_url"))
            kept = len(client.get(f"/v1/users/{bystander.mark}/export").raise_for_status().json()["interactions"])
    problems = traces + back
    problems += [f"{accepted} events of erased users accepted"] * bool(accepted)
    problems += [f"{kept} of {events} events left of somebody who was not erased"] * (kept != events)
    seconds = time.monotonic() - began
    return Outcome(users, events, midway, slowest, len(traces), late, len(back), seconds, problems)


def _erase_and_kill(life: Life, url: str, person: Person, delay: float) -> None:
    """Ask for an erasure, and kill the service a moment after its first transaction."""

    def ask() -> None:
        with suppress(httpx.TransportError):
            httpx.delete(f"{life.url}/v1/users/{person.mark}", timeout=60)

    asking = threading.Thread(target=ask)
    asking.start()
    asyncio.run(_begun(url, asking))
    time.sleep(delay)
    life.kill()
    asking.join()


async def _begun(url: str, asking: threading.Thread) -> None:
    database = await Database.open(url)
    try:
        while asking.is_alive() and await _nobody_is_half_erased(database):
            pass
    finally:
        await database.close()


async def _nobody_is_half_erased(database: Database) -> bool:
    async with database.read() as connection:
        return all(erasure.erased_at is not None for erasure in await erasures.unfinished(connection))


async def _everything_is_finished(database: Database) -> bool:
    async with database.read() as connection:
        return not await erasures.unfinished(connection)


async def _holds(url: str, condition: Any) -> bool:
    database = await Database.open(url)
    try:
        return bool(await condition(database))
    finally:
        await database.close()


def _until(url: str, condition: Any) -> float:
    """Wait until something holds; the seconds that it took."""
    began = time.monotonic()
    while not asyncio.run(_holds(url, condition)):
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise TimeoutError(f"not so within {PATIENCE_SECONDS:g} s: {condition.__name__.strip('_')}")
        time.sleep(0.1)
    return time.monotonic() - began


def _traces(folder: Path, url: str, people: list[Person], redis_url: str | None) -> list[str]:
    """Where any of the marks is found."""
    found = []
    for where, content in _everything(folder, url, redis_url):
        found += [f"{person.mark} in {where}" for person in people if person.mark in content]
    return found


def _everything(folder: Path, url: str, redis_url: str | None) -> Iterator[tuple[str, str]]:
    """(where, all that stands there)."""
    yield from asyncio.run(_rows(url))
    for path in (folder / "service.log", *folder.glob("warmstart.db*")):
        yield path.name, path.read_bytes().decode("latin-1")
    if redis_url is not None:
        with redis.Redis.from_url(redis_url) as server:
            for name in server.scan_iter():
                yield f"cache {name!r}", (name + (server.get(name) or b"")).decode("latin-1")


async def _rows(url: str) -> list[tuple[str, str]]:
    database = await Database.open(url, statement_timeout=600)
    try:
        async with database.read(snapshot=True) as connection:
            found = [
                (name, repr((await connection.execute(select(table))).all()))
                for name, table in tables.metadata.tables.items()
            ]
            erased = select(tables.erasures.c.user_key)
            for table in (tables.interactions, tables.slates):
                left = select(func.count()).select_from(table).where(table.c.user_key.in_(erased))
                if (await connection.execute(left)).scalar_one():
                    found.append((f"{table.name}, by key", Person(0, 0).mark))
            return found
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="erase users, kill the service midway, and look for what is left")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--events", type=int, default=3_000)
    parser.add_argument("--database", choices=[*KINDS, "both"], default="both")
    arguments = parser.parse_args()
    failed = False
    for kind in KINDS if arguments.database == "both" else (arguments.database,):
        with scratch() as folder, backing(kind, folder) as (url, settings), nursery() as services:
            outcome = run(services, folder, url, arguments.users, arguments.events, **settings)
        print(f"{kind}: {outcome.told()}", flush=True)
        for problem in outcome.problems[:10]:
            print(f"  {problem}", flush=True)
        failed |= bool(outcome.problems)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()

"""Are arm statistics exact when the service is killed under load? `python -m tests.chaos.arms [--rewards 50000]`.

Eight writers ask for slates and reward what they were shown, in batches with event ids; the service is killed
(SIGKILL) again and again in between, and whatever was not acknowledged is sent again. In the end every reward must
have been counted once: sums by item are those that the writers sent, shows are those of the log, and a rebuild from the
log changes nothing, to the last bit.
"""

import argparse
import asyncio
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import func, select

from app.storage import arms, tables
from app.storage.database import Database
from app.storage.records import ArmCounts
from tests.chaos.databases import KINDS, database, scratch
from tests.chaos.lives import Nursery, nursery
from tests.chaos.sending import GaveUp, Sender, Target

WRITERS = 8
ITEMS = 60
BATCH = 25


@dataclass
class Work:
    """What the writers share."""

    rewards: int
    target: Target = field(default_factory=Target)
    sent: Counter[str] = field(default_factory=Counter)
    """Sum of rewards by item, in millionths."""
    acknowledged: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, rows: list[dict[str, Any]]) -> None:
        """These were acknowledged."""
        with self.lock:
            self.acknowledged += len(rows)
            for row in rows:
                self.sent[row["item_id"]] += round(row["value"] * 1_000_000)

    @property
    def done(self) -> bool:
        """All rewards are in, or something is wrong."""
        return self.acknowledged >= self.rewards or bool(self.target.refused)


class Writer(threading.Thread):
    """Asks, rewards, and sends again what was not acknowledged."""

    def __init__(self, work: Work, number: int) -> None:
        super().__init__(name=f"w{number}", daemon=True)
        self.work = work
        self.chance = random.Random(number)

    def run(self) -> None:
        with suppress(GaveUp):
            self._work(Sender(self.work.target))

    def _work(self, sender: Sender) -> None:
        step = 0
        while not self.work.done:
            settings = {"policy": "epsilon_greedy", "epsilon": 0.5}
            slate = sender.post("/v1/cold-start/recommendations", {"domain": "shop", "k": 10, "exploration": settings})
            for _ in range(4):
                rows = [
                    {
                        "event_id": f"{self.name}-{step}-{i}",
                        "slate_id": slate["slate_id"],
                        "item_id": self.chance.choice(slate["items"])["item_id"],
                        "value": self.chance.choice((0.1, 1.0, 0.333333, -0.7)),
                    }
                    for i in range(BATCH)
                ]
                step += 1
                sender.post("/v1/rewards", {"rewards": rows})
                self.work.count(rows)


@dataclass(frozen=True)
class Outcome:
    """What was found in the end."""

    acknowledged: int
    kills: int
    seconds: float
    shows: int
    problems: list[str]


def run(services: Nursery, folder: Path, database_url: str, rewards: int, kills: int) -> Outcome:
    """Do it all on one database."""
    work = Work(rewards)
    writers = [Writer(work, number) for number in range(WRITERS)]
    started = time.monotonic()
    for life in range(kills + 1):
        with services.life(folder, database_url=database_url) as server:
            if not life:
                _set_up(server.url)
                for writer in writers:
                    writer.start()
            work.target.url = server.url
            until = rewards if life == kills else rewards * (life + 1) // (kills + 1)
            while work.acknowledged < until and not work.target.refused:
                time.sleep(0.01)
            if life == kills:
                for writer in writers:
                    writer.join()
            work.target.url = None
            server.kill()
    problems = work.target.refused + asyncio.run(_verify(database_url, work))
    shows = asyncio.run(_shows(database_url))
    return Outcome(work.acknowledged, kills, time.monotonic() - started, shows, problems)


def _set_up(url: str) -> None:
    httpx.put(f"{url}/v1/domains/shop", json={}).raise_for_status()
    items = [{"domain": "shop", "item_id": f"i{i}"} for i in range(ITEMS)]
    httpx.post(f"{url}/v1/items", json={"items": items}).raise_for_status()


async def _verify(database_url: str, work: Work) -> list[str]:
    """What is wrong, in sentences."""
    database = await Database.open(database_url, statement_timeout=600)
    try:
        problems = []
        async with database.read(snapshot=True) as connection:
            different = await arms.differences(connection)
            problems += [f"{key}: {tuple(is_)}, the log says {tuple(should)}" for key, is_, should in different]
            counted = await _by_item(connection)
            stored = (await connection.execute(select(func.count()).select_from(tables.rewards))).scalar_one()
        if stored != work.acknowledged:
            problems.append(f"{stored} rewards stored, {work.acknowledged} acknowledged")
        for item_id, counts in counted.items():
            if counts.micros != work.sent[item_id]:
                problems.append(f"{item_id}: {counts.micros} counted, {work.sent[item_id]} sent")
        await database.transact(arms.rebuild)
        async with database.read() as connection:
            if await _by_item(connection) != counted:
                problems.append("a rebuild changes counts")
        return problems
    finally:
        await database.close()


async def _by_item(connection: Any) -> dict[str, ArmCounts]:
    (shop,) = (await connection.execute(select(tables.domains.c.key).where(tables.domains.c.name == "shop"))).scalars()
    ids = {row.key: row.item_id for row in await connection.execute(select(tables.items.c.key, tables.items.c.item_id))}
    return {ids[key]: counts for key, counts in (await arms.totals(connection, shop)).items()}


async def _shows(database_url: str) -> int:
    database = await Database.open(database_url)
    try:
        async with database.read() as connection:
            return sum(counts.shows for counts in (await _by_item(connection)).values())
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="kill the service under rewards, and count again")
    parser.add_argument("--rewards", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--database", choices=[*KINDS, "both"], default="both")
    arguments = parser.parse_args()
    failed = False
    for name in KINDS if arguments.database == "both" else (arguments.database,):
        with scratch() as folder, database(name, folder) as url, nursery() as services:
            outcome = run(services, folder, url, arguments.rewards, arguments.kills)
        told = f"{WRITERS} writers, {outcome.acknowledged:,} rewards, {outcome.shows:,} shows, {outcome.kills} kills"
        verdict = "; ".join(outcome.problems[:5]) or "arms equal the log and what was sent, bit for bit"
        print(f"{name}: {told}, {outcome.seconds:.0f} s: {verdict}", flush=True)
        failed |= bool(outcome.problems)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()

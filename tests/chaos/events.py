"""Events that are posted while something breaks, and whether the database holds them in the end, each once.

Each POST is a batch of one to three events of one user, under event ids of its own, sent again as it is until it is
acknowledged. So of every batch that was acknowledged all rows must be there, of any other all or none, no row twice,
nothing that was not sent; and a user's revision, which every stored batch raises by one, must count those batches.
"""

import itertools
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from app.storage import domains, interactions, tables
from app.storage.database import Database
from app.storage.records import ExportedInteraction, NewDomain
from tests.chaos.sending import GaveUp, Sender, Target

DOMAIN = "shop"
ITEMS = 200
USERS_PER_WRITER = 25
PAGE = 5_000

Batch = list[dict[str, Any]]


@dataclass
class Work:
    """What the writers share: how much is to be done, and what was."""

    posts: int
    """Acknowledged POSTs after which all is done."""
    target: Target = field(default_factory=Target)
    acknowledged: dict[str, Batch] = field(default_factory=dict)
    """Batch → its events."""
    sent: dict[str, Batch] = field(default_factory=dict)
    again: int = 0
    """Batches of which an earlier try, without an answer, turned out to have been stored."""
    progress: threading.Condition = field(default_factory=threading.Condition)

    def sending(self, name: str, batch: Batch) -> None:
        """A batch is about to leave for the first time."""
        with self.progress:
            self.sent[name] = batch

    def done(self, name: str, duplicates: int) -> None:
        """It was acknowledged."""
        with self.progress:
            self.acknowledged[name] = self.sent[name]
            self.again += duplicates > 0
            self.progress.notify_all()

    @property
    def over(self) -> bool:
        """Everything is acknowledged, or something is wrong."""
        return len(self.acknowledged) >= self.posts or bool(self.target.refused)

    def wait_for(self, posts: int) -> None:
        """Until so many POSTs are acknowledged, or something is wrong."""
        with self.progress:
            self.progress.wait_for(lambda: len(self.acknowledged) >= posts or bool(self.target.refused))


class Writer(threading.Thread):
    """Posts one batch after the other, each until it is acknowledged."""

    def __init__(self, work: Work, number: int) -> None:
        super().__init__(name=f"w{number}", daemon=True)
        self.work = work
        self.chance = random.Random(number)

    def run(self) -> None:
        sender = Sender(self.work.target)
        for n in itertools.count():
            if self.work.over:
                return
            name = f"{self.name}-{n}"
            batch = self._batch(name)
            self.work.sending(name, batch)
            try:
                answer = sender.post("/v1/interactions", {"interactions": batch})
            except GaveUp:
                with self.work.progress:
                    self.work.progress.notify_all()
                return
            self.work.done(name, answer["duplicates"])

    def _batch(self, name: str) -> Batch:
        user_id = f"{self.name}-user-{self.chance.randrange(USERS_PER_WRITER)}"
        return [
            {
                "event_id": f"{name}/{i}",
                "user_id": user_id,
                "domain": DOMAIN,
                "item_id": f"i{self.chance.randrange(ITEMS)}",
                "value": self.chance.randint(1, 5),
            }
            for i in range(self.chance.randint(1, 3))
        ]


async def prepare(url: str) -> None:
    """Make the tables, and the domain that events are about."""
    database = await Database.open(url)
    try:
        await database.upgrade()
        await database.transact(lambda to: domains.put(to, NewDomain(DOMAIN, 1.0, 5.0, {}), time.time()))
    finally:
        await database.close()


@dataclass(frozen=True)
class Found:
    """What the database holds, held against what was sent and acknowledged."""

    rows: int
    missing: int
    """Acknowledged events that are not there."""
    duplicated: int
    """Rows beyond one an event, and batches that were stored more than once."""
    problems: list[str]
    """All that is wrong, in sentences."""


async def found(url: str, work: Work) -> Found:
    """Read everything, and compare. The service must be down, so that nothing changes meanwhile."""
    database = await Database.open(url, statement_timeout=600)
    try:
        problems = await damage(database)
        rows: list[ExportedInteraction] = []
        async with database.read(snapshot=True) as connection:
            while page := await interactions.export_since(connection, rows[-1].key if rows else 0, PAGE):
                rows += page
            revisions = {
                row.user_id: row.revision
                for row in await connection.execute(select(tables.users.c.user_id, tables.users.c.revision))
            }
    finally:
        await database.close()
    return _compared(work, rows, revisions, problems)


async def damage(database: Database) -> list[str]:
    """What SQLite's own check of a whole file finds; Postgres checks its pages as it reads them."""
    if not database.is_sqlite:
        return []
    async with database.read() as connection:
        told = (await connection.exec_driver_sql("PRAGMA integrity_check")).scalars().all()
    return [] if told == ["ok"] else [f"integrity check: {line}" for line in told[:5]]


def _compared(work: Work, rows: Sequence[ExportedInteraction], revisions: dict[str, int], problems: list[str]) -> Found:
    counted = Counter(str(row.event_id) for row in rows)
    acknowledged = [event["event_id"] for batch in work.acknowledged.values() for event in batch]
    missing = [event_id for event_id in acknowledged if event_id not in counted]
    twice = [event_id for event_id, n in counted.items() if n > 1]
    stored: dict[str, int] = defaultdict(int)
    for batch in work.sent.values():
        there = sum(event["event_id"] in counted for event in batch)
        if there:
            stored[batch[0]["user_id"]] += 1
        if 0 < there < len(batch):
            problems.append(f"half a batch: {there} of {len(batch)} events of {batch[0]['event_id']}")
    often = [user_id for user_id, n in stored.items() if revisions.get(user_id) != n]
    sent = {event["event_id"]: event for batch in work.sent.values() for event in batch}
    strange = [row for row in rows if not _same(row, sent.get(str(row.event_id)))]
    problems += [f"{len(missing)} acknowledged events are missing: {missing[:3]}"] * bool(missing)
    problems += [f"{len(twice)} events are stored twice: {twice[:3]}"] * bool(twice)
    problems += [f"{len(often)} users have another revision than batches: {often[:3]}"] * bool(often)
    problems += [f"{len(strange)} rows were not sent so: {strange[:3]}"] * bool(strange)
    return Found(len(rows), len(missing), len(twice) + len(often), work.target.refused + problems)


def _same(row: ExportedInteraction, event: dict[str, Any] | None) -> bool:
    return event is not None and all(
        getattr(row, name) == event[name] for name in ("user_id", "domain", "item_id", "value")
    )

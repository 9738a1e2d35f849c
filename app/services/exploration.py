"""How domains explore: settings, the plan of a request, and what the policies have learnt so far."""

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from app.engine.catalogue import CatalogueItem
from app.engine.policies.arms import Arms
from app.engine.policies.choose import Plan
from app.engine.policies.linear import Lesson, LinearArms, width
from app.engine.policies.settings import GREEDY, Exploration
from app.engine.serving import ServedDomain
from app.errors import invalid
from app.storage import arms, exploration, lessons
from app.storage.database import Connection
from app.storage.lessons import Cursor
from app.storage.records import ArmCounts

if TYPE_CHECKING:
    from app.services.installation import Installation


class DomainExploration(BaseModel):
    """How a domain explores, as it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exploration: Exploration = GREEDY
    reward_wait_seconds: float | None = None
    default_reward: float = 0.0


UNSAID = DomainExploration()
"""A domain of which nobody has said anything: the best items, and no reward by default."""


def micros(reward: float) -> int:
    """A reward in millionths.

    >>> micros(0.1)
    100000
    """
    return round(reward * 1_000_000)


async def put(installation: "Installation", domain: str, wanted: DomainExploration) -> None:
    """Say how a domain explores; every worker does from its next request on. Raises Problem (validation-error)."""
    await installation.fresh()
    if domain not in installation.domains:
        raise invalid("/domain", "no domain has that name")
    key = installation.domains[domain].key

    async def work(connection: Connection) -> None:
        said = wanted.model_dump(mode="json", exclude={"exploration"})
        # Only what was said: settings of other policies are refused when it is read again.
        said["exploration"] = wanted.exploration.model_dump(mode="json", exclude_unset=True)
        await exploration.put(connection, key, said, time.time())

    await installation.database.transact(work)


@dataclass
class _Learnt:
    """What one domain's policies know, and when it was read."""

    arms: Arms
    linear: dict[str, LinearArms]
    cursor: Cursor
    read_at: float


class Policies:
    """One worker's memory of how domains explore and of what came of it."""

    def __init__(self, installation: "Installation") -> None:
        self._installation = installation
        self._settings: Mapping[str, DomainExploration] = {}
        self._learnt: dict[str, _Learnt] = {}
        self._reading: dict[str, asyncio.Task[_Learnt]] = {}

    async def follow(self) -> None:
        """Read the settings again."""
        async with self._installation.database.read() as connection:
            stored = await exploration.all(connection)
        self._settings = {name: DomainExploration.model_validate(said) for name, said in stored.items()}

    def of(self, domain: str) -> DomainExploration:
        """How a domain explores."""
        return self._settings.get(domain, UNSAID)

    async def plan(self, domain: ServedDomain, wanted: Exploration | None, seed: int | None = None) -> Plan | None:
        """The plan of one slate; None for the greedy one, which needs none."""
        settings = wanted or self.of(domain.shelf.domain.name).exploration
        if settings.policy == "greedy":
            return None
        spec = domain.shelf.domain
        scale = (spec.rating_min, spec.rating_max)
        seed = secrets.randbits(48) if seed is None else seed
        if not settings.needs_arms:
            return Plan(settings, seed, Arms.none(0), scale)
        learnt = await self._known(domain)
        return Plan(settings, seed, learnt.arms.grown(len(domain.shelf.items)), scale, learnt.linear, domain.shelf.keys)

    async def _known(self, domain: ServedDomain) -> _Learnt:
        """What came of slates so far; at most as old as the setting says, but for the time that reading takes."""
        name = domain.shelf.domain.name
        learnt = self._learnt.get(name)
        clock = asyncio.get_running_loop().time()
        if learnt is not None and clock - learnt.read_at < self._installation.settings.arms_seconds:
            return learnt
        task = self._reading.get(name)
        if task is None:
            task = asyncio.create_task(self._read(domain, learnt, clock))
            task.add_done_callback(lambda done: self._reading.pop(name, None))
            self._reading[name] = task
        return await asyncio.shield(task)

    async def _read(self, domain: ServedDomain, learnt: _Learnt | None, clock: float) -> _Learnt:
        installation = self._installation
        name = domain.shelf.domain.name
        key = installation.domains[name].key
        async with installation.database.read() as connection:
            counted = await arms.totals(connection, key)
        counts = await asyncio.to_thread(_by_local, domain.shelf.items, counted)
        linear = learnt.linear if learnt else {}
        cursor = learnt.cursor if learnt else Cursor()
        linear, cursor = await self._learn(key, domain, linear, cursor)
        made = _Learnt(counts, linear, cursor, clock)
        self._learnt[name] = made
        return made

    async def _learn(
        self, key: int, domain: ServedDomain, linear: dict[str, LinearArms], cursor: Cursor
    ) -> tuple[dict[str, LinearArms], Cursor]:
        """The matrices with what the log has behind the cursor; those of checkpoints out of service are let go."""
        serving = {part.served.digest for part in domain.parts}
        if not serving <= linear.keys():
            # A checkpoint that was not in service before: what the log has for it lies before the cursor.
            linear, cursor = {}, Cursor()
        low, high = domain.shelf.domain.rating_min, domain.shelf.domain.rating_max
        linear = {digest: linear.get(digest, LinearArms(width(digest))) for digest in serving}
        complete = False
        while not complete:
            async with self._installation.database.read() as connection:
                told, cursor, complete = await lessons.since(connection, key, cursor)
            taught: dict[str, list[Lesson]] = {digest: [] for digest in serving}
            for one in told:
                if one.digest in taught:
                    expected = 0.0 if one.again else (one.score - low) / (high - low)
                    lesson = Lesson(one.item_key, tuple(one.context), one.micros / 1e6 - expected, one.again)
                    taught[one.digest].append(lesson)
            for digest, some in taught.items():
                if some:
                    linear[digest] = await asyncio.to_thread(linear[digest].learn, some)
        return linear, cursor


def _by_local(items: Sequence[CatalogueItem], counted: Mapping[int, ArmCounts]) -> Arms:
    """Counts by item key, as arms in the order of a shelf."""
    rows = np.array([counted.get(item.key, (0, 0, 0)) for item in items], np.int64).reshape(-1, 3)
    return Arms(rows[:, 0], rows[:, 1], rows[:, 2] / 1e6)

"""How domains explore: settings, the plan of a request, and what the policies have learnt so far."""

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from app.engine.catalogue import CatalogueItem
from app.engine.policies.arms import Arms
from app.engine.policies.choose import Plan
from app.engine.policies.linear import Lesson, LinearArms, width
from app.engine.policies.settings import GREEDY, Exploration
from app.engine.serving import ServedDomain
from app.errors import invalid
from app.services.tail import LATE_KEYS, LATE_SECONDS, Tail
from app.storage import arms, exploration, lessons
from app.storage.database import Connection
from app.storage.lessons import Lesson as Told
from app.storage.lessons import Settled
from app.storage.records import ArmCounts

if TYPE_CHECKING:
    from app.services.installation import Installation


T = TypeVar("T")


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
class _Linear:
    """The matrices of one domain's linear policies, and how far the log behind them has been read."""

    read_at: float = -math.inf
    arms: dict[str, LinearArms] = field(default_factory=dict)
    given: Tail[int, int | None] = field(default_factory=lambda: Tail(0))
    settled: Tail[Settled, str | None] = field(default_factory=lambda: Tail((0, "")))


@dataclass(frozen=True)
class _Counted:
    """The arms of one domain, and when they were read."""

    arms: Arms
    read_at: float


class Policies:
    """One worker's memory of how domains explore and of what came of it."""

    def __init__(self, installation: "Installation") -> None:
        self._installation = installation
        self._settings: Mapping[str, DomainExploration] = {}
        self._counted: dict[str, _Counted] = {}
        self._linear: dict[str, _Linear] = {}
        self._counting: dict[str, asyncio.Task[_Counted]] = {}
        self._learning: dict[str, asyncio.Task[_Linear]] = {}

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
        name = domain.shelf.domain.name
        counted = self._counted.get(name)
        if counted is None or self._is_old(counted.read_at):
            counted = await _shared(self._counting, name, lambda: self._count(domain))
        linear = self._linear.get(name)
        if settings.is_linear and (linear is None or self._is_old(linear.read_at)):
            linear = await _shared(self._learning, name, lambda: self._learn(domain))
        known = counted.arms.grown(len(domain.shelf.items))
        return Plan(settings, seed, known, scale, linear.arms if linear else {}, domain.shelf.keys)

    def _is_old(self, read_at: float) -> bool:
        return asyncio.get_running_loop().time() - read_at >= self._installation.settings.arms_seconds

    async def _count(self, domain: ServedDomain) -> _Counted:
        """The arms as they are now."""
        clock = asyncio.get_running_loop().time()
        name = domain.shelf.domain.name
        async with self._installation.database.read() as connection:
            counted = await arms.totals(connection, self._installation.domains[name].key)
        made = _Counted(await asyncio.to_thread(_by_local, domain.shelf.items, counted), clock)
        self._counted[name] = made
        return made

    async def _learn(self, domain: ServedDomain) -> _Linear:
        """The matrices with what is new in the log; those of checkpoints out of service are let go."""
        clock = asyncio.get_running_loop().time()
        name = domain.shelf.domain.name
        serving = {part.served.digest for part in domain.parts}
        linear = self._linear.pop(name, _Linear())  # until it has learnt all that it has read
        if not serving <= linear.arms.keys():
            # A checkpoint that was not in service before: what the log has for it has been read already.
            linear = _Linear()
        linear.arms = {digest: linear.arms.get(digest, LinearArms(width(digest))) for digest in serving}
        low, high = domain.shelf.domain.rating_min, domain.shelf.domain.rating_max
        async for told in self._told(self._installation.domains[name].key, linear):
            taught: dict[str, list[Lesson]] = {digest: [] for digest in serving}
            for one in told:
                if one.digest in taught:
                    expected = 0.0 if one.again else (one.score - low) / (high - low)
                    lesson = Lesson(one.item_key, tuple(one.context), one.micros / 1e6 - expected, one.again)
                    taught[one.digest].append(lesson)
            for digest, some in taught.items():
                if some:
                    linear.arms[digest] = await asyncio.to_thread(linear.arms[digest].learn, some)
        linear.read_at = clock
        self._linear[name] = linear
        return linear

    async def _told(self, key: int, linear: _Linear) -> AsyncIterator[list[Told]]:
        """What is new in the log, page by page. What lies far enough back is read once, the end of it until nothing can
        come before it any more."""
        now, at, since = time.monotonic(), linear.given.after, linear.settled.after
        async with self._installation.database.read() as connection:
            first = max(0, await lessons.last_key(connection) - LATE_KEYS) if not at else 0
            while rows := await lessons.given_since(connection, key, at):
                at = rows[-1][0]
                new = linear.given.new(((one, one if tells else None) for one, tells in rows), now)
                linear.given.settle(min(first, at))
                yield await lessons.given(connection, [one for one in new if one is not None])
            long_ago = int((time.time() - LATE_SECONDS) * 1e6)
            while found := await lessons.settled_since(connection, key, since):
                since = found[-1][0]
                fresh = linear.settled.new(((one, one[1] if tells else None) for one, tells in found), now)
                linear.settled.settle(min((long_ago, ""), since))
                yield await lessons.by_default(connection, [one for one in fresh if one is not None])


async def _shared(running: dict[str, asyncio.Task[T]], name: str, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Requests that want the same read at the same time wait for one reading."""
    task = running.get(name)
    if task is None:
        task = running[name] = asyncio.create_task(read())
        task.add_done_callback(lambda done: running.pop(name, None))
    return await asyncio.shield(task)


def _by_local(items: Sequence[CatalogueItem], counted: Mapping[int, ArmCounts]) -> Arms:
    """Counts by item key, as arms in the order of a shelf."""
    rows = np.array([counted.get(item.key, (0, 0, 0)) for item in items], np.int64).reshape(-1, 3)
    return Arms(rows[:, 0], rows[:, 1], rows[:, 2] / 1e6)

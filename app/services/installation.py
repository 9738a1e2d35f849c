"""One worker's installation: settings, storage, cache and engine, put together and kept up to date.

Every request begins with `fresh`: it reads the revision counters (one query for all requests that arrive together)
and follows what changed, so that an interaction, an item or a reload that another worker has acknowledged is seen by
the next request here.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

import structlog

from app.cache import MemoryCache, RedisCache, UserStateCache
from app.engine.batching import Batcher, settle
from app.engine.catalogue import CatalogueItem
from app.engine.runtime import Runtime, Snapshot
from app.services import access
from app.services.access import Keyring
from app.services.coalesce import Coalescer
from app.services.counts import LiveCounts
from app.services.exploration import Policies
from app.services.flights import Flights
from app.services.following import Following
from app.services.learning import Learner
from app.services.limits import RateLimiter
from app.services.probation import Probation
from app.services.shadow import Shadows
from app.settings import Settings
from app.storage import catalogue, digests, domains, erasures, interactions, revisions, slates
from app.storage.database import Connection, Database
from app.storage.digests import Digests
from app.storage.errors import EventConflict, StorageUnavailable, UserErasing
from app.storage.records import Added, NewInteraction, NewSlate, Revisions, StoredDomain
from models.datasets.schema import Domain

log = structlog.get_logger()

CATCH_UP_SECONDS = 30.0
"""Time that a start takes at most to count what came in about items, and to learn it; the rest is for later."""

ASKED: ContextVar[Revisions | None] = ContextVar("asked", default=None)
"""The revisions that were read when the request was asked that is being answered."""


@contextmanager
def answering(seen: Revisions | None) -> Iterator[None]:
    """The block answers a request, for which these revisions were read when it was asked."""
    token = ASKED.set(seen)
    try:
        yield
    finally:
        ASKED.reset(token)


MAX_BATCHES = 16
"""Batches of interactions that are stored in one transaction."""

Batch = Sequence[NewInteraction]
Stored = Added | EventConflict | UserErasing


class Installation:
    """What the services work on. `open` makes one, `close` ends it."""

    def __init__(
        self, settings: Settings, database: Database, cache: UserStateCache, number: int, digests: Digests
    ) -> None:
        self.settings = settings
        self.database = database
        self.cache = cache
        self.digests = digests
        self.writes_under_way: set[str] = set()
        self.runtime = Runtime(settings.checkpoints, settings.torch_device, settings.max_checkpoint_bytes)
        self.batcher = Batcher(settings.max_batch, settings.max_queue)
        self.domains: dict[str, StoredDomain] = {}
        self.ready = False
        self.log_slate: Coalescer[NewSlate, None] = Coalescer(self._log_slates)
        self.flights: Flights[Any] = Flights()
        """States of users that are being made, with the evidence they are made from; see `app.services.evidence`."""
        self.probation = Probation(settings.probation_seconds, settings.probation_slower)
        self._looking: asyncio.Task[None] | None = None
        self.add_batch: Coalescer[Batch, Stored] = Coalescer(self._add_batches, MAX_BATCHES)
        self._watch = revisions.Watch(database)
        self._revisions: Coalescer[None, Revisions] = Coalescer(self._read_revisions)
        self.change = asyncio.Lock()
        """Held by whoever changes the engine's state."""
        self.following = Following(self)
        self.shadows = Shadows(self)
        self.policies = Policies(self)
        self._exploration = -1
        self._keyring = Keyring()
        self._erasures = 0
        self._retired_to = 0
        self.limiter = RateLimiter(settings.redis_url, f"warmstart:{number:x}")
        self.counts = LiveCounts(database)
        self._counted_at: dict[str, float] = {}
        self.learner = Learner(database, self.runtime, settings, self.change, self.fresh, number)

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connect, migrate, load what is wanted; `warm_up` makes it ready."""
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        settings.checkpoints.mkdir(parents=True, exist_ok=True)
        database = await Database.open(
            settings.database, pool_size=settings.pool_size, statement_timeout=settings.statement_timeout_seconds
        )
        await database.upgrade()
        if settings.bootstrap_admin_key_file is not None:
            await access.bootstrap(database, settings.bootstrap_admin_key_file)
        async with database.read() as connection:
            number = await revisions.installation_id(connection)
            keyed = await digests.of_installation(connection)
            retired_to = await erasures.last_key(connection)
        cache: UserStateCache = (
            RedisCache(
                settings.redis_url,
                settings.cache_ttl_seconds,
                settings.cache_max_state_bytes,
                namespace=f"warmstart:{number:x}",
            )
            if settings.redis_url
            else MemoryCache(settings.cache_max_bytes, settings.cache_ttl_seconds)
        )
        made = cls(settings, database, cache, number, keyed)
        made._retired_to = retired_to  # a cache that is empty need not forget
        made.batcher.start()
        await made.fresh()
        await made.following.follow()
        return made

    async def warm_up(self) -> None:
        """Count and learn what came in about items, answer practice questions, and be ready."""
        if any(domain.fallback for domain in self.runtime.now.domains.values()):
            await self.counts.catch_up(CATCH_UP_SECONDS)
        await self.learner.catch_up(CATCH_UP_SECONDS)
        await asyncio.to_thread(settle, self.runtime.warm_up)
        self.learner.start()
        self._looking = asyncio.create_task(self._look())
        self.ready = True

    def leave(self) -> None:
        """Say that no more requests should come; those that do are answered all the same."""
        self.ready = False

    async def close(self) -> None:
        """Finish what is under way and let go of everything."""
        self.ready = False
        if self._looking is not None:
            self._looking.cancel()
        await self.following.close()
        await self.shadows.close()
        await self.probation.close()
        await self.learner.close()
        await asyncio.to_thread(self.batcher.close)
        await self.log_slate.close()
        await self.add_batch.close()
        await self.cache.close()
        await self.limiter.close()
        self._watch.close()
        await self.database.close()

    async def fresh(self, *, as_asked: bool = False) -> Snapshot:
        """The engine's state, at least as new as everything committed before this call; `as_asked`: before the request
        that is answered was asked, which has changed nothing itself. That was read already, with the keys.

        A reload by another worker is the exception: it is loaded in the background while the old checkpoint answers.
        """
        seen = (ASKED.get() if as_asked else None) or await self._revisions(None)
        await self.follow_catalogue(seen.catalogue)
        if seen.exploration != self._exploration:
            await self.policies.follow()
            self._exploration = max(seen.exploration, self._exploration)
        if seen.erasures != self._erasures:
            await self._follow_erasures()
            self._erasures = max(seen.erasures, self._erasures)
        self.following.look(seen.deployments)
        return self.runtime.now

    @property
    def keyring_at_hand(self) -> Keyring:
        """The keys as the last request found them."""
        return self._keyring

    async def keyring(self) -> Keyring:
        """The keys, at least as new as everything committed before this call."""
        return (await self.asked())[0]

    async def asked(self) -> tuple[Keyring, Revisions]:
        """The keys, and the revisions that were read to know that they are new; for `answering`."""
        seen = await self._revisions(None)
        if seen.keys != self._keyring.revision:
            read = await Keyring.read(self.database)
            if read.revision > self._keyring.revision:
                self._keyring = read
        return self._keyring, seen

    async def follow_catalogue(self, revision: int) -> None:
        """Have the engine know domains and items as of that revision, at least."""
        if revision > self.runtime.now.catalogue.revision:
            async with self.change:
                if revision > self.runtime.now.catalogue.revision:
                    await self._follow_catalogue()

    async def refresh_counts(self, domain: str) -> Snapshot:
        """Bring the live counts of a domain up to date, unless that was done a moment ago."""
        clock = asyncio.get_running_loop().time()
        if clock - self._counted_at.get(domain, -1e9) < self.settings.live_counts_seconds:
            return self.runtime.now
        self._counted_at[domain] = clock
        await self.counts.follow()
        async with self.change:
            keys = self.runtime.now.catalogue.shelves[domain].keys.tolist()
            await asyncio.to_thread(lambda: self.runtime.count(domain, self.counts.of(keys)))
        return self.runtime.now

    async def _follow_erasures(self) -> None:
        async with self.database.read() as connection:
            found = await erasures.since(connection, self._retired_to)
        self.cache.retire(erasure.user_key for erasure in found)
        self._retired_to = max([self._retired_to, *(erasure.key for erasure in found)])

    async def _look(self) -> None:
        """Look for what others have acknowledged even where no requests come."""
        while True:
            await asyncio.sleep(self.settings.follow_seconds)
            try:
                await self.fresh()
                await self.keyring()
            except StorageUnavailable as failure:
                log.warning("following_waits", reason=failure.reason)
            except Exception:
                log.exception("following_failed")

    async def _read_revisions(self, group: Sequence[None]) -> Sequence[Revisions]:
        return [await self._watch.read()] * len(group)

    async def _add_batches(self, group: Sequence[Batch]) -> Sequence[Stored]:
        now = time.time()

        async def together(connection: Connection) -> list[Added | EventConflict]:
            return await interactions.add_many(connection, group, now, self.digests)

        try:
            return await self.database.transact(together)
        except (EventConflict, UserErasing) as problem:
            if len(group) == 1:
                return [problem]
        # Somebody's batch cannot be stored; what the others hear must not depend on it.
        alone: list[Stored] = []
        for batch in group:
            alone += await self._add_batches([batch])
        return alone

    async def _log_slates(self, group: Sequence[NewSlate]) -> Sequence[None]:
        await slates.log(self.database, group)
        return [None] * len(group)

    async def _follow_catalogue(self) -> None:
        async with self.database.read(snapshot=True) as connection:
            stored = await domains.all(connection)
            changed = await catalogue.items_since(connection, self.runtime.now.catalogue.revision)
            seen = await revisions.read(connection)
        self.domains = {domain.name: domain for domain in stored}
        name_of = {domain.key: domain.name for domain in stored}
        items = [
            CatalogueItem(
                item.key,
                name_of[item.domain_key],
                item.item_id,
                item.title or item.item_id,
                item.attributes,
                item.available and not item.deleted,
                item.deleted,
            )
            for item in changed
        ]
        specs = [
            Domain(name=d.name, rating_min=d.rating_min, rating_max=d.rating_max, kinds=dict(d.kinds)) for d in stored
        ]
        await asyncio.to_thread(self.runtime.follow, seen.catalogue, specs, items)
        self.learner.again(item.key for item in items)

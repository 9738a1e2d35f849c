"""Learning while serving, in one worker: which items to learn anew, and what there is to learn them from.

Nothing is decided between workers and nothing learnt is stored. Each worker reads what is new in the log of
interactions every few seconds, collects all events of the items that are in it, and lets the engine learn their rows
(`app.engine.learning`); after a start or a reload it does so for all items that have events.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
import structlog

from app.engine.answering import Known
from app.engine.catalogue import Catalogue
from app.engine.learning import ItemEvent, ItemEvents, seen_through, teaches
from app.engine.runtime import Runtime
from app.services.tail import ItemLog
from app.settings import Settings
from app.storage import item_events, users
from app.storage.database import Connection, Database
from app.storage.errors import StorageUnavailable
from app.storage.item_events import moment
from app.storage.records import Event, Json, seconds
from app.telemetry import ITEMS_LEARNT, ITEMS_TO_LEARN

log = structlog.get_logger()

CHUNK = 8
"""Items learnt at a time: a change of the catalogue waits for that long at most."""
LOOK_BACK = 2
"""How many times `max_history` of a user's newest events are read at once; what lies further back, by itself."""


class Learner:
    """Keeps the rows of items up to date with what comes in about them."""

    def __init__(
        self,
        database: Database,
        runtime: Runtime,
        settings: Settings,
        change: asyncio.Lock,
        fresh: Callable[[], Awaitable[object]],
        installation: int,
    ) -> None:
        """`change` is held by whoever changes the runtime, `fresh` makes it follow the catalogue; `installation` is the
        installation's number."""
        self._database = database
        self._runtime = runtime
        self._settings = settings
        self._change = change
        self._fresh = fresh
        self._installation = installation
        self._log = ItemLog()
        self._touched: set[int] = set()
        self._dirty: dict[int, None] = {}
        self._all = True
        self._task: asyncio.Task[None] | None = None

    @property
    def enabled(self) -> bool:
        """Whether anything is learnt."""
        return self._settings.learn_seconds > 0

    def start(self) -> None:
        """Go on learning in the background."""
        if self.enabled:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop between two steps or within one; nothing is lost by that."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def renew(self) -> None:
        """Learn all items again: other checkpoints are in service."""
        self._all = True

    def again(self, item_keys: Iterable[int]) -> None:
        """Learn items again, as far as there is something to learn from: their content has changed."""
        self._dirty.update(dict.fromkeys(key for key in item_keys if key in self._touched))

    async def catch_up(self, limit_seconds: float) -> None:
        """Learn what there is to learn, for so long at most; the rest follows in the background."""
        if not self.enabled:
            return
        deadline = time.monotonic() + limit_seconds
        try:
            await self._look()
            while self._dirty and time.monotonic() < deadline:
                await self._learn_some()
        except StorageUnavailable as failure:
            log.warning("learning_waits", reason=failure.reason)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.learn_seconds)
            try:
                await self._look()
                while self._dirty:
                    started = time.monotonic()
                    await self._learn_some()
                    await asyncio.sleep(time.monotonic() - started)  # half of the time is for requests alone
            except StorageUnavailable as failure:
                log.warning("learning_waits", reason=failure.reason)
            except Exception:
                log.exception("learning_failed")

    async def _look(self) -> None:
        """Find out which items have something new."""
        async with self._database.read() as connection:
            found = await self._log.new(connection)
            self._touched.update(found)
            self._dirty.update(dict.fromkeys(found))
            if self._all:
                served = self._runtime.now.served.values()
                seen = min((seen_through(one, self._installation) for one in served), default=0)
                self._touched.update(await item_events.touched(connection, seen))
                # Those that came last have the most to learn.
                self._dirty.update(dict.fromkeys(sorted(self._touched, reverse=True)))
                self._all = False
        ITEMS_TO_LEARN.set(len(self._dirty))

    async def _learn_some(self) -> None:
        """Learn the first few items that wait."""
        some = list(self._dirty)[:CHUNK]
        events = await self._events_of(some)
        async with self._change:
            changed = await asyncio.to_thread(self._runtime.learn, events, self._installation)
        for key in some:
            self._dirty.pop(key, None)
        ITEMS_LEARNT.inc(changed)
        ITEMS_TO_LEARN.set(len(self._dirty))

    async def _events_of(self, item_keys: Sequence[int]) -> list[ItemEvents]:
        """The events of items, each with what was known of its user before it."""
        limit = self._settings.max_history
        async with self._database.read(snapshot=True) as connection:
            events = {key: await self._standing(connection, key) for key in item_keys}
            raters = sorted({event.user_key for found in events.values() for event in found})
            pasts = await item_events.of_users(connection, raters, LOOK_BACK * limit)
            attributes = await item_events.attributes(connection, raters)
            long = {key for key, past in pasts.items() if len(past) == LOOK_BACK * limit}
            further: dict[int, list[Event]] = {}
            for found in events.values():
                for event in found:
                    past = pasts[event.user_key]
                    if (
                        event.user_key in long
                        and _n_items(past[: bisect_left(past, moment(event), key=moment)]) <= limit
                    ):
                        further[event.key] = await users.history(
                            connection, event.user_key, LOOK_BACK * limit, moment(event)
                        )
        await self._fresh()  # items that the log speaks of are in the catalogue now
        catalogue = self._runtime.now.catalogue
        return await asyncio.to_thread(_assembled, catalogue, limit, events, pasts, further, attributes)

    async def _standing(self, connection: Connection, item_key: int) -> list[item_events.ItemEvent]:
        """The newest events of an item that teach something, without ratings that a later one has replaced."""
        served = self._runtime.now.served.values()
        newest = await item_events.of_item(connection, item_key, self._settings.learn_ratings)
        last = {event.user_key: event.key for event in newest if event.kind == "rating"}
        return [
            event
            for event in newest
            if (event.kind != "rating" or last[event.user_key] == event.key)
            and any(teaches(one, event.key, event.event_id, self._installation) for one in served)
        ]


def _n_items(past: Sequence[item_events.ItemEvent]) -> int:
    return len({event.item_key for event in past})


def _assembled(
    catalogue: Catalogue,
    limit: int,
    events: Mapping[int, Sequence[item_events.ItemEvent]],
    pasts: Mapping[int, Sequence[item_events.ItemEvent]],
    further: Mapping[int, Sequence[Event]],
    attributes: Mapping[int, Json],
) -> list[ItemEvents]:
    """The events in the engine's terms."""
    assembled = []
    for item_key, found in events.items():
        made = []
        for event in found:
            worth = _worth(catalogue, event.item_key, event.kind, event.value)
            if worth is None:
                continue
            before: Sequence[Event] | None = further.get(event.key)
            if before is None:
                past = pasts[event.user_key]
                before = [
                    Event(one.item_key, one.kind, one.value, seconds(one.occurred_at), None)
                    for one in past[: bisect_left(past, moment(event), key=moment)]
                ]
            known = _known(catalogue, before, item_key, limit, attributes.get(event.user_key, {}))
            made.append(ItemEvent(event.key, event.event_id, *worth, known))
        assembled.append(ItemEvents(item_key, made))
    return assembled


def _known(catalogue: Catalogue, before: Sequence[Event], item_key: int, limit: int, attributes: Json) -> Known:
    """The newest `limit` of the events `before`, without those of one item and ratings that were replaced later."""
    found: list[tuple[int, float, float, float, str]] = []
    rated: set[int] = set()
    for event in reversed(before):
        if event.item_key == item_key or (event.kind == "rating" and event.item_key in rated):
            continue
        if event.kind == "rating":
            rated.add(event.item_key)
        worth = _worth(catalogue, event.item_key, event.kind, event.value)
        if worth is not None:
            found.append((catalogue.position_of[event.item_key], *worth, event.occurred_at, event.kind))
        if len(found) == limit:
            break
    positions, values, weights, times, kinds = zip(*reversed(found), strict=True) if found else [()] * 5
    return Known(
        np.array(positions, dtype=np.int64),
        np.array(values, dtype=np.float32),
        np.array(weights, dtype=np.float32),
        np.array(times, dtype=np.float64),
        kinds,
        attributes,
    )


def _worth(catalogue: Catalogue, item_key: int, kind: str, value: float | None) -> tuple[float, float] | None:
    """(the rating that an event stands for, its weight); None where it has no meaning here (any more)."""
    position = catalogue.position_of.get(item_key)
    if position is None:
        return None
    return catalogue.shelves[catalogue.items[position].domain].domain.evidence_of(kind, value)

"""Store interactions: validate, one transaction, and only then an answer."""

import time
from collections.abc import Sequence
from typing import Protocol

from pydantic import BaseModel

from app.engine.runtime import Snapshot
from app.errors import Problem, invalid
from app.services import once
from app.services.evidence import check_time, check_value
from app.services.exploration import micros
from app.services.installation import Installation
from app.services.once import Done, Work
from app.storage import interactions
from app.storage.errors import EventConflict, UserErasing
from app.storage.records import Added, NamedWrite, NewInteraction
from models.datasets.schema import Domain


class Posted(Protocol):
    """An event as it was posted."""

    @property
    def user_id(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def item_id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def event_id(self) -> str | None: ...
    @property
    def occurred_at(self) -> float | None: ...
    @property
    def slate_id(self) -> str | None: ...
    @property
    def context(self) -> BaseModel | None: ...


async def ingest(installation: Installation, posted: Sequence[Posted], write: NamedWrite | None = None) -> Done[Added]:
    """Store a batch, whole or not at all; committed when this returns.

    Batches that arrive while others are being stored go together into the next transaction, which is one commit for
    all of them; those with a name are recorded with it, each in a transaction of its own. Raises Problem:
    validation-error, timestamp-out-of-range, event-id-conflict, user-erasing, each of which names its rows, and what
    `once.transact` raises.
    """

    async def prepare() -> Work[Added]:
        batch = await _batch(installation, posted)
        now = time.time()
        return lambda connection: interactions.add(connection, batch, now, installation.digests)

    try:
        if write is None:
            outcome = await installation.add_batch(await _batch(installation, posted))
            if isinstance(outcome, Added):
                return Done(outcome)
            raise outcome
        return await once.transact(installation, write, prepare, Added)
    except EventConflict as conflict:
        pointers = [f"/interactions/{row}/event_id" for row in conflict.rows[:20]]
        raise Problem("event-id-conflict", "Nothing of the batch was stored.", pointers=pointers) from None
    except UserErasing as erasing:
        rows = [row for row, event in enumerate(posted) if event.user_id in erasing.user_ids]
        pointers = [f"/interactions/{row}/user_id" for row in rows[:20]]
        raise Problem("user-erasing", "Nothing of the batch was stored.", pointers=pointers) from None


async def _batch(installation: Installation, posted: Sequence[Posted]) -> list[NewInteraction]:
    snapshot = await installation.fresh()
    now = time.time()
    return [_checked(installation, snapshot, event, row, now) for row, event in enumerate(posted)]


async def withdraw(installation: Installation, event_id: str, user_id: str | None = None) -> None:
    """Take an event back, of that user if one is named. Raises Problem (not-found)."""
    found = await installation.database.transact(lambda connection: interactions.remove(connection, event_id, user_id))
    if not found:
        raise Problem("not-found", "No event has that id.")


def _checked(installation: Installation, snapshot: Snapshot, event: Posted, row: int, now: float) -> NewInteraction:
    shelf = snapshot.catalogue.shelves.get(event.domain)
    if shelf is None:
        raise invalid(f"/interactions/{row}/domain", "no domain has that name")
    check_value(shelf.domain, event.kind, event.value, "/interactions", row)
    if event.occurred_at is not None:
        check_time(event.occurred_at, now, "/interactions", row)
    return NewInteraction(
        user_id=event.user_id,
        domain_key=installation.domains[event.domain].key,
        item_id=event.item_id,
        kind=event.kind,
        value=event.value,
        occurred_at=event.occurred_at,
        event_id=event.event_id,
        slate_id=event.slate_id,
        context=None if event.context is None else event.context.model_dump(exclude_none=True),
        reward_micros=None if event.slate_id is None else _reward(shelf.domain, event.kind, event.value),
    )


def _reward(domain: Domain, kind: str, value: float | None) -> int | None:
    """What an event is worth where it follows a shown item; a kind that the domain gives no reward is none.

    A rating is worth its place on the scale, from 0 to 1.
    """
    if kind == "rating":
        assert value is not None
        return micros((value - domain.rating_min) / (domain.rating_max - domain.rating_min))
    return micros(domain.kinds[kind].reward) or None

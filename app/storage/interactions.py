"""Interactions: a batch is stored whole or not at all, and sending an event again is harmless."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import orjson
from sqlalchemy import LargeBinary, Row, String, bindparam, cast, delete, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import catalogue, engines, item_events, rewards, tables, tombstones, users
from app.storage.batches import BulkInsert, among
from app.storage.digests import Digests
from app.storage.errors import EventConflict
from app.storage.records import Added, ExportedInteraction, InteractionReward, NewInteraction, microseconds, seconds

_INTERACTIONS = tables.interactions
_COLUMNS = (
    "event_id",
    "content_digest",
    "user_key",
    "item_key",
    "kind",
    "value",
    "occurred_at",
    "received_at",
    "slate_id",
    "context",
)
_ADD = BulkInsert(
    _INTERACTIONS,
    _COLUMNS,
    lambda insert: insert.on_conflict_do_nothing(index_elements=["event_id"]),
    returning=["event_id"],
)
_DIGESTS = select(_INTERACTIONS.c.event_id, _INTERACTIONS.c.content_digest).where(
    among(_INTERACTIONS.c.event_id, "event_ids")
)
# In one statement, which sees one state of the database: an event is either still there, or its tombstone is.
_KNOWN = _DIGESTS.union_all(select(cast(null(), String), cast(null(), LargeBinary)).where(tombstones.ANY))
_RAISE = (
    update(tables.users).where(tables.users.c.key == bindparam("user_key")).values(revision=tables.users.c.revision + 1)
)
_EXPORT = (
    select(_INTERACTIONS, tables.users.c.user_id, tables.items.c.item_id, tables.domains.c.name.label("domain"))
    .join(tables.users, tables.users.c.key == _INTERACTIONS.c.user_key)
    .join(tables.items, tables.items.c.key == _INTERACTIONS.c.item_key)
    .join(tables.domains, tables.domains.c.key == tables.items.c.domain_key)
    .where(_INTERACTIONS.c.key > bindparam("after_key"))
    .order_by(_INTERACTIONS.c.key)
    .limit(bindparam("size"))
)


async def add(connection: AsyncConnection, interactions: Sequence[NewInteraction], now: float, keyed: Digests) -> Added:
    """Store a batch. Users and items that nobody has met are created; users' revisions are raised once each.

    An event whose id is stored already with the same content, or comes twice in the batch, is a duplicate and not
    stored again; nor is one that was erased with its user, or that occurred before its user was. Raises EventConflict
    where an id is taken by other content, and UserErasing; nothing is stored once the transaction is rolled back.
    """
    (outcome,) = await add_many(connection, [interactions], now, keyed)
    if isinstance(outcome, EventConflict):
        raise outcome
    return outcome


async def add_many(
    connection: AsyncConnection, batches: Sequence[Sequence[NewInteraction]], now: float, keyed: Digests
) -> list[Added | EventConflict]:
    """`add` for several batches in one transaction, as if one came after the other; what became of each.

    A batch with a conflict is left out, and the others are stored. Raises UserErasing, and EventConflict where ids were
    taken by somebody else meanwhile: then each of several batches has to be tried by itself.
    """
    await engines.plan_once(connection)
    interactions = [event for batch in batches for event in batch]
    digests = [None if event.event_id is None else content_digest(event) for event in interactions]
    event_ids = [event.event_id for event in interactions if event.event_id is not None]
    known = (await connection.execute(_KNOWN, {"event_ids": event_ids})).all()
    taken = {row.event_id: row.content_digest for row in known if row.event_id is not None}
    any_erased = len(taken) < len(known)
    late = await _late(connection, interactions, digests, keyed) if any_erased else set()
    fresh: list[int] = []
    times: Counter[str] = Counter()
    conflicts: list[EventConflict | None] = []
    starts = list(accumulate(map(len, batches), initial=0))
    for start, end in pairwise(starts):
        found, wrong = _fresh(interactions, digests, taken, [row for row in range(start, end) if row not in late])
        conflicts.append(EventConflict([row - start for row in wrong]) if wrong else None)
        if not wrong:
            fresh += found
            times.update({interactions[row].user_id for row in found})
            taken |= {event_id: digests[row] for row in found if (event_id := interactions[row].event_id) is not None}
    stored = await _store(connection, interactions, digests, fresh, times, now) if fresh else set()
    accepted = [sum(row in stored for row in range(start, end)) for start, end in pairwise(starts)]
    return [
        conflict or Added(n, len(batch) - n) for conflict, n, batch in zip(conflicts, accepted, batches, strict=True)
    ]


def _fresh(
    interactions: Sequence[NewInteraction],
    digests: Sequence[bytes | None],
    taken: Mapping[str, bytes | None],
    rows: Iterable[int],
) -> tuple[list[int], list[int]]:
    """(rows of a batch that are new, rows whose ids are taken by other content)."""
    fresh: list[int] = []
    wrong: list[int] = []
    mine: dict[str, bytes | None] = {}
    for row in rows:
        event_id = interactions[row].event_id
        if event_id is None:
            fresh.append(row)
        elif event_id not in taken and event_id not in mine:
            mine[event_id] = digests[row]
            fresh.append(row)
        elif (taken[event_id] if event_id in taken else mine[event_id]) != digests[row]:
            wrong.append(row)
    return fresh, wrong


async def _store(
    connection: AsyncConnection,
    interactions: Sequence[NewInteraction],
    digests: Sequence[bytes | None],
    fresh: Sequence[int],
    times: Mapping[str, int],
    now: float,
) -> set[int]:
    """Insert what is new, and what it is worth; the rows that were stored."""
    batch = [interactions[row] for row in fresh]
    user_keys = await users.touch(connection, times)
    item_keys = await _item_keys(connection, batch)
    received_at = microseconds(now)
    rows = [
        {
            "event_id": event.event_id,
            "content_digest": digests[row],
            "user_key": user_keys[event.user_id],
            "item_key": item_keys[event.domain_key, event.item_id],
            "kind": event.kind,
            "value": event.value,
            "occurred_at": received_at if event.occurred_at is None else microseconds(event.occurred_at),
            "received_at": received_at,
            "slate_id": event.slate_id,
            "context": event.context,
        }
        for row, event in zip(fresh, batch, strict=True)
    ]
    taken_now = {row.event_id for row in await _ADD(connection, rows)}
    stored = {row for row in fresh if interactions[row].event_id is None or interactions[row].event_id in taken_now}
    if len(stored) < len(fresh):
        await _check_lost_races(connection, interactions, digests, [row for row in fresh if row not in stored])
    await rewards.follow(connection, _worth(batch, item_keys, taken_now), now)
    return stored


async def _late(
    connection: AsyncConnection, batch: Sequence[NewInteraction], digests: Sequence[bytes | None], keyed: Digests
) -> set[int]:
    """Rows that would bring back what was erased."""
    users_of = {user_id: tombstones.of_user(keyed, user_id) for user_id in {event.user_id for event in batch}}
    events = [
        None if digest is None or event.event_id is None else tombstones.of_event(keyed, event.event_id, digest)
        for event, digest in zip(batch, digests, strict=True)
    ]
    erased = await tombstones.find(connection, [*users_of.values(), *(event for event in events if event)])
    return {
        i
        for i, event in enumerate(batch)
        if events[i] in erased
        or (
            event.occurred_at is not None and microseconds(event.occurred_at) <= erased.get(users_of[event.user_id], -1)
        )
    }


def _worth(
    batch: Sequence[NewInteraction], item_keys: Mapping[tuple[int, str], int], stored: set[str | None]
) -> list[InteractionReward]:
    """The rewards among stored events."""
    return [
        InteractionReward(
            event.slate_id, item_keys[event.domain_key, event.item_id], event.kind, event.reward_micros, event.event_id
        )
        for event in batch
        if event.slate_id is not None
        and event.reward_micros is not None
        and (event.event_id is None or event.event_id in stored)
    ]


async def remove(connection: AsyncConnection, event_id: str, user_id: str | None = None) -> bool:
    """Take an event back, and what it was worth; the user's revision is raised. Whether there was one, of that user if
    one is named."""
    removed = delete(_INTERACTIONS).where(_INTERACTIONS.c.event_id == event_id)
    if user_id is not None:
        owner = select(tables.users.c.key).where(tables.users.c.user_id == user_id)
        removed = removed.where(_INTERACTIONS.c.user_key == owner.scalar_subquery())
    about = removed.returning(_INTERACTIONS.c.user_key, _INTERACTIONS.c.item_key)
    row = (await connection.execute(about)).first()
    if row is None:
        return False
    await connection.execute(_RAISE, {"user_key": row.user_key})
    await item_events.withdraw(connection, [row.item_key])
    await rewards.withdraw(connection, event_id)
    return True


async def export_since(connection: AsyncConnection, after_key: int, limit: int) -> list[ExportedInteraction]:
    """The next `limit` interactions behind a key, 0 for the first ones, in order of their keys.

    For a whole export read all pages in one snapshot. Between snapshots an interaction with a smaller key than the last
    one read may still be committed on Postgres.
    """
    rows = await connection.execute(_EXPORT, {"after_key": after_key, "size": limit})
    return [exported(row) for row in rows]


def exported(row: Row[Any]) -> ExportedInteraction:
    """From a row of `interactions` beside the ids of user and item and the domain's name."""
    return ExportedInteraction(
        key=row.key,
        user_id=row.user_id,
        domain=row.domain,
        item_id=row.item_id,
        kind=row.kind,
        value=row.value,
        occurred_at=seconds(row.occurred_at),
        received_at=seconds(row.received_at),
        event_id=row.event_id,
        slate_id=row.slate_id,
        context=row.context,
    )


def content_digest(event: NewInteraction) -> bytes:
    """What tells whether two events under one id are the same; 4 and 4.0 are, and so are contexts in any order."""
    occurred_at = None if event.occurred_at is None else microseconds(event.occurred_at)
    value = None if event.value is None else float(event.value)
    content = [
        event.user_id,
        event.domain_key,
        event.item_id,
        event.kind,
        value,
        occurred_at,
        event.slate_id,
        event.context or None,
    ]
    return hashlib.blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


async def _digests(connection: AsyncConnection, event_ids: Iterable[str]) -> dict[str, bytes | None]:
    wanted = list(event_ids)
    if not wanted:
        return {}
    rows = await connection.execute(_DIGESTS, {"event_ids": wanted})
    return {row.event_id: row.content_digest for row in rows}


async def _item_keys(connection: AsyncConnection, batch: Sequence[NewInteraction]) -> Mapping[tuple[int, str], int]:
    wanted = sorted({(event.domain_key, event.item_id) for event in batch})
    keys = await _known_items(connection, wanted)
    missing = [identity for identity in wanted if identity not in keys]
    if missing:
        await catalogue.add_by_id(connection, missing)
        keys |= await _known_items(connection, missing)
    return keys


async def _known_items(connection: AsyncConnection, wanted: Sequence[tuple[int, str]]) -> dict[tuple[int, str], int]:
    keys: dict[tuple[int, str], int] = {}
    for domain_key in dict.fromkeys(domain_key for domain_key, _ in wanted):
        item_ids = [item_id for of, item_id in wanted if of == domain_key]
        found = await catalogue.keys_of(connection, domain_key, item_ids)
        keys |= {(domain_key, item_id): key for item_id, key in found.items()}
    return keys


async def _check_lost_races(
    connection: AsyncConnection,
    interactions: Sequence[NewInteraction],
    digests: Sequence[bytes | None],
    lost: Sequence[int],
) -> None:
    """Somebody else stored the event ids of these rows since we looked: fine if they were the same events."""
    named = {row: event_id for row in lost if (event_id := interactions[row].event_id) is not None}
    taken = await _digests(connection, named.values())
    conflicts = [row for row, event_id in named.items() if taken.get(event_id) != digests[row]]
    if conflicts:
        raise EventConflict(conflicts)

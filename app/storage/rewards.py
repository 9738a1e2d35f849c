"""Rewards: what came of shown items. Each counts in its arm within the transaction that stores it.

Several rewards of one place of a slate add up. Whoever changes rewards of a slate locks it first; so the first reward
of a place is known to be the first, however many writers there are.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import arms, slates, tables
from app.storage.batches import BulkInsert, among
from app.storage.errors import EventConflict, NotShown, UnknownSlate
from app.storage.records import Added, ArmCounts, InteractionReward, NewReward, StoredSlate, microseconds

_REWARDS = tables.rewards
_COLUMNS = (
    "event_id",
    "content_digest",
    "interaction_id",
    "slate_id",
    "item_key",
    "kind",
    "micros",
    "received_at",
)
_ADD = BulkInsert(
    _REWARDS, _COLUMNS, lambda insert: insert.on_conflict_do_nothing(), returning=["event_id", "interaction_id"]
)
_DIGESTS = select(_REWARDS.c.event_id, _REWARDS.c.content_digest).where(among(_REWARDS.c.event_id, "event_ids"))
_OF_SLATES = select(_REWARDS.c.slate_id, _REWARDS.c.item_key).where(among(_REWARDS.c.slate_id, "slate_ids")).distinct()
_OF_INTERACTION = select(_REWARDS.c.key, _REWARDS.c.slate_id).where(
    _REWARDS.c.interaction_id == bindparam("interaction_id")
)

REWARD = "reward"
"""The kind of a reward that was posted as such; others have that of their interaction."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A reward whose place is known."""

    slate: StoredSlate
    item_key: int
    kind: str
    micros: int
    event_id: str | None = None
    digest: bytes | None = None
    interaction_id: str | None = None


async def add(connection: AsyncConnection, rewards: Sequence[NewReward], now: float) -> Added:
    """Store a batch, whole or not at all.

    A reward whose event id is stored already with the same content, or comes twice in the batch, is a duplicate. Raises
    UnknownSlate, NotShown and EventConflict, which name the rows; nothing is stored then.
    """
    shown = await slates.lock(connection, {reward.slate_id for reward in rewards})
    unknown = [i for i, reward in enumerate(rewards) if reward.slate_id not in shown]
    if unknown:
        raise UnknownSlate(unknown)
    key_of = {slate_id: {item.item_id: item.item_key for item in slate.items} for slate_id, slate in shown.items()}
    absent = [i for i, reward in enumerate(rewards) if reward.item_id not in key_of[reward.slate_id]]
    if absent:
        raise NotShown(absent)
    taken = await _digests(connection, [reward.event_id for reward in rewards if reward.event_id is not None])
    fresh: list[_Row] = []
    conflicts: list[int] = []
    for i, reward in enumerate(rewards):
        digest = None if reward.event_id is None else content_digest(reward)
        if reward.event_id is not None:
            if reward.event_id in taken:
                if taken[reward.event_id] != digest:
                    conflicts.append(i)
                continue
            taken[reward.event_id] = digest
        item_key = key_of[reward.slate_id][reward.item_id]
        fresh.append(_Row(shown[reward.slate_id], item_key, REWARD, reward.micros, reward.event_id, digest))
    if conflicts:
        raise EventConflict(conflicts)
    stored = await _store(connection, fresh, now)
    if stored < len(fresh):
        # Whoever has the id stored it for another slate: one that we do not hold the lock of.
        ours = {row.event_id for row in fresh if row.event_id is not None}
        raise EventConflict([i for i, reward in enumerate(rewards) if reward.event_id in ours])
    return Added(accepted=len(fresh), duplicates=len(rewards) - len(fresh))


async def follow(connection: AsyncConnection, rewards: Sequence[InteractionReward], now: float) -> None:
    """Store what interactions are worth, those with items that their slate showed; others are no rewards."""
    shown = await slates.lock(connection, {reward.slate_id for reward in rewards})
    keys = {slate_id: {item.item_key for item in slate.items} for slate_id, slate in shown.items()}
    rows = [
        _Row(shown[r.slate_id], r.item_key, r.kind, r.micros, interaction_id=r.event_id)
        for r in rewards
        if r.item_key in keys.get(r.slate_id, ())
    ]
    await _store(connection, rows, now)


async def withdraw(connection: AsyncConnection, event_id: str) -> None:
    """Take back what an interaction was worth, if it was worth anything."""
    found = (await connection.execute(_OF_INTERACTION, {"interaction_id": event_id})).first()
    if found is None:
        return
    shown = await slates.lock(connection, {found.slate_id})
    gone = delete(_REWARDS).where(_REWARDS.c.key == found.key).returning(_REWARDS.c.item_key, _REWARDS.c.micros)
    row = (await connection.execute(gone)).first()
    if row is None:  # the slate left the log since, and took it along
        return
    slate = shown[found.slate_id]
    others = await _rewarded(connection, [slate.slate_id])
    default = slate.default_micros
    if (slate.slate_id, row.item_key) in others:
        change = ArmCounts(0, 0, -row.micros)
    else:
        change = ArmCounts(0, -1, -row.micros) if default is None else ArmCounts(0, 0, default - row.micros)
    await arms.count(connection, {(slate.domain_key, slate.policy["policy"], row.item_key): change})


def content_digest(reward: NewReward) -> bytes:
    """What tells whether two rewards under one id are the same."""
    content = [reward.slate_id, reward.item_id, reward.micros]
    return hashlib.blake2b(orjson.dumps(content), digest_size=16).digest()


async def _store(connection: AsyncConnection, rows: Sequence[_Row], now: float) -> int:
    """Insert and count; how many were stored. The slates are locked."""
    if not rows:
        return 0
    before = await _rewarded(connection, sorted({row.slate.slate_id for row in rows}))
    stored = await _ADD(connection, [_values(row, now) for row in rows])
    taken = {(row.event_id, row.interaction_id) for row in stored}
    changes: dict[arms.Key, ArmCounts] = {}
    for row in rows:
        named = (row.event_id, row.interaction_id)
        if named != (None, None) and named not in taken:
            continue
        place = (row.slate.slate_id, row.item_key)
        change = ArmCounts(0, 0, row.micros)
        if place not in before:
            before.add(place)
            default = row.slate.default_micros
            change += ArmCounts(0, 1, 0) if default is None else ArmCounts(0, 0, -default)
        key = (row.slate.domain_key, row.slate.policy["policy"], row.item_key)
        changes[key] = changes.get(key, ArmCounts()) + change
    await arms.count(connection, changes)
    return len(stored)


async def _rewarded(connection: AsyncConnection, slate_ids: Sequence[str]) -> set[tuple[str, int]]:
    """(slate id, item key) of the places that have a reward."""
    rows = await connection.execute(_OF_SLATES, {"slate_ids": list(slate_ids)})
    return {(row.slate_id, row.item_key) for row in rows}


async def _digests(connection: AsyncConnection, event_ids: Sequence[str]) -> dict[str, bytes | None]:
    if not event_ids:
        return {}
    rows = await connection.execute(_DIGESTS, {"event_ids": list(event_ids)})
    return {row.event_id: row.content_digest for row in rows}


def _values(row: _Row, now: float) -> Mapping[str, Any]:
    return {
        "event_id": row.event_id,
        "content_digest": row.digest,
        "interaction_id": row.interaction_id,
        "slate_id": row.slate.slate_id,
        "item_key": row.item_key,
        "kind": row.kind,
        "micros": row.micros,
        "received_at": microseconds(now),
    }

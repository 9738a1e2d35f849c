"""What time does to the log of slates: places without a reward get the default one, and old slates leave.

Both go by small steps, a transaction each, so that nobody waits for them; workers that do it at once share the work.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import arms, tables
from app.storage.batches import among
from app.storage.records import ArmCounts, microseconds

_SLATES = tables.slates
_REWARDS = tables.rewards
_DUE = (
    select(_SLATES.c.slate_id, _SLATES.c.domain_key, _SLATES.c.policy, _SLATES.c["items"])
    .where(_SLATES.c.settle_at.is_not(None), _SLATES.c.settle_at <= bindparam("now"))
    .order_by(_SLATES.c.settle_at)
    .limit(bindparam("size"))
    .with_for_update(skip_locked=True)
)
_REWARDED = select(_REWARDS.c.slate_id, _REWARDS.c.item_key).where(among(_REWARDS.c.slate_id, "slate_ids")).distinct()
_SETTLE = (
    update(_SLATES)
    .where(among(_SLATES.c.slate_id, "slate_ids"))
    .values(settle_at=None, settled_at=bindparam("now"), default_micros=bindparam("micros"))
)
_OLD = (
    select(_SLATES.c.slate_id)
    .where(_SLATES.c.created_at < bindparam("before"))
    .order_by(_SLATES.c.created_at)
    .limit(bindparam("size"))
    .with_for_update(skip_locked=True)
)
_FORGET = delete(_SLATES).where(among(_SLATES.c.slate_id, "slate_ids"))


async def settle(connection: AsyncConnection, defaults: Mapping[int, int], now: float, limit: int) -> int:
    """Settle slates whose time has come: places without a reward count as their domain's default from now on.

    `defaults` has it in millionths by domain key; 0 where it has not. How many slates were settled, at most `limit`.
    """
    due = (await connection.execute(_DUE, {"now": microseconds(now), "size": limit})).all()
    if not due:
        return 0
    slate_ids = [row.slate_id for row in due]
    rewarded = {(row.slate_id, row.item_key) for row in await connection.execute(_REWARDED, {"slate_ids": slate_ids})}
    changes: dict[arms.Key, ArmCounts] = {}
    by_default: dict[int, list[str]] = {}
    for row in due:
        micros = defaults.get(row.domain_key, 0)
        by_default.setdefault(micros, []).append(row.slate_id)
        for item_key, *_ in row.items:
            if (row.slate_id, item_key) not in rewarded:
                key = (row.domain_key, row.policy["policy"], item_key)
                changes[key] = changes.get(key, ArmCounts()) + ArmCounts(0, 1, micros)
    for micros, settled in by_default.items():
        await connection.execute(_SETTLE, {"slate_ids": settled, "now": microseconds(now), "micros": micros})
    await arms.count(connection, changes)
    return len(due)


async def prune(connection: AsyncConnection, before: float, limit: int) -> int:
    """Forget slates from before a time, with their rewards; what they say of arms goes to the base. How many."""
    old = await connection.execute(_OLD, {"before": microseconds(before), "size": limit})
    slate_ids = [row.slate_id for row in old]
    if slate_ids:
        await forget(connection, slate_ids)
    return len(slate_ids)


async def forget(connection: AsyncConnection, slate_ids: Sequence[str]) -> None:
    """Forget slates, which must be locked, with their rewards; what they say of arms goes to the base."""
    await arms.fold_slates(connection, slate_ids)
    await connection.execute(_FORGET, {"slate_ids": list(slate_ids)})

"""Rewards: what came of shown items, and the arms that count them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import Problem, invalid
from app.services import once
from app.services.exploration import micros
from app.services.installation import Installation
from app.services.once import Done, Work
from app.storage import arms, rewards
from app.storage.errors import EventConflict, NotShown, UnknownSlate
from app.storage.records import Added, Arm, NamedWrite, NewReward


@dataclass(frozen=True, slots=True)
class Posted:
    """A reward as it was posted."""

    slate_id: str
    item_id: str
    value: float
    event_id: str | None


async def reward(installation: Installation, posted: Sequence[Posted], write: NamedWrite | None = None) -> Done[Added]:
    """Store a batch, whole or not at all; committed, and counted in the arms, when this returns.

    Raises Problem: unknown-slate, validation-error, event-id-conflict, each of which names its rows, and what
    `once.transact` raises.
    """

    async def prepare() -> Work[Added]:
        batch = [NewReward(one.slate_id, one.item_id, micros(one.value), one.event_id) for one in posted]
        now = time.time()
        return lambda connection: rewards.add(connection, batch, now)

    try:
        return await once.transact(installation, write, prepare, Added)
    except UnknownSlate as unknown:
        pointers = [f"/rewards/{row}/slate_id" for row in unknown.rows[:20]]
        raise Problem("unknown-slate", "Nothing of the batch was stored.", pointers=pointers) from None
    except NotShown as absent:
        errors = [
            {"pointer": f"/rewards/{row}/item_id", "reason": "is no item of that slate"} for row in absent.rows[:20]
        ]
        raise Problem("validation-error", errors=errors) from None
    except EventConflict as conflict:
        pointers = [f"/rewards/{row}/event_id" for row in conflict.rows[:20]]
        raise Problem("event-id-conflict", "Nothing of the batch was stored.", pointers=pointers) from None


async def list_arms(
    installation: Installation, domain: str, limit: int, cursor: str | None
) -> tuple[list[Arm], str | None]:
    """(a page of a domain's arms, the cursor of the next one). Raises Problem (validation-error)."""
    await installation.fresh()
    stored = installation.domains.get(domain)
    if stored is None:
        raise invalid("?domain", "no domain has that name")
    after = None if cursor is None else _after(cursor)
    async with installation.database.read() as connection:
        found = await arms.page(connection, stored.key, limit + 1, after)
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], None if last is None else f"{last.item_key}-{last.policy}"


def _after(cursor: str) -> tuple[int, str]:
    key, _, policy = cursor.partition("-")
    if not (key.isascii() and key.isdecimal() and len(key) < 19):
        raise invalid("?cursor", "is no cursor of this listing")
    return int(key), policy

"""Writes with an `Idempotency-Key`: done once however often they are sent, and answered the same each time."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from app.errors import Problem
from app.services.installation import Installation
from app.storage import idempotency
from app.storage.database import Connection
from app.storage.errors import KeyReused, WriteInFlight
from app.storage.records import NamedWrite

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Work = Callable[[Connection], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What a write came to."""

    result: T
    replayed: bool = False
    """It had been done before, and nothing was stored now."""


def named(installation: Installation, caller: str, key: str, request: bytes) -> NamedWrite:
    """The name of a write: that which `caller` gave to all that is in `request`."""
    digests = installation.digests
    return NamedWrite(digests("idempotency key", caller, key), digests("idempotent body", request))


async def transact(
    installation: Installation, write: NamedWrite | None, prepare: Callable[[], Awaitable[Work[T]]], result: type[T]
) -> Done[T]:
    """`prepare` a write and do it in a transaction; under a name, unless that was done before.

    `result` is a dataclass of counts: it is kept with the name, and nothing about anybody may be in it. A write that
    raises leaves its name free. Raises Problem: idempotency-in-flight, idempotency-key-reused.
    """
    if write is None:
        return Done(await installation.database.transact(await prepare()))
    under_way = installation.writes_under_way
    if write.name in under_way:
        raise Problem("idempotency-in-flight", "Send it again in a moment for the answer to the first one.")
    under_way.add(write.name)
    try:
        # Before anything is checked: what was accepted once may be refused by now, and was done nevertheless.
        async with installation.database.read() as connection:
            known = await idempotency.result_of(connection, write)
        if known is not None:
            return Done(result(**known), replayed=True)
        return await installation.database.transact(_once(write, await prepare(), result))
    except WriteInFlight:
        raise Problem("idempotency-in-flight", "Send it again in a moment for the answer to the first one.") from None
    except KeyReused:
        raise Problem("idempotency-key-reused", "Nothing was stored.") from None
    finally:
        under_way.discard(write.name)


def _once(write: NamedWrite, work: Work[T], result: type[T]) -> Callable[[Connection], Awaitable[Done[T]]]:
    async def whole(connection: Connection) -> Done[T]:
        known = await idempotency.begin(connection, write)
        if known is not None:
            return Done(result(**known), replayed=True)
        made = await work(connection)
        await idempotency.keep(connection, write, asdict(made), time.time())
        return Done(made)

    return whole

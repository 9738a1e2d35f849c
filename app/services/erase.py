"""Erase a user: every trace, in tables, logs and caches; a crash midway does not leave them half erased."""

import time

from app.errors import Problem
from app.services.installation import Installation
from app.storage import erasures
from app.storage.database import Connection
from app.storage.errors import UserErasing
from app.storage.records import Erasure

SWEEP_AFTER_SECONDS = 10.0
"""By then every worker has heard of an erasure, and requests that began before it have ended."""


async def erase(installation: Installation, user_id: str) -> None:
    """Erase a user. When this returns nothing of them is left in the database, nor in a cache that could be reached.

    Other workers let go of what they hold within seconds. Raises Problem: not-found, user-erasing.
    """
    now = time.time()
    try:
        erasure = await installation.database.transact(
            lambda connection: erasures.start(connection, user_id, installation.digests, now)
        )
    except UserErasing:
        raise Problem("user-erasing") from None
    if erasure is None:
        raise Problem("not-found", "No user has that id.")
    await _complete(installation, erasure)


async def go_on(installation: Installation, now: float) -> None:
    """Go on with erasures that a crash has interrupted, and finish those of which everybody has heard.

    A request may have put something into a shared cache after it was swept: so it is swept again before the end.
    """
    async with installation.database.read() as connection:
        unfinished = await erasures.unfinished(connection)
    for erasure in unfinished:
        if erasure.erased_at is None:
            await _complete(installation, erasure)
        elif (
            erasure.erased_at <= now - SWEEP_AFTER_SECONDS
            and await installation.cache.forget(erasure.user_key)
            and await installation.database.scrub()
        ):
            await _finish(installation, erasure, now)


async def _complete(installation: Installation, erasure: Erasure) -> None:
    installation.cache.retire([erasure.user_key])

    async def work(connection: Connection) -> bool:
        return await erasures.step(connection, erasure.user_key, installation.digests, time.time())

    while not await installation.database.transact(work):
        pass
    await installation.cache.forget(erasure.user_key)


async def _finish(installation: Installation, erasure: Erasure, now: float) -> None:
    await installation.database.transact(lambda connection: erasures.finish(connection, erasure, now))

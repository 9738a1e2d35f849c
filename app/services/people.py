"""Users: what is stored of them."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from app.errors import Problem, invalid
from app.services import once
from app.services.installation import Installation
from app.services.once import Done, Work
from app.storage import evaluations, personal, users
from app.storage.database import Connection
from app.storage.errors import UserErasing
from app.storage.evaluations import Judged
from app.storage.records import (
    Event,
    ExportedInteraction,
    ExportedReward,
    Merged,
    NamedWrite,
    StoredUser,
    Written,
    microseconds,
)

EXPORT_PAGE = 500
"""Rows of an export that are in memory at a time."""


async def put(
    installation: Installation, people: Mapping[str, Mapping[str, Any]], write: NamedWrite | None = None
) -> Done[Written]:
    """Put users, id → attributes; attributes replace those there were.

    Raises Problem (user-erasing), and what `once.transact` raises.
    """

    async def prepare() -> Work[Written]:
        return lambda connection: users.put_many(connection, people)

    try:
        return await once.transact(installation, write, prepare, Written)
    except UserErasing as erasing:
        rows = [row for row, user_id in enumerate(people) if user_id in erasing.user_ids]
        # A single user is named by the address, and there is nothing in the body to point at.
        pointers = {"pointers": [f"/users/{row}/user_id" for row in rows[:20]]} if len(people) > 1 else {}
        raise Problem("user-erasing", "Nothing was stored.", **pointers) from None


async def get(installation: Installation, user_id: str) -> tuple[StoredUser, Sequence[Event]]:
    """A user with their newest interactions. Raises Problem (not-found)."""
    async with installation.database.read() as connection:
        user = await _stored(connection, user_id)
        return user, await users.history(connection, user.key, installation.settings.max_history)


async def merge(
    installation: Installation, user_id: str, from_id: str, write: NamedWrite | None = None
) -> Done[Merged]:
    """Make all that is known of `from_id` known of `user_id`, in one transaction; `from_id` is gone then.

    Raises Problem: validation-error, not-found, user-erasing, and what `once.transact` raises.
    """
    if user_id == from_id:
        raise invalid("/from", "must be another user")

    async def prepare() -> Work[Merged]:
        return work

    async def work(connection: Connection) -> Merged:
        merged = await personal.merge(connection, user_id, from_id, time.time())
        if merged is None:
            raise Problem("not-found", "No user has either id.")
        return merged

    try:
        return await once.transact(installation, write, prepare, Merged)
    except UserErasing:
        raise Problem("user-erasing", "Nothing was changed.") from None


async def known(installation: Installation, user_id: str) -> StoredUser:
    """A user. Raises Problem (not-found)."""
    async with installation.database.read() as connection:
        return await _stored(connection, user_id)


async def events(installation: Installation, user: StoredUser) -> AsyncIterator[list[ExportedInteraction]]:
    """All of a user's events, a page at a time, oldest first."""
    place = personal.START
    while True:
        async with installation.database.read() as connection:
            page, place = await personal.interactions(connection, user.key, EXPORT_PAGE, place)
        if page:
            yield page
        if len(page) < EXPORT_PAGE:
            return


async def shown(
    installation: Installation, user: StoredUser
) -> AsyncIterator[list[tuple[Judged, list[ExportedReward]]]]:
    """All of a user's slates, a page at a time, newest first, each with its rewards."""
    before = evaluations.START
    while True:
        async with installation.database.read() as connection:
            page = await evaluations.of_user(connection, user.key, EXPORT_PAGE, before)
            given = await personal.rewards(connection, [judged.slate.slate_id for judged in page])
        of_slate: dict[str, list[ExportedReward]] = {}
        for reward in given:
            of_slate.setdefault(reward.slate_id, []).append(reward)
        if not page:
            return
        yield [(judged, of_slate.get(judged.slate.slate_id, [])) for judged in page]
        before = (microseconds(page[-1].slate.created_at), page[-1].slate.slate_id)


async def slates(
    installation: Installation, user_id: str, limit: int, cursor: str | None
) -> tuple[list[Judged], str | None]:
    """(a page of what a user was shown and what came of it, newest first; the cursor of the next page).

    Raises Problem: not-found, validation-error.
    """
    before = evaluations.START if cursor is None else _place(cursor)
    async with installation.database.read() as connection:
        user = await _stored(connection, user_id)
        found = await evaluations.of_user(connection, user.key, limit + 1, before)
    last = found[limit - 1].slate if len(found) > limit else None
    return found[:limit], None if last is None else f"{microseconds(last.created_at)}_{last.slate_id}"


def _place(cursor: str) -> tuple[int, str]:
    moment, _, slate_id = cursor.partition("_")
    if not (moment.isascii() and moment.isdecimal() and len(moment) < 19):
        raise invalid("?cursor", "is no cursor of this listing")
    return int(moment), slate_id


async def _stored(connection: Connection, user_id: str) -> StoredUser:
    user = await users.get(connection, user_id)
    if user is None:
        raise Problem("not-found", "No user has that id.")
    return user

"""Users: what is stored of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import Problem, invalid
from app.services import once
from app.services.installation import Installation
from app.services.once import Done, Work
from app.storage import evaluations, users
from app.storage.database import Connection
from app.storage.errors import UserErasing
from app.storage.evaluations import Judged
from app.storage.records import Event, NamedWrite, StoredUser, Written, microseconds


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
    time, _, slate_id = cursor.partition("_")
    if not (time.isascii() and time.isdecimal() and len(time) < 19):
        raise invalid("?cursor", "is no cursor of this listing")
    return int(time), slate_id


async def _stored(connection: Connection, user_id: str) -> StoredUser:
    user = await users.get(connection, user_id)
    if user is None:
        raise Problem("not-found", "No user has that id.")
    return user

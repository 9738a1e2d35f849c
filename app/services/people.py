"""Users: what is stored of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import Problem
from app.services.installation import Installation
from app.storage import users
from app.storage.database import Connection
from app.storage.records import Event, StoredUser, Written


async def put(installation: Installation, people: Mapping[str, Mapping[str, Any]]) -> Written:
    """Put users, id → attributes; attributes replace those there were."""

    async def work(connection: Connection) -> Written:
        return await users.put_many(connection, people)

    return await installation.database.transact(work)


async def get(installation: Installation, user_id: str) -> tuple[StoredUser, Sequence[Event]]:
    """A user with their newest interactions. Raises Problem (not-found)."""
    async with installation.database.read() as connection:
        user = await users.get(connection, user_id)
        if user is None:
            raise Problem("not-found", "No user has that id.")
        return user, await users.history(connection, user.key, installation.settings.max_history)


async def erase(installation: Installation, user_id: str) -> None:
    """Delete a user with all interactions and slates. Raises Problem (not-found)."""

    async def work(connection: Connection) -> bool:
        return await users.delete(connection, user_id)

    if not await installation.database.transact(work):
        raise Problem("not-found", "No user has that id.")

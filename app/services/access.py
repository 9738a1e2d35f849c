"""Who calls: the keys that there are, as every worker knows them, and what makes and ends them."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import structlog

from app.security import BOOTSTRAP, ApiKey, Caller, Scope, digest_of, is_from_a_file, is_key, key_id_of, new_key
from app.services import tokens
from app.settings import Settings
from app.storage import audit, keys, revisions
from app.storage.database import Connection, Database
from app.storage.records import Act

log = structlog.get_logger()

NOBODYS_DIGEST = bytes(32)
"""Compared with where there is no key of an id, so that this takes as long."""


class UnusableKeyFile(ValueError):
    """The file of the first key cannot be read, or holds something that is no key."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of an installation at a revision. Immutable: a newer one takes its place."""

    revision: int = -1
    keys: Mapping[str, ApiKey] = field(default_factory=dict)
    """Every key that was ever made, by its id."""
    token_secrets: Sequence[bytes] = ()

    @classmethod
    async def read(cls, database: Database) -> Self:
        """The keys as they are now."""
        async with database.read(snapshot=True) as connection:
            seen = await revisions.read(connection)
            found = {key.key_id: key for key in await keys.all(connection)}
            return cls(seen.keys, found, await keys.token_secrets(connection))

    def caller(self, given: str, now: float) -> Caller | None:
        """Whom a key or a token stands for at that time; None for what opens nothing, whatever the reason."""
        return self._user(given, now) if given.count(".") == 2 else self._owner(given, now)

    def _user(self, token: str, now: float) -> Caller | None:
        claims = tokens.read(token, self.token_secrets)
        key = None if claims is None else self.keys.get(claims.key_id)
        if claims is None or key is None or not key.holds(now):
            return None
        return Caller(key.key_id, frozenset(), claims.user_id)

    def _owner(self, key: str, now: float) -> Caller | None:
        key_id = key_id_of(key)
        if key_id is None:
            return None
        found = self.keys.get(key_id)
        same = is_key(key, NOBODYS_DIGEST if found is None else found.digest)
        if found is None or not same or not found.holds(now):
            return None
        return Caller(key_id, found.scopes, rate_limit=found.rate_limit)


async def create(
    database: Database,
    name: str,
    scopes: Iterable[Scope],
    expires_at: float | None = None,
    rate_limit: str | None = None,
) -> str:
    """Make a key, and put that on record. This is the only time that anybody sees it."""
    key_id, key = new_key()
    now = time.time()
    made = ApiKey(key_id, name, digest_of(key), frozenset(scopes), now, expires_at, rate_limit=rate_limit)

    async def work(connection: Connection) -> None:
        await keys.add(connection, made)
        await audit.add(connection, Act(audit.COMMAND, f"keys create {key_id}"), now, audit.DONE)

    await database.transact(work)
    return key


async def revoke(database: Database, key_id: str) -> bool:
    """End a key: no worker takes it from its next request on. Whether there was one to end."""

    now = time.time()

    async def work(connection: Connection) -> bool:
        revoked = await keys.revoke(connection, key_id, now)
        if revoked:
            await audit.add(connection, Act(audit.COMMAND, f"keys revoke {key_id}"), now, audit.DONE)
        return revoked

    return await database.transact(work)


async def bootstrap(database: Database, file: Path) -> None:
    """Store the key of a file, with all scopes, under the id `bootstrap`. One that was revoked stays so until the file
    holds another. Raises UnusableKeyFile."""
    made = ApiKey(BOOTSTRAP, str(file), digest_of(key_of(file)), frozenset(Scope), time.time())

    async def work(connection: Connection) -> bool:
        renewed = await keys.renew(connection, made)
        if renewed:
            await audit.add(connection, Act(audit.COMMAND, f"keys create {BOOTSTRAP}"), made.created_at, audit.DONE)
        return renewed

    async with database.read() as connection:
        found = await keys.get(connection, BOOTSTRAP)
    if (found is None or found.digest != made.digest) and await database.transact(work):
        log.info("bootstrap_key_stored", file=str(file))
    elif found is not None and found.revoked_at is not None:
        log.warning("bootstrap_key_is_revoked", file=str(file))


def key_of(file: Path) -> str:
    """The key in a file. Raises UnusableKeyFile."""
    try:
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableKeyFile(f"the key file {file} cannot be read") from error
    if not is_from_a_file(key):
        raise UnusableKeyFile(
            f"{file} must hold a key of 32 to 200 letters, digits, _ and -, as of openssl rand -hex 32"
        )
    return key


async def may_listen_anywhere(settings: Settings) -> bool:
    """Whether others than this machine may be let near: somebody asks them for keys, the service or a proxy."""
    if settings.access != "auto" or settings.bootstrap_admin_key_file is not None:
        return True
    database = await Database.open(settings.database)
    try:
        await database.upgrade()
        async with database.read() as connection:
            return await keys.count(connection) > 0
    finally:
        await database.close()

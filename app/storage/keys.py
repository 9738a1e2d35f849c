"""API keys: digests of them, what they allow, and until when. Raises the counter `keys`, which every request reads."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.security import ApiKey, Scope
from app.storage import revisions, tables
from app.storage.records import microseconds, seconds

_KEYS = tables.api_keys
_TOKENS = "tokens"
_TOKEN_SECRETS = (
    select(tables.secrets.c.value).where(tables.secrets.c.name.like(f"{_TOKENS} %")).order_by(tables.secrets.c.name)
)
_FORGET_TOKEN_SECRETS = delete(tables.secrets).where(tables.secrets.c.name.like(f"{_TOKENS} %"))
_ALL = select(_KEYS).order_by(_KEYS.c.created_at, _KEYS.c.key_id)
_ONE = select(_KEYS).where(_KEYS.c.key_id == bindparam("wanted"))
_REVOKE = (
    update(_KEYS)
    .where(_KEYS.c.key_id == bindparam("wanted"), _KEYS.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"))
    .returning(_KEYS.c.key_id)
)


async def add(connection: AsyncConnection, key: ApiKey) -> None:
    """Store a key."""
    await lock(connection)
    await connection.execute(insert(_KEYS).values(_row(key)))


async def renew(connection: AsyncConnection, key: ApiKey) -> bool:
    """Store a key under an id that may be taken; the key that was there is one no longer.

    Whether anything changed: nothing does where the same key is there, revoked or not.
    """
    await lock(connection)
    found = await get(connection, key.key_id)
    if found is not None and found.digest == key.digest:
        return False
    if found is None:
        await connection.execute(insert(_KEYS).values(_row(key)))
    else:
        await connection.execute(update(_KEYS).where(_KEYS.c.key_id == key.key_id).values(_row(key)))
    return True


async def revoke(connection: AsyncConnection, key_id: str, now: float) -> bool:
    """Let a key open nothing from now on. Whether there was one that was not revoked."""
    await lock(connection)
    revoked = await connection.execute(_REVOKE, {"wanted": key_id, "now": microseconds(now)})
    return revoked.first() is not None


async def get(connection: AsyncConnection, key_id: str) -> ApiKey | None:
    """The key of that id."""
    row = (await connection.execute(_ONE, {"wanted": key_id})).first()
    return None if row is None else _stored(row)


async def all(connection: AsyncConnection) -> list[ApiKey]:
    """Every key that was ever made, the oldest first."""
    return [_stored(row) for row in await connection.execute(_ALL)]


async def count(connection: AsyncConnection) -> int:
    """How many keys were ever made."""
    return int((await connection.execute(select(func.count()).select_from(_KEYS))).scalar_one())


async def lock(connection: AsyncConnection) -> None:
    """Let nobody else change keys or secrets until this transaction ends, and every worker read them again then."""
    await revisions.advance(connection, "keys")


async def token_secrets(connection: AsyncConnection) -> list[bytes]:
    """What tokens of users are signed with: the present secret, and the one before it where its tokens still hold."""
    return [row.value for row in await connection.execute(_TOKEN_SECRETS)]


async def put_token_secrets(connection: AsyncConnection, wanted: Sequence[bytes]) -> None:
    """Replace the secrets of tokens. The caller holds the `lock`."""
    await connection.execute(_FORGET_TOKEN_SECRETS)
    rows = [{"name": f"{_TOKENS} {place}", "value": secret} for place, secret in enumerate(wanted)]
    await connection.execute(insert(tables.secrets), rows)


def _row(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "digest": key.digest,
        "scopes": sorted(key.scopes),
        "created_at": microseconds(key.created_at),
        "expires_at": None if key.expires_at is None else microseconds(key.expires_at),
        "revoked_at": None if key.revoked_at is None else microseconds(key.revoked_at),
        "rate_limit": key.rate_limit,
    }


def _stored(row: Row[Any]) -> ApiKey:
    return ApiKey(
        row.key_id,
        row.name,
        row.digest,
        frozenset(map(Scope, row.scopes)),
        seconds(row.created_at),
        None if row.expires_at is None else seconds(row.expires_at),
        None if row.revoked_at is None else seconds(row.revoked_at),
        row.rate_limit,
    )

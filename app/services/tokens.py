"""Tokens of users: what a browser is given so that it may act for one user, and for a short time.

A token is a JSON Web Token (RFC 7519), signed with HMAC-SHA-256 under a secret of the installation. It names the user
and the key that it was made with, and ends with that key or earlier.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from app.storage import audit, keys
from app.storage.database import Connection, Database
from app.storage.records import Act

ALGORITHM = "HS256"
AUDIENCE = "warmstart"
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says."""

    user_id: str
    key_id: str
    """Of the key that it was made with."""


def sign(secret: bytes, user_id: str, key_id: str, expires_at: int) -> str:
    """A token for a user until then."""
    claims = {"sub": user_id, "key": key_id, "exp": expires_at, "aud": AUDIENCE}
    return jwt.encode(claims, secret, ALGORITHM)


def read(token: str, accepted: Sequence[bytes]) -> Claims | None:
    """What a token says, if one of the secrets signed it and its time is not over."""
    for secret in accepted:
        try:
            claims: dict[str, Any] = jwt.decode(
                token, secret, [ALGORITHM], audience=AUDIENCE, options={"require": ["sub", "exp", "aud"]}
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.InvalidTokenError:
            return None
        return Claims(claims["sub"], str(claims.get("key", "")))
    return None


async def secret_of(database: Database) -> bytes:
    """The secret that tokens are signed with, made where there is none yet."""

    async def work(connection: Connection) -> bytes:
        await keys.lock(connection)
        found = await keys.token_secrets(connection)
        if found:
            return found[0]
        made = secrets.token_bytes(SECRET_BYTES)
        await keys.put_token_secrets(connection, [made])
        return made

    return await database.transact(work)


async def rotate(database: Database, *, at_once: bool) -> None:
    """Sign with a new secret from now on. Tokens of the one before hold until their time is over, or end `at_once`."""

    async def work(connection: Connection) -> None:
        await keys.lock(connection)
        found = await keys.token_secrets(connection)
        made = secrets.token_bytes(SECRET_BYTES)
        await keys.put_token_secrets(connection, [made] if at_once else [made, *found[:1]])
        await audit.add(connection, Act(audit.COMMAND, "keys rotate"), time.time(), audit.DONE)

    await database.transact(work)


def expiry(seconds: int) -> int:
    """When a token ends that is made now; Unix seconds, whole ones as tokens have them."""
    return int(time.time()) + seconds

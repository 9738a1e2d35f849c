"""Keyed digests: they tell that something came before, and nobody without the installation's secret what it was."""

import hashlib

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables

_SECRET = select(tables.secrets.c.value).where(tables.secrets.c.name == "digests")


class Digests:
    """BLAKE2b in its keyed mode, a MAC (RFC 7693, 2.9), under the installation's secret.

    >>> digests = Digests(bytes(32))
    >>> digests("event", "a", "bc") == digests("event", "ab", "c")
    False
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __call__(self, purpose: str, *parts: str | bytes) -> str:
        """32 hexadecimal digits; the same parts under another purpose (16 bytes at most) give others."""
        made = hashlib.blake2b(digest_size=16, key=self._secret, person=purpose.encode())
        for part in parts:
            content = part.encode() if isinstance(part, str) else part
            made.update(len(content).to_bytes(8) + content)
        return made.hexdigest()


async def of_installation(connection: AsyncConnection) -> Digests:
    """Digests under this installation's secret."""
    return Digests((await connection.execute(_SECRET)).scalar_one())

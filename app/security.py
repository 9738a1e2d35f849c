"""API keys: what they look like, what is kept of them, and whom a request is made for."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a key is for."""

    READ = "read"
    """To ask."""
    INGEST = "ingest"
    """To bring data in, and take it out again."""
    ADMIN = "admin"
    """To run the service, and all that the others are for."""


BOOTSTRAP = "bootstrap"
"""Id of the key that comes from a file."""

PREFIX = "wsk_"
"""Begins every key that is made here, so that scanners find those that were published by mistake."""

_MADE_HERE = re.compile(r"wsk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_FROM_A_FILE = re.compile(r"[A-Za-z0-9_-]{32,200}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: never the key itself."""

    key_id: str
    name: str
    digest: bytes
    """`digest_of` the key."""
    scopes: frozenset[Scope]
    created_at: float
    """Unix seconds, as the other times."""
    expires_at: float | None = None
    revoked_at: float | None = None
    rate_limit: str | None = None
    """Such as `600/minute`; None: as the settings say."""

    def holds(self, now: float) -> bool:
        """Whether it opens anything at that time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request is made for."""

    key_id: str | None
    """None where nobody is asked for a key."""
    scopes: frozenset[Scope]
    """Of a user's token: none."""
    user_id: str | None = None
    """The one user that a token is for; None for keys."""
    rate_limit: str | None = None
    """Where the key has one of its own."""

    @property
    def name(self) -> str:
        """What tells this caller from all others; empty where nobody is asked for a key."""
        return (self.key_id or "") if self.user_id is None else f"user {self.user_id}"

    def may(self, scope: Scope) -> bool:
        """Whether the caller has the scope; `admin` has them all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


ANYBODY = Caller(None, frozenset(Scope))
"""Whoever calls a service that asks for no key."""


def new_key() -> tuple[str, str]:
    """(id, key): 256 random bits behind an id that may be told to anybody."""
    key_id = secrets.token_hex(8)
    return key_id, f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"


def key_id_of(key: str) -> str | None:
    """The id under which a key is kept, whether or not there is such a key; None for what can be no key.

    >>> key_id, key = new_key()
    >>> key_id_of(key) == key_id, key_id_of("a" * 64), key_id_of("short")
    (True, 'bootstrap', None)
    """
    made_here = _MADE_HERE.fullmatch(key)
    if made_here:
        return made_here[1]
    return BOOTSTRAP if is_from_a_file(key) else None


def is_from_a_file(text: str) -> bool:
    """Whether a file may give this as a key: 32 to 200 letters, digits, `_` and `-`."""
    return _FROM_A_FILE.fullmatch(text) is not None and not text.startswith(PREFIX)


def digest_of(key: str) -> bytes:
    """What is stored of a key.

    SHA-256 without salt and without stretching: those slow down the guessing of passwords, and 256 random bits cannot
    be guessed. It takes a microsecond, so that it can be made for every request.
    """
    return hashlib.sha256(key.encode()).digest()


def is_key(key: str, digest: bytes) -> bool:
    """Whether a digest was made of that key; takes as long whatever the answer."""
    return hmac.compare_digest(digest_of(key), digest)

"""Drivers' errors → `StorageUnavailable`, where they mean that the database cannot answer now.

Errors that mean a mistake of ours (a constraint, a syntax error) pass through as they are.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.storage.errors import StorageUnavailable

SQLITE_REASONS = {
    sqlite3.SQLITE_BUSY: "database locked",
    sqlite3.SQLITE_LOCKED: "database locked",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_READONLY: "database is read-only",
    sqlite3.SQLITE_IOERR: "disk error",
    sqlite3.SQLITE_CORRUPT: "database file damaged",
    sqlite3.SQLITE_FULL: "disk full",
    sqlite3.SQLITE_CANTOPEN: "database file cannot be opened",
    sqlite3.SQLITE_PROTOCOL: "database locked",
    sqlite3.SQLITE_NOTADB: "not a database file",
}

POSTGRES_REASONS = {
    "08": "connection lost",
    "25": "transaction ended by the server",
    "28": "login refused",
    "40": "transaction in the way of another",
    "53": "out of disk, memory or connections",
    "55": "locked",
    "57": "stopped by the server",
    "58": "disk error",
    "XX": "database damaged",
}
"""By class, the first two characters of the SQLSTATE (PostgreSQL manual, appendix A)."""

REPEATABLE_SQLSTATES = {"40001", "40P01"}
"""Serialization failure and deadlock: the server has rolled back and asks for another try."""


@asynccontextmanager
async def translated(*, committing: bool = False) -> AsyncIterator[None]:
    """Raise StorageUnavailable in place of drivers' errors that mean it.

    A connection lost while `committing` leaves open whether the commit was done, so that is never repeatable.
    """
    try:
        yield
    except DBAPIError as failure:
        reason = _reason(failure)
        if reason is None:
            raise
        lost = failure.connection_invalidated and not committing
        repeatable = lost or _sqlstate(failure) in REPEATABLE_SQLSTATES
        raise StorageUnavailable(reason, repeatable=repeatable) from failure
    except PoolTimeoutError as failure:
        raise StorageUnavailable("all connections busy") from failure
    except sqlite3.Error as failure:
        raise StorageUnavailable(_sqlite_reason(failure) or "database error") from failure
    except TimeoutError as failure:
        raise StorageUnavailable("no answer in time") from failure
    except ConnectionError as failure:  # asyncpg lets those of the socket through as they are
        raise StorageUnavailable("connection lost", repeatable=not committing) from failure


async def connected(engine: AsyncEngine) -> AsyncConnection:
    """A connection of the engine. Raises StorageUnavailable where there is nobody at the address."""
    try:
        return await engine.connect()
    except OSError as failure:
        raise StorageUnavailable("unreachable") from failure


def _reason(failure: DBAPIError) -> str | None:
    if isinstance(failure.orig, sqlite3.Error):
        return _sqlite_reason(failure.orig)
    if failure.connection_invalidated:
        return "connection lost"
    return POSTGRES_REASONS.get((_sqlstate(failure) or "")[:2])


def _sqlite_reason(failure: sqlite3.Error) -> str | None:
    code = getattr(failure, "sqlite_errorcode", None)
    return None if code is None else SQLITE_REASONS.get(code & 0xFF)  # the rest of the bits are details


def _sqlstate(failure: DBAPIError) -> str | None:
    return getattr(failure.orig, "sqlstate", None)

"""What one process at a time may do, of all on a database. A claim ends with its holder, however that ends."""

import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.storage.failures import connected, translated

_TRY = text("SELECT pg_try_advisory_lock(hashtext('warmstart claims'), hashtext(:name))")
_RELEASE = text("SELECT pg_advisory_unlock(hashtext('warmstart claims'), hashtext(:name))")


@asynccontextmanager
async def on_server(engine: AsyncEngine, name: str) -> AsyncIterator[bool]:
    """Whether nobody else has the claim; for as long as the block lasts it is ours then.

    It belongs to a connection of its own, which `engine` must not pool, and is lost with it where the server restarts.
    """
    async with translated():
        connection = await connected(engine)
        try:
            ours = bool((await connection.execute(_TRY, {"name": name})).scalar_one())
        except BaseException:
            await connection.close()
            raise
    try:
        yield ours
    finally:
        with suppress(Exception):  # the server lets go of what a lost connection held
            if ours:
                await connection.execute(_RELEASE, {"name": name})
            await connection.close()


@contextmanager
def beside_file(file: str, name: str) -> Iterator[bool]:
    """The same for a SQLite file: a lock on a file beside it, which goes when the block ends."""
    path = Path(f"{file}-claim-{hashlib.sha256(name.encode()).hexdigest()[:16]}")
    descriptor = _locked(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    """A descriptor of the file at the path, locked; None where another has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.close(descriptor)  # its last holder has deleted it meanwhile

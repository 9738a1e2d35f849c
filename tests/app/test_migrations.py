"""Migrations: from nothing to the tables of this version, once, however many workers start."""

import asyncio
import subprocess
import sys

from sqlalchemy import text
from typer.testing import CliRunner

from app.commands.db import commands
from app.storage import revisions
from app.storage.database import Database
from app.storage.records import Revisions

WORKER = """
import asyncio, sys
from app.storage.database import Database

async def start():
    database = await Database.open(sys.argv[1], lock_timeout=60)
    await database.upgrade()
    assert await database.differences() == []
    await database.close()

asyncio.run(start())
"""


async def test_migrations_make_exactly_the_tables_of_this_version(empty_database_url: str) -> None:
    database = await Database.open(empty_database_url)
    [difference] = await database.differences()
    assert difference.startswith("at revision none")
    await database.upgrade()
    assert await database.differences() == []
    async with database.read() as connection:
        assert await revisions.read(connection) == Revisions(catalogue=0, deployments=0)
    await database.close()


async def test_upgrading_again_changes_nothing(database: Database) -> None:
    async with database.write() as connection:
        await revisions.advance(connection, "catalogue")
    await database.upgrade()
    async with database.read() as connection:
        assert (await revisions.read(connection)).catalogue == 1


async def test_a_table_changed_by_hand_is_told_of(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(text("DROP INDEX ix_items_revision"))
        await connection.execute(text("ALTER TABLE users ADD COLUMN shoe_size INTEGER"))
    differences = await database.differences()
    assert len(differences) == 2
    assert any("ix_items_revision" in difference for difference in differences)
    assert any("shoe_size" in difference for difference in differences)


async def test_workers_of_one_process_may_upgrade_at_once(empty_database_url: str) -> None:
    workers = [await Database.open(empty_database_url) for _ in range(4)]
    await asyncio.gather(*(worker.upgrade() for worker in workers))
    for worker in workers:
        assert await worker.differences() == []
        await worker.close()


def test_workers_that_start_together_migrate_once(empty_database_url: str) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, empty_database_url], stderr=subprocess.PIPE) for _ in range(4)
    ]
    outcomes = [(worker.communicate(timeout=120)[1], worker.returncode) for worker in workers]
    assert [code for _, code in outcomes] == [0] * 4, outcomes


def test_the_command_upgrades_and_checks(empty_database_url: str) -> None:
    run = CliRunner().invoke
    before = run(commands, ["check", "--database-url", empty_database_url])
    assert (before.exit_code, "at revision none" in before.stdout) == (1, True)
    assert run(commands, ["upgrade", "--database-url", empty_database_url]).exit_code == 0
    after = run(commands, ["check"], env={"WARMSTART_DATABASE_URL": empty_database_url})
    assert (after.exit_code, after.stdout) == (0, "up to date\n")


def test_the_command_says_why_it_cannot() -> None:
    outcome = CliRunner().invoke(commands, ["check", "--database-url", "mysql://me@db/name"])
    assert outcome.exit_code == 2
    assert "sqlite:///" in outcome.stderr

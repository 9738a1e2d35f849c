"""`warmstart export` and `warmstart import`: an installation as a data set folder, and back."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.terminal import facts, fail, progress_bars, show
from app.settings import Settings

if TYPE_CHECKING:
    from app.services.exchange import Moved
    from app.storage.database import Database
    from models.recommender import Progress

app = typer.Typer()


@app.command("export")
def export_command(out: Annotated[Path, typer.Argument(help="Folder to write; must not exist or be empty.")]) -> None:
    """Write the installation's users, items and interactions as a data set folder."""
    from app.services.exchange import export

    moved = run_on_installation("export", lambda database, progress: export(database, out, progress))
    show(facts({"users": moved.users, "items": moved.items, "interactions": moved.interactions}))


@app.command("import")
def import_command(data: Annotated[Path, typer.Argument(help="Data set folder to take in.")]) -> None:
    """Take a data set folder into the installation. Interrupted, it is finished by running it again."""
    from app.services.exchange import import_folder

    moved = run_on_installation("import", lambda database, progress: import_folder(database, data, progress))
    show(
        facts(
            {
                "users": moved.users,
                "items": moved.items,
                "interactions": moved.interactions,
                "already there": moved.already_there,
            }
        )
    )


def run_on_installation(name: str, work: "Callable[[Database, Progress], Awaitable[Moved]]") -> "Moved":
    """Do something with the database that the settings name, showing progress; errors become sentences.

    It is on record under that name from its beginning, with a status once it is done.
    """
    from app.services.exchange import ExchangeError
    from app.storage import audit
    from app.storage.database import Database
    from app.storage.errors import StorageUnavailable, UnsafeDatabase
    from app.storage.records import Act
    from models.datasets.description import DatasetError

    async def run() -> "Moved":
        settings = Settings()
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        database = await Database.open(settings.database)
        try:
            await database.upgrade()
            act = Act(audit.COMMAND, name)
            row = await database.transact(lambda connection: audit.add(connection, act, time.time()))
            with progress_bars() as progress:
                moved = await work(database, progress)
            await database.transact(lambda connection: audit.end(connection, row, audit.DONE, None))
            return moved
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except (ExchangeError, DatasetError, StorageUnavailable, UnsafeDatabase, OSError, ValueError) as error:
        raise fail(str(error)) from error

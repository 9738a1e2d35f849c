"""What commands share that work on the database of an installation."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from app.commands.terminal import fail
from app.settings import Settings

if TYPE_CHECKING:
    from app.storage.database import Database

DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="`postgresql://…` or `sqlite:///path`; WARMSTART_DATABASE_URL or the default file otherwise."),
]
T = TypeVar("T")


def on_database(url: str | None, work: "Callable[[Database], Awaitable[T]]", *, create: bool = False) -> T:
    """What `work` returns, done on the database that the option or the settings name; `create` makes its tables where
    they are missing. Ends the command where the database cannot be worked with."""
    from app.storage.database import Database
    from app.storage.errors import StorageUnavailable, UnsafeDatabase

    settings = Settings()

    async def run() -> T:
        if create and url is None:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        database = await Database.open(url or settings.database, statement_timeout=3600)
        try:
            if create:
                await database.upgrade()
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except (StorageUnavailable, UnsafeDatabase, ValueError) as failure:
        raise fail(str(failure)) from failure

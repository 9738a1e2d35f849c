"""`warmstart arms`: whether the arms are what the log says, and making them again from it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from app.commands.terminal import fail
from app.settings import Settings

if TYPE_CHECKING:
    from app.storage.database import Database

app = typer.Typer(help="Compare the arms with the log of slates, or make them again from it.", no_args_is_help=True)

DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="`postgresql://…` or `sqlite:///path`; WARMSTART_DATABASE_URL or the default file otherwise."),
]
SHOWN = 20
T = TypeVar("T")


@app.command()
def check(database_url: DatabaseUrl = None) -> None:
    """Exit with 1, naming arms, where counts are not those of the log."""
    from app.storage import arms

    async def work(database: "Database") -> list[str]:
        async with database.read(snapshot=True) as connection:
            different = await arms.differences(connection)
        lines = [f"item {key[2]}, {key[1]}: {tuple(is_)}, should be {tuple(should)}" for key, is_, should in different]
        return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]

    lines = _run(database_url, work)
    for line in lines:
        typer.echo(line)
    if lines:
        raise typer.Exit(1)
    typer.echo("arms equal the log")


@app.command()
def rebuild(database_url: DatabaseUrl = None) -> None:
    """Make all counts again from the log and the base. Writers wait meanwhile."""
    from app.storage import arms

    n = _run(database_url, lambda database: database.transact(arms.rebuild))
    typer.echo(f"{n} arms")


def _run(url: str | None, work: "Callable[[Database], Awaitable[T]]") -> T:
    from app.storage.database import Database
    from app.storage.errors import StorageUnavailable, UnsafeDatabase

    async def run() -> T:
        database = await Database.open(url or Settings().database, statement_timeout=3600)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except (StorageUnavailable, UnsafeDatabase, ValueError) as failure:
        raise fail(str(failure)) from failure

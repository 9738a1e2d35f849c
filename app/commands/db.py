"""`warmstart db`: the database's tables."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from app.settings import Settings
from app.storage.database import Database
from app.storage.errors import StorageUnavailable, UnsafeDatabase

commands = typer.Typer(help="Create the database's tables, bring them up to date, or check them.", no_args_is_help=True)

DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="`postgresql://…` or `sqlite:///path`; WARMSTART_DATABASE_URL or the default file otherwise."),
]

T = TypeVar("T")


@commands.command()
def upgrade(database_url: DatabaseUrl = None) -> None:
    """Bring the tables up to date; creates them where there are none. Running it again does nothing."""
    _run(database_url, Database.upgrade)
    typer.echo("up to date")


@commands.command()
def check(database_url: DatabaseUrl = None) -> None:
    """Exit with 1, saying why, where the tables are not those that this version works with."""
    differences = _run(database_url, Database.differences)
    for difference in differences:
        typer.echo(difference)
    if differences:
        raise typer.Exit(1)
    typer.echo("up to date")


def _run(url: str | None, work: Callable[[Database], Awaitable[T]]) -> T:
    async def run() -> T:
        database = await Database.open(url or Settings().database)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except (StorageUnavailable, UnsafeDatabase, ValueError) as failure:
        typer.echo(str(failure), err=True)
        raise typer.Exit(2) from failure

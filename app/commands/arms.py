"""`warmstart arms`: whether the arms are what the log says, and making them again from it."""

import time
from typing import TYPE_CHECKING

import typer

from app.commands.stored import DatabaseUrl, on_database

if TYPE_CHECKING:
    from app.storage.database import Connection, Database

app = typer.Typer(help="Compare the arms with the log of slates, or make them again from it.", no_args_is_help=True)

SHOWN = 20


@app.command()
def check(database_url: DatabaseUrl = None) -> None:
    """Exit with 1, naming arms, where counts are not those of the log."""
    from app.storage import arms

    async def work(database: "Database") -> list[str]:
        async with database.read(snapshot=True) as connection:
            different = await arms.differences(connection)
        lines = [f"item {key[2]}, {key[1]}: {tuple(is_)}, should be {tuple(should)}" for key, is_, should in different]
        return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]

    lines = on_database(database_url, work)
    for line in lines:
        typer.echo(line)
    if lines:
        raise typer.Exit(1)
    typer.echo("arms equal the log")


@app.command()
def rebuild(database_url: DatabaseUrl = None) -> None:
    """Make all counts again from the log and the base. Writers wait meanwhile."""
    from app.storage import arms, audit
    from app.storage.records import Act

    async def work(connection: "Connection") -> int:
        n = await arms.rebuild(connection)
        await audit.add(connection, Act(audit.COMMAND, "arms rebuild"), time.time(), audit.DONE)
        return n

    n = on_database(database_url, lambda database: database.transact(work))
    typer.echo(f"{n} arms")

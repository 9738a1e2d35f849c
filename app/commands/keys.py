"""`warmstart keys`: who may use the service."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.commands.stored import DatabaseUrl, on_database
from app.commands.terminal import fail, show
from app.security import ApiKey, Scope, key_id_of
from app.settings import is_limit

if TYPE_CHECKING:
    from app.storage.database import Database

app = typer.Typer(help="Make, list and revoke the keys that the service asks for.", no_args_is_help=True)

DAY = 86_400.0


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is, for the list.")],
    scope: Annotated[list[Scope], typer.Option(help="What it is for; several times for several.")],
    days: Annotated[float | None, typer.Option(min=0.001, help="Days until it expires; never otherwise.")] = None,
    rate_limit: Annotated[
        str | None, typer.Option(help="Requests that it may send, such as 600/minute; WARMSTART_RATE_LIMIT otherwise.")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key and print it: nobody can see it again. With the first one the service begins to ask for keys."""
    from app.services import access

    try:
        is_limit(rate_limit or "")
    except ValueError as error:
        raise fail(f"{rate_limit} is no limit; one is 600/minute") from error
    expires_at = None if days is None else time.time() + days * DAY

    async def work(database: "Database") -> str:
        return await access.create(database, name, scope, expires_at, rate_limit)

    key = on_database(database_url, work, create=True)
    typer.echo(f"key {key_id_of(key)}, shown this once:", err=True)
    typer.echo(key)


@app.command("list")
def list_command(database_url: DatabaseUrl = None) -> None:
    """List every key that was made: never the key itself."""
    from app.storage import keys

    async def work(database: "Database") -> list[ApiKey]:
        async with database.read() as connection:
            return await keys.all(connection)

    headers = ("id", "name", "scopes", "limit", "made", "expires", "state")
    table = Table(*headers, box=None, pad_edge=False, header_style="bold")
    found = on_database(database_url, work, create=True)
    for key in found:
        scopes = ", ".join(scope for scope in Scope if scope in key.scopes)
        made, expires = _minute(key.created_at), _minute(key.expires_at)
        table.add_row(key.key_id, key.name, scopes, key.rate_limit or "", made, expires, _state(key, time.time()))
    show(table if found else "there are no keys: the service asks for none, and answers this machine only")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id of the list.")],
    database_url: DatabaseUrl = None,
) -> None:
    """End a key: every worker refuses it from its next request on."""
    from app.services import access

    if not on_database(database_url, lambda database: access.revoke(database, key_id)):
        raise fail("no key that is in use has that id.")
    typer.echo("revoked")


@app.command()
def rotate(
    at_once: Annotated[bool, typer.Option(help="End all tokens that are out, now.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Sign the tokens of users with a new secret. Those that are out hold until their time is over."""
    from app.services import tokens

    on_database(database_url, lambda database: tokens.rotate(database, at_once=at_once), create=True)
    typer.echo("rotated")


def _minute(moment: float | None) -> str:
    return "" if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}"


def _state(key: ApiKey, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "in use" if key.holds(now) else "expired"

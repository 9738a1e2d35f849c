"""The `warmstart` command. Each group of commands is a module of `app.commands`, joined here by one line."""

from typing import Annotated

import typer

from app import __version__
from app.commands import (
    arms,
    blend,
    checkpoints,
    datasets,
    db,
    evaluate,
    exchange,
    keys,
    ope,
    openapi,
    serve,
    settings,
    sources,
    train,
)

app = typer.Typer(
    name="warmstart",
    help="Online recommendations for people and items the service has barely met.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
# In the order in which somebody new needs them.
app.add_typer(serve.app)
app.add_typer(datasets.app, name="datasets")
app.add_typer(sources.app)
app.add_typer(train.app)
app.add_typer(blend.app)
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(evaluate.app)
app.add_typer(exchange.app)
app.add_typer(db.commands, name="db")
app.add_typer(keys.app, name="keys")
app.add_typer(arms.app, name="arms")
app.add_typer(ope.app)
app.add_typer(settings.app)
app.add_typer(openapi.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"warmstart {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Online recommendations for people and items the service has barely met."""


def main() -> None:
    """Entry point of the console script."""
    app()

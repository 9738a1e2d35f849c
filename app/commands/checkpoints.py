"""`warmstart checkpoints`: list, show and verify what has been trained."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.commands.terminal import BAD_INPUT, facts, fail, show

app = typer.Typer(help="List, show and verify checkpoints.", no_args_is_help=True)


@app.command("list")
def list_command(folder: Annotated[Path, typer.Argument(help="A folder of checkpoints.")]) -> None:
    """List the checkpoints of a folder, the newest last."""
    from models.checkpoint import CheckpointError, read_card

    cards, unreadable = [], {}
    for path in _folders(folder):
        try:
            cards.append((path.name, *read_card(path)))
        except CheckpointError as error:
            unreadable[path.name] = str(error)
    headers = ("name", "recommender", "domains", "data set", "rmse", "created", "digest")
    table = Table(*headers, box=None, pad_edge=False, header_style="bold")
    for name, card, digest in sorted(cards, key=lambda row: row[1].created):
        rmse = card.metrics.get("rmse")
        table.add_row(
            name,
            card.recommender,
            ", ".join(domain.name for domain in card.schema_.domains),
            card.dataset,
            "" if rmse is None else f"{rmse:.4f}",
            f"{card.created:%Y-%m-%d %H:%M}",
            digest[:12],
        )
    show(table if cards else f"{folder} has no checkpoints")
    for name, reason in unreadable.items():
        typer.echo(f"{name}: {reason}", err=True)


@app.command("show")
def show_command(path: Annotated[Path, typer.Argument(help="A checkpoint.")]) -> None:
    """Print what a checkpoint says of itself."""
    from models.checkpoint import CheckpointError, read_card

    try:
        card, digest = read_card(path)
    except CheckpointError as error:
        raise fail(str(error)) from error
    rows: dict[str, object] = {
        "recommender": card.recommender,
        "digest": digest,
        "domains": ", ".join(f"{d.name} ({d.rating_min:g}-{d.rating_max:g})" for d in card.schema_.domains),
        "data set": card.dataset,
        "fingerprint": card.dataset_fingerprint,
        "created": f"{card.created:%Y-%m-%d %H:%M:%S %Z}",
        "code version": card.code_version,
        "seed": card.seed,
        "epochs": card.epochs,
        "fitted in": f"{card.fit_seconds:.1f} s",
    }
    rows |= {f"set {key}": json.dumps(value) for key, value in card.config.items()}
    rows |= {f"validation {name}": f"{value:.4f}" for name, value in card.metrics.items()}
    show(facts(rows))


@app.command("verify")
def verify_command(path: Annotated[Path, typer.Argument(help="A checkpoint, or a folder of checkpoints.")]) -> None:
    """Check digests and contents, as the service does before it serves a checkpoint."""
    from models.checkpoint import CheckpointError, load

    failed = False
    for checkpoint in [path] if (path / "card.json").exists() else _folders(path):
        try:
            show(f"{checkpoint.name}: good, {load(checkpoint).digest}")
        except CheckpointError as error:
            typer.echo(f"{checkpoint.name}: {error.reason}: {error}", err=True)
            failed = True
    if failed:
        raise typer.Exit(BAD_INPUT)


def _folders(folder: Path) -> list[Path]:
    """The folders directly in `folder`, but hidden ones: those are checkpoints still being written."""
    if not folder.is_dir():
        raise fail(f"{folder} is no folder.")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))

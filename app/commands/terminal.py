"""What the commands share on the terminal: results on stdout, progress and errors on stderr."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

UNFOLDED = 400
"""Columns of output that goes to a file or another program."""
BAD_INPUT = 2
"""Exit code of a command that was asked for something it cannot do."""


def fail(message: str) -> typer.Exit:
    """Say on stderr what is wrong; the caller raises what this returns."""
    typer.echo(f"Error: {message}", err=True)
    return typer.Exit(BAD_INPUT)


def show(*renderables: Any) -> None:
    """Print text and tables to stdout; where that is no terminal, no line is folded."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNFOLDED
    console.print(*renderables, sep="\n", markup=False, soft_wrap=False)


def facts(rows: Mapping[str, object]) -> Table:
    """A table of two columns, name and value."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


@contextmanager
def progress_bars() -> Iterator[Callable[[str, float, Mapping[str, float]], None]]:
    """A `models.recommender.Progress` that draws a bar for each stage, with its latest metrics; nothing is left behind
    where stderr is no terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[metrics]}", markup=False),
        TimeElapsedColumn(),
    )
    stages: dict[str, TaskID] = {}
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        def progress(stage: str, done: float, metrics: Mapping[str, float]) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=1.0, metrics="")
            bars.update(stages[stage], completed=done)
            if metrics:
                text = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
                bars.update(stages[stage], metrics=text)

        yield progress

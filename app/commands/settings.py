"""`warmstart settings`: every setting of the service with its default, as `docs/settings.md` has it."""

from collections.abc import Iterator
from typing import Any, get_args

import typer
from pydantic.fields import FieldInfo

from app.settings import Settings

app = typer.Typer()

INTRODUCTION = """\
# Settings

Every setting is an environment variable. The service, its workers and the commands read them when they start; an option
of a command goes before its variable. This page is what `warmstart settings` prints; a test fails where it differs.

| variable | default | meaning |
|---|---|---|
"""


@app.command("settings")
def settings_command() -> None:
    """Print every setting, its default and its meaning, as Markdown."""
    typer.echo(document(), nl=False)


def document() -> str:
    """The page of the documentation."""
    return INTRODUCTION + "".join(_rows())


def _rows() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        yield f"| `WARMSTART_{name.upper()}` | {_default(field.default)} | {_meaning(field)} |\n"


def _default(value: Any) -> str:
    return "" if value is None else f"`{value}`"


def _meaning(field: FieldInfo) -> str:
    """The setting's docstring, after the values that it may have where those are few."""
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    listed = ", ".join(f"`{choice}`" for choice in choices)
    meaning = " ".join((field.description or "").split())
    return f"{listed}: {meaning[:1].lower()}{meaning[1:]}" if choices else meaning

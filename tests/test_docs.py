"""Documentation that cannot fall behind: settings, routes, problems, recommenders, commands, links, README snippets."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer.main
from fastapi import FastAPI
from prometheus_client import REGISTRY
from typer.core import TyperGroup

from app import cli
from app.commands import settings as settings_command
from app.errors import PROBLEMS
from app.main import create_app
from app.settings import Settings
from models.datasets.description import Description
from models.registry import RECOMMENDERS
from tests.app.conftest import running

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def snippets(language: str, pages: list[Path] = PAGES) -> Iterator[tuple[Path, str]]:
    """Fenced blocks of a language, with the pages that they stand on."""
    for path in pages:
        for found, content in FENCE.findall(path.read_text(encoding="utf-8")):
            if found == language:
                yield path, content


def commands() -> Iterator[tuple[Path, list[str]]]:
    """The words of every command line in a `sh` block; one that goes on within quotes is one command."""
    for path, block in snippets("sh"):
        lexer = shlex.shlex(block, posix=True, punctuation_chars="\n")
        lexer.whitespace = " \t"
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "\n"]:
            if word.strip("\n"):
                words.append(word)
            elif words:
                yield path, words
                words = []


POSTGRES = {"createdb", "pg_dump", "pg_restore"}
KNOWN = {".venv/bin/python", "cd", "curl", "docker", "export", "kubectl", "openssl", "pip", "python3.11", "source"}
KNOWN |= POSTGRES | {"sqlite3"}
"""What begins a line of a `sh` block, beside `warmstart` and `make`."""


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(Settings())


def test_settings_page_is_what_the_command_prints() -> None:
    assert page("settings.md") == settings_command.document()
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_every_route_is_documented_and_no_other(app: FastAPI) -> None:
    routes = {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}
    documented = set(re.findall(r"^\| `([A-Z]+ /[^`?]*)`", page("http.md"), re.MULTILINE))
    assert documented == routes


def test_every_problem_is_documented_with_its_status() -> None:
    documented = re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", page("problems.md"), re.MULTILINE)
    assert {slug: int(status) for slug, status in documented} == {slug: p.status for slug, p in PROBLEMS.items()}


def test_every_recommender_has_a_card_with_its_role() -> None:
    documented = re.findall(r"^\| `(\w+)` \| (\w+) \|", page("recommenders.md"), re.MULTILINE)
    assert dict(documented) == {name: kind.role for name, kind in RECOMMENDERS.items()}


def test_every_metric_is_documented_and_no_other() -> None:
    """Those that a worker has at /metrics, by the names there."""
    kinds = {"counter": "_total", "info": "_info"}
    families = [family for family in REGISTRY.collect() if family.name.startswith("warmstart_")]
    rows = re.findall(r"^\| (`warmstart_[^|]*)\|", page("operations.md"), re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(warmstart_\w+)`", row)}
    assert documented == {family.name + kinds.get(family.type, "") for family in families}


def test_every_command_is_documented_as_it_says_itself_and_no_other() -> None:
    documented = dict(re.findall(r"^\| `warmstart ([a-z -]+)` \| (.+) \|$", page("commands.md"), re.MULTILINE))
    assert documented == dict(_helps(typer.main.get_command(cli.app), ()))


def _helps(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The words of every command, and the first paragraph of what it says of itself."""
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from _helps(inner, (*path, name))
    else:
        yield " ".join(path), " ".join(command.help.split("\n\n")[0].split())


def test_make_help_lists_every_target() -> None:
    """Each has its sentence."""
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    listed = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"^  make ([a-z-]+) +\w", listed, re.MULTILINE)) == made


def test_every_decision_is_listed() -> None:
    listed = re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", page("decisions/index.md"))
    assert listed == sorted(path.name for path in (DOCS / "decisions").glob("0*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """To files that are there, but for the results, which are made, and to headings that are there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        file, _, heading = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists() or there.name == "RESULTS.md", target
        if heading:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


def test_json_in_the_documentation_is_json() -> None:
    for path, content in snippets("json"):
        assert json.loads(content), path


def test_toml_in_the_documentation_describes_a_dataset() -> None:
    for _, content in snippets("toml"):
        assert Description.model_validate(tomllib.loads(content))


def test_commands_in_the_documentation_exist() -> None:
    """`warmstart` commands with their options; targets of `make`."""
    known = 0
    for path, words in commands():
        if words[0] == "warmstart":
            _parse(words[1:])
        elif words[0] == "make":
            subprocess.run(["make", "--dry-run", words[1]], cwd=ROOT, check=True, capture_output=True)
        else:
            assert words[0] in KNOWN, (path, words)
        known += 1
    assert known > 10


def _parse(arguments: list[str]) -> None:
    """Raise KeyError for a command that there is not, and Typer's UsageError for an option or an argument."""
    command: Any = typer.main.get_command(cli.app)
    while isinstance(command, TyperGroup):
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context(command.name, arguments)


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """Every link and heading that a page leads to is there; every page is in the navigation of mkdocs.yml."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = list(tmp_path.rglob("*.html"))
    assert len(made) == len([*DOCS.rglob("*.md")]) + 1  # and a page for what is not found
    for path in [*made, *tmp_path.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//", text)
        linked = [tag for tag in re.findall(r"<link[^>]*>", text) if re.search(r"href=[\"']?(?:https?:)?//", tag)]
        assert (loaded, linked) == ([], []), path


async def test_the_readme_request_is_answered_as_it_says(tmp_path: Path) -> None:
    """By a service that has the films but nobody's training: the same fields, of the same types."""
    (request,) = [words for path, words in commands() if path.name == "README.md" and words[0] == "curl"]
    (shown,) = [json.loads(content) for path, content in snippets("json") if path.name == "README.md"]
    address, data = request[1], json.loads(request[request.index("--data") + 1])
    assert request[request.index("--header") + 1] == "Content-Type: application/json"
    async with running(Settings(data_dir=tmp_path, device="cpu")) as service:
        await service.put("/v1/domains/movies", {"item_attributes": {"genres": "multi"}})
        films = [*data["support"], *shown["items"]]
        await service.post("/v1/items", {"items": [{"domain": "movies", "item_id": film["item_id"]} for film in films]})
        answer = await service.post(address.removeprefix("http://127.0.0.1:8000"), data)
    assert _shape(answer) == _shape(shown)
    assert len(shown["items"]) == data["k"]


def _shape(value: Any) -> Any:
    """Names and types, of a list those of its first entry; fields that may be null are left out."""
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in value.items() if name not in MAY_BE_NULL}
    if isinstance(value, list):
        return [_shape(value[0])] if value else []
    return type(value).__name__


MAY_BE_NULL = {
    "std",
    "propensity",
    "why",
    "checkpoint",
    "digest",
    "fallback",
    "adaptation",
    "loss_before",
    "loss_after",
}


def test_the_readme_fits_a_screen() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 80


def test_the_picture_is_an_svg_that_says_what_it_shows() -> None:
    root = ElementTree.parse(DOCS / "picture.svg").getroot()
    assert root.tag.endswith("svg")
    assert root.find("{http://www.w3.org/2000/svg}title") is not None

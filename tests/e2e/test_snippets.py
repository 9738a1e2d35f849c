"""What the documentation shows in curl, Python and JavaScript runs as it stands, but for the port."""

import os
import shlex
import shutil
import subprocess
import sys

import httpx
import pytest

from tests.test_docs import ROOT, commands, snippets

ADDRESS = "http://127.0.0.1:8000"
GUIDES = [ROOT / "docs" / "http.md", ROOT / "docs" / "clients.md"]


def pages_with(language: str) -> list[tuple[str, str]]:
    """(page, code) of each block; the quickstart has data, and a test, of its own."""
    return [(path.name, code) for path, code in snippets(language) if path.name != "quickstart.md"]


@pytest.fixture
def here(served_movies: httpx.Client) -> str:
    """Where the service listens that the snippets are for."""
    return str(served_movies.base_url).rstrip("/")


def run(command: list[str], code: str, here: str) -> str:
    """What it prints; it must end well."""
    assert ADDRESS in code
    done = subprocess.run(
        command,
        input=code.replace(ADDRESS, here),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("page", "code"), pages_with("python"))
def test_python(page: str, code: str, here: str) -> None:
    assert run([sys.executable, "-"], code, here).strip()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize(("page", "code"), pages_with("js"))
def test_javascript(page: str, code: str, here: str) -> None:
    assert run(["node", "--input-type=module", "-"], code, here).strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(here: str) -> None:
    """Those of the guide; the operator's reloads name checkpoints that are not here."""
    ran = 0
    for path, words in commands():
        if words[0] == "curl" and path in (*GUIDES, ROOT / "README.md"):
            run(["bash", "-"], f"curl --fail-with-body --silent {shlex.join(words[1:])}", here)
            ran += 1
    assert ran >= 4

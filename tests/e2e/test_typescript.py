"""The TypeScript client: made of the OpenAPI document by its command, type-checked, and used on a service."""

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.test_docs import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None or shutil.which("node") is None, reason="needs node and npm"),
]

WRONG = """
await client.POST("/v1/cold-start/recommendations", { body: { domain: "movies", k: "three" } });
await client.GET("/v1/users/{user_id}", {});
await client.GET("/v1/nowhere", {});
"""


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command makes; it has checked the types of the client and of the example."""
    folder = tmp_path_factory.mktemp("typescript")
    done = run(["make", "client-typescript", f"TYPESCRIPT={folder}"], ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_example_runs(client: Path, served_movies: httpx.Client) -> None:
    """With the address of the service instead of the example's; two lists of three films."""
    compiled = (client / "dist" / "example.js").read_text(encoding="utf-8")
    here = str(served_movies.base_url).rstrip("/")
    (client / "dist" / "here.js").write_text(compiled.replace("http://127.0.0.1:8000", here), encoding="utf-8")
    done = run(["node", "dist/here.js"], client)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("):") == 6
    assert served_movies.get("/v1/users/grace").json()["interactions"]


def test_mistakes_are_found_before_anything_runs(client: Path) -> None:
    """A value of another type, a path without its id, an address that there is not."""
    example = (client / "example.ts").read_text(encoding="utf-8")
    (client / "wrong.ts").write_text(example + WRONG, encoding="utf-8")
    found = run([str(client / "node_modules" / ".bin" / "tsc"), "--noEmit"], client)
    first = example.count("\n") + 2
    lines = {line.partition(",")[0] for line in found.stdout.splitlines() if line.startswith("wrong.ts")}
    assert lines == {f"wrong.ts({first + n}" for n in range(3)}

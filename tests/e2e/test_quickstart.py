"""The quickstart as it is typed: the wheel in a fresh virtual environment, a CSV file of 1,000 ratings, an answer."""

import os
import re
import subprocess
import zipfile
from pathlib import Path

import polars as pl
import pytest

from models.datasets.fetch import FetchError, fetch
from tests.e2e.conftest import DATA
from tests.e2e.service import serving
from tests.test_docs import DOCS, FENCE, ROOT

pytestmark = pytest.mark.slow

PAGE = DOCS / "quickstart.md"
SERVE = "warmstart serve"
INSTALL_SECONDS = 900.0
"""Allowance for machines that do other things; two idle cores need a minute."""


def blocks(*languages: str) -> list[tuple[str, str]]:
    """(language, text) of the page's fenced blocks, in their order."""
    return [(kind, text) for kind, text in FENCE.findall(PAGE.read_text(encoding="utf-8")) if kind in languages]


def a_thousand_ratings(folder: Path) -> None:
    """`ratings.csv` and `films.csv`, with the page's columns: ten ratings each by a hundred people."""
    try:
        full = fetch("movielens-100k", DATA / "movielens-100k")
    except FetchError as error:
        pytest.skip(str(error))
    ratings, films = (pl.read_csv(full / name, infer_schema=False) for name in ("interactions.csv", "items.csv"))
    popular = ratings["item_id"].value_counts(sort=True).sort("count", "item_id", descending=True)["item_id"][:100]
    among = ratings.filter(pl.col("item_id").is_in(popular.to_list()))
    active = sorted(user for user, rated in among["user_id"].value_counts().iter_rows() if rated >= 10)[:100]
    chosen = among.filter(pl.col("user_id").is_in(active)).group_by("user_id", maintain_order=True).head(10)
    assert len(chosen) == 1000
    names = {"user_id": "person", "item_id": "film", "value": "stars", "occurred_at": "when"}
    chosen.select(list(names)).rename(names).write_csv(folder / "ratings.csv")
    kept = films.filter(pl.col("item_id").is_in(popular.to_list()))
    kept.select(pl.col("item_id").alias("film"), "title", "genres", "year").write_csv(folder / "films.csv")
    headers = [text.splitlines()[0] for _, text in blocks("csv")]
    assert headers == [(folder / name).read_text().splitlines()[0] for name in ("ratings.csv", "films.csv")]


def environment(home: Path) -> dict[str, str]:
    """That of somebody at a fresh terminal. Byte code waits for the first import of what is used."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("WARMSTART_", "PYTHON", "VIRTUAL"))
    }
    return kept | {"HOME": str(home), "PIP_NO_COMPILE": "1", "PIP_QUIET": "1", "OMP_NUM_THREADS": "1"}


def typed(script: str, home: Path) -> str:
    """What it prints; it must end well."""
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's first block has installed the wheel."""
    made = tmp_path_factory.mktemp("home")
    install = blocks("sh")[0][1]
    assert install.startswith("make wheel\n")
    typed(install, made)
    return made


def test_the_wheel_has_everything_and_nothing_else(home: Path) -> None:
    """Every file of the three packages that is under version control: pages, recipes, migrations, templates."""
    (wheel,) = (ROOT / "dist").glob("warmstart-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "app", "models", "migrations"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert packed == {name for name in listed if (ROOT / name).exists()}


def test_what_is_installed_fits_together_and_says_its_version(home: Path) -> None:
    there = home / "try-warmstart" / "bin"
    typed(f"{there}/pip check", home)
    said = typed(f"cd /; {there}/warmstart --version", home)
    shown = typed(f"cd /; {there}/pip show --verbose warmstart", home)
    assert said.split()[1] == re.search(r"^Version: (.+)$", shown, re.MULTILINE)[1]  # type: ignore[index]
    assert str(ROOT) not in shown


def test_the_page_as_it_is_typed(home: Path) -> None:
    """Each block in its order, the service in the background; the port is a free one instead of 8000."""
    a_thousand_ratings(home / "try-warmstart")
    commands = [text for _, text in blocks("sh")][1:]
    at = next(n for n, text in enumerate(commands) if text.startswith(SERVE))
    there = f"source {home}/try-warmstart/bin/activate; cd {home}/try-warmstart\n"
    before = typed(there + "".join(commands[:at]), home)
    assert "1,000" in before
    run = there + commands[at].replace(SERVE, f"exec {SERVE} --port {{port}}")
    with serving(["bash", "-c", run], home / "service.log", environment=environment(home)) as server:
        for kind, text in [block for block in blocks("sh", "python") if "http://127.0.0.1:8000" in block[1]]:
            code = text.replace("http://127.0.0.1:8000", server.url)
            if kind == "python":
                code = f"python - <<'END'\n{code}END\n"
            answered = typed(there + code.replace("curl ", "curl --silent --fail-with-body "), home)
            assert '"fallback":null' in answered if kind == "sh" else len(answered.splitlines()) == 3
    assert (home / "try-warmstart" / "var" / "warmstart.db").exists()

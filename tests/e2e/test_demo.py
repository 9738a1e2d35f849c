"""`warmstart demo`, which is all that `make serve` runs: from nothing to answers, and again."""

import shutil
from pathlib import Path

import httpx
import pytest

from models.datasets.fetch import fetch
from tests.e2e.conftest import DATA
from tests.e2e.movies import Movies
from tests.e2e.service import warmstart

pytestmark = pytest.mark.slow

FIRST_START_SECONDS = 600.0
"""Allowance for machines that do other things; `make serve` takes well under four minutes on two idle cores."""
MAX_RESIDENT = 1.5 * 2**30
MAX_CHECKPOINT = 50e6


def test_demo_starts_from_nothing_and_starts_again(movies: Movies, tmp_path: Path) -> None:
    """One command trains what is missing and serves it; the second time nothing is trained.

    It stays under 1.5 GiB and each checkpoint under 50 MB. Times are printed (`pytest -s`), not judged.
    """
    shutil.copytree(DATA / "movielens-100k", tmp_path / "datasets" / "movielens-100k")
    fetch("movielens-100k-domains", DATA / "movielens-100k-domains")
    shutil.copytree(DATA / "movielens-100k-domains", tmp_path / "datasets" / "movielens-100k-domains")
    with warmstart(tmp_path, command="demo", timeout=FIRST_START_SECONDS) as server, server.client() as client:
        first = server.ready_after
        slate = top(client, movies)
    trained = sizes(tmp_path / "checkpoints")
    with warmstart(tmp_path, command="demo") as server, server.client() as client:
        again = server.ready_after
        assert top(client, movies) == slate
        for target, source in (("thrills", "hearts"), ("hearts", "thrills")):
            answer = client.get("/v1/users/nobody/recommendations", params={"domain": target}).json()
            assert [part["transfer"]["sources"] for part in answer["parts"] if part["transfer"]] == [[source]]
        resident = server.resident_bytes()
    assert sizes(tmp_path / "checkpoints") == trained
    print(f"\nready after {first:.1f} s, the second time after {again:.1f} s; {resident / 2**20:.0f} MiB resident")
    for name, size in trained.items():
        print(f"{name}: {size / 1e6:.2f} MB")
    assert resident < MAX_RESIDENT
    assert all(size < MAX_CHECKPOINT for size in trained.values())


def top(client: httpx.Client, movies: Movies) -> list[str]:
    """What is recommended to somebody who likes three comedies."""
    support = [{"item_id": item_id, "value": 5} for item_id in movies.best_known("Comedy", 3)]
    response = client.post("/v1/cold-start/recommendations", json={"domain": "movies", "support": support})
    assert response.status_code == 200, response.text
    return [item["item_id"] for item in response.json()["items"]]


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each checkpoint."""
    return {
        path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        for path in sorted(folder.iterdir())
        if path.is_dir()
    }

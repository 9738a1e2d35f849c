"""Services to test as a whole: MovieLens-100K behind them, embedded or on Postgres and Valkey."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from app.commands.blend import fit_blends
from models.datasets.fetch import FetchError, fetch
from tests.e2e.browser import chromium
from tests.e2e.movies import Movies, prepare
from tests.e2e.service import warmstart

HERE = Path(__file__).parent
DATA = Path(os.environ.get("WARMSTART_TEST_DATA", HERE.parents[1] / "var" / "datasets"))
"""Folder where public data sets are kept between test runs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here starts services."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def movies(tmp_path_factory: pytest.TempPathFactory) -> Movies:
    """MovieLens-100K with users held out and checkpoints; skips where it cannot be had."""
    try:
        full = fetch("movielens-100k", DATA / "movielens-100k")
    except FetchError as error:
        pytest.skip(str(error))
    return prepare(full, tmp_path_factory.mktemp("movies"))


@pytest.fixture(scope="session")
def served_movies(movies: Movies, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of one embedded service, for tests that change nothing in it: `content`, `bayes`, `maml` and `ease`
    answer, in their learnt blend, as in the demo."""
    folder = tmp_path_factory.mktemp("served")
    stock = movies.stock(folder / "checkpoints", "content", "bayes-a", "maml", "ease")
    fit_blends(stock, movies.training)
    with warmstart(folder, checkpoint_dir=stock, learn_seconds=0) as server, server.client() as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; skips where there is none. It holds this thread's event loop, so it ends before other modules."""
    with chromium() as started:
        yield started


@pytest.fixture(params=["embedded", "production"])
def backing(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments of `warmstart` for the two ways to run: SQLite and one worker, or Postgres, Valkey and two."""
    if request.param == "embedded":
        return {}
    return {
        "database_url": request.getfixturevalue("postgres_url"),
        "redis_url": request.getfixturevalue("redis_url"),
        "workers": 2,
    }

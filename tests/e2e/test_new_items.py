"""New items become known while the service runs: each of their ratings makes its predictions for others better."""

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from models.datasets.fetch import FetchError, fetch
from tests.e2e import new_items
from tests.e2e.conftest import DATA
from tests.e2e.new_items import RATINGS, Premiere, course, opening, post, predictions, put, told
from tests.e2e.service import warmstart

LINE_UP = "content+bayes"
N_ITEMS = 150


@pytest.fixture(scope="module")
def premiere(tmp_path_factory: pytest.TempPathFactory) -> Premiere:
    """MovieLens-100K with films held out; skips where it cannot be had."""
    try:
        full = fetch("movielens-100k", DATA / "movielens-100k")
    except FetchError as error:
        pytest.skip(str(error))
    return new_items.prepare(full, tmp_path_factory.mktemp("premiere"), N_ITEMS, [LINE_UP])


def assert_same(found: Mapping[tuple[str, str], float], expected: Mapping[tuple[str, str], float]) -> None:
    """The same to the last digit told, where rounding takes it: which requests are computed together is chance."""
    assert found == pytest.approx(expected, abs=2e-4)


def test_each_step_of_ratings_improves_predictions_and_a_restart_keeps_them(premiere: Premiere, tmp_path: Path) -> None:
    """The error of predictions for others falls with 1, 3 and 10 ratings of each new item; a restart says the same."""
    with opening(premiere, LINE_UP, tmp_path) as server, server.client() as client:
        errors = course(client, premiere)
        print(f"\nRMSE after {RATINGS} ratings of each of {len(premiere.items)} new items: {told(LINE_UP, errors)}")
        assert all(more < fewer for fewer, more in pairwise(errors))
        before = predictions(client, premiere)
    stock = premiere.checkpoints / LINE_UP
    with warmstart(tmp_path, checkpoint_dir=stock) as server, server.client() as client:
        assert_same(predictions(client, premiere), before)


def test_two_workers_learn_the_same(premiere: Premiere, postgres_url: str, redis_url: str, tmp_path: Path) -> None:
    """Ratings posted through one worker are learnt by both, and both then say the same of the new items."""
    shared = {"database_url": postgres_url, "redis_url": redis_url, "learn_seconds": new_items.LEARN_SECONDS}
    with ExitStack() as stack:
        server = stack.enter_context(opening(premiere, LINE_UP, tmp_path / "first", **shared))
        here = stack.enter_context(server.client())
        stock = premiere.checkpoints / LINE_UP
        other = stack.enter_context(warmstart(tmp_path / "second", checkpoint_dir=stock, **shared))
        there = stack.enter_context(other.client())
        put(here, premiere)
        unlearnt = predictions(there, premiere)
        for start, stop in pairwise(RATINGS):
            post(here, premiere.ratings(start, stop), [here, there])
        learnt = predictions(here, premiere)
        assert_same(predictions(there, premiere), learnt)
        assert max(abs(learnt[key] - unlearnt[key]) for key in learnt) > 0.1

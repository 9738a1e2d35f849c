"""Are the answers any good: 200 users on whom nothing was trained, five of their ratings, over HTTP.

The measures are those of `models.evaluation`; intervals are paired bootstraps over the users.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest

from models.evaluation.metrics import RELEVANT, Floats, gain, ndcg_at
from models.evaluation.significance import Interval, paired_bootstrap
from models.recommender import FitOptions
from models.recommenders.popularity import Popularity, PopularityConfig
from tests.e2e.movies import Movies

pytestmark = pytest.mark.slow

SUPPORT = 5
TOP = 10
LONGEST = 1000
"""Longest slate that can be asked for; nobody in the data rated more films."""
CLIENTS = 4


@dataclass(frozen=True)
class Task:
    """A held-out user: what the service is told and what it is not."""

    support: Mapping[str, float]
    others: Mapping[str, float]

    def body(self, **more: Any) -> dict[str, Any]:
        """A cold-start request with the support."""
        support = [{"item_id": item_id, "value": value} for item_id, value in self.support.items()]
        return {"domain": "movies", "support": support, **more}


@pytest.fixture(scope="module")
def tasks(movies: Movies) -> list[Task]:
    """Five ratings of each held-out user, drawn at random, and all the others."""
    generator = np.random.default_rng(1)
    drawn = []
    for user_id in movies.held_out:
        ratings = movies.ratings(user_id)
        chosen = set(generator.choice(len(ratings), SUPPORT, replace=False).tolist())
        parts: tuple[dict[str, float], dict[str, float]] = ({}, {})
        for place, (item_id, value) in enumerate(ratings):
            parts[place not in chosen][item_id] = value
        drawn.append(Task(*parts))
    return drawn


@pytest.fixture(scope="module")
def mean_rating(movies: Movies) -> dict[str, float]:
    """Popularity as the `popularity` recommender has it: an item's shrunken mean rating."""
    table = Popularity(PopularityConfig(), movies.training.schema).fit(movies.training, FitOptions()).table
    return dict(zip(movies.training.items.ids, table["bias"].tolist(), strict=True))


@pytest.fixture(scope="module")
def reordered(served_movies: httpx.Client, tasks: Sequence[Task]) -> list[list[str]]:
    """Each user's other films, from the one that the service expects them to rate highest to the lowest."""
    bodies = [task.body(k=LONGEST, filters={"include_items": list(task.others)}, rank_by="rating") for task in tasks]
    return answers(served_movies, bodies)


@pytest.fixture(scope="module")
def from_catalogue(served_movies: httpx.Client, tasks: Sequence[Task]) -> list[list[str]]:
    """Each user's slate from the whole catalogue."""
    return answers(served_movies, [task.body(k=TOP) for task in tasks])


@pytest.fixture(scope="module")
def by_rating(served_movies: httpx.Client, tasks: Sequence[Task]) -> list[list[str]]:
    """The same slates in the order of the expected ratings."""
    return answers(served_movies, [task.body(k=TOP, rank_by="rating") for task in tasks])


def answers(client: httpx.Client, bodies: Sequence[dict[str, Any]]) -> list[list[str]]:
    def answer(body: dict[str, Any]) -> list[str]:
        response = client.post("/v1/cold-start/recommendations", json=body)
        assert response.status_code == 200, response.text
        return [item["item_id"] for item in response.json()["items"]]

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(answer, bodies))


def by_score(items: Sequence[str], scores: Mapping[str, float]) -> list[str]:
    """Items from the highest score to the lowest, ties by id."""
    return sorted(items, key=lambda item_id: (-scores.get(item_id, 0.0), item_id))


def ndcg(tasks: Sequence[Task], lists: Sequence[Sequence[str]], kind: Any) -> Floats:
    """(U,) NDCG@10 of each user's list; an item that the user did not rate gains nothing."""

    def value(task: Task, ranked: Sequence[str]) -> float:
        gains = [gain(np.array([task.others[i]]), kind)[0] if i in task.others else 0.0 for i in ranked]
        best = gain(np.array(list(task.others.values())), kind)
        return float(ndcg_at(np.array([gains]), best[None], TOP)[0])

    return np.array([value(task, ranked) for task, ranked in zip(tasks, lists, strict=True)])


def compared(name: str, served: Floats, baseline: Floats, against: str = "popularity") -> Interval:
    """The interval of the difference, said aloud (`pytest -s`)."""
    asked = np.isfinite(served)  # users who liked nothing have no NDCG
    interval = paired_bootstrap(served[asked], baseline[asked], np.ones(asked.sum()), "mean")
    print(
        f"\n{name}: NDCG@{TOP} served {served[asked].mean():.4f}, {against} {baseline[asked].mean():.4f}, "
        f"difference {interval.difference:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}], {asked.sum()} users"
    )
    return interval


def test_orders_what_people_rated_better_than_popularity(
    tasks: list[Task], reordered: list[list[str]], mean_rating: dict[str, float], movies: Movies
) -> None:
    """The films that a held-out user rated are put into a better order than by popularity, in either sense of it."""
    assert [set(ranked) for ranked in reordered] == [set(task.others) for task in tasks]
    served = ndcg(tasks, reordered, "exponential")
    for name, popularity in (("mean rating", mean_rating), ("number of ratings", movies.counts())):
        baseline = ndcg(tasks, [by_score(list(task.others), popularity) for task in tasks], "exponential")
        assert compared(f"rated films, popularity by {name}", served, baseline).low > 0


def test_finds_what_people_liked_better_than_popularity(
    tasks: list[Task], from_catalogue: list[list[str]], mean_rating: dict[str, float], movies: Movies
) -> None:
    """Of the whole catalogue, more films that a held-out user rated 4 or 5 come first than by popularity, in either
    sense of it."""
    served = ndcg(tasks, from_catalogue, "binary")
    lists = {
        name: [by_score([i for i in movies.data.items.ids if i not in task.support], popularity) for task in tasks]
        for name, popularity in (("mean rating", mean_rating), ("number of ratings", movies.counts()))
    }
    for name, ranked in lists.items():
        baseline = ndcg(tasks, ranked, "binary")
        over = f"whole catalogue, relevant from {RELEVANT:g}, popularity by {name}"
        assert compared(over, served, baseline).low > 0


def test_preference_finds_what_people_liked_better_than_expected_ratings_do(
    tasks: list[Task], from_catalogue: list[list[str]], by_rating: list[list[str]]
) -> None:
    served, rated = (ndcg(tasks, lists, "binary") for lists in (from_catalogue, by_rating))
    assert compared(f"whole catalogue, relevant from {RELEVANT:g}", served, rated, "by rating").low > 0

"""Answers to people whom nobody has met: what they are given depends on what they said."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from tests.e2e.movies import Movies

SLATE = 20


def slate(client: httpx.Client, **known: Any) -> list[str]:
    """Ids of the top of a cold-start answer."""
    response = client.post("/v1/cold-start/recommendations", json={"domain": "movies", "k": SLATE, **known})
    assert response.status_code == 200, response.text
    return [item["item_id"] for item in response.json()["items"]]


def rated(items: Sequence[str], value: float) -> list[dict[str, Any]]:
    return [{"item_id": item_id, "value": value} for item_id in items]


@pytest.fixture(scope="module")
def comedies(movies: Movies) -> list[str]:
    """The five comedies without any horror that most people rated."""
    return movies.best_known("Comedy", 5, without=["Horror"])


@pytest.fixture(scope="module")
def horror(movies: Movies) -> list[str]:
    """The five horror films without any comedy that most people rated."""
    return movies.best_known("Horror", 5, without=["Comedy"])


def test_five_comedies_and_five_horror_films_give_different_lists(
    served_movies: httpx.Client, comedies: list[str], horror: list[str]
) -> None:
    """Whoever loves five comedies and whoever loves five horror films share less than half of the top 20."""
    laughing = slate(served_movies, support=rated(comedies, 5))
    shivering = slate(served_movies, support=rated(horror, 5))
    shared = len(set(laughing) & set(shivering))
    print(f"\nfive comedies, five horror films: {shared} of {SLATE} in common")
    assert shared < SLATE / 2


def test_opposite_tastes_give_different_lists(
    served_movies: httpx.Client, movies: Movies, comedies: list[str], horror: list[str]
) -> None:
    """Whoever loves comedies and hates horror, and whoever is the other way round, share less than half of the top 20.

    Neither list is the one for somebody unknown, nor that of the films most people rated.
    """
    laughing = slate(served_movies, support=rated(comedies, 5) + rated(horror, 1))
    shivering = slate(served_movies, support=rated(horror, 5) + rated(comedies, 1))
    unknown = slate(served_movies)
    counts = movies.counts()
    best_known = sorted(counts, key=lambda item_id: (-counts[item_id], item_id))[:SLATE]
    assert len(set(laughing) & set(shivering)) < SLATE / 2
    for popular in (unknown, best_known):
        assert len(set(laughing) & set(popular)) < SLATE
        assert len(set(shivering) & set(popular)) < SLATE


def test_genre_follows_taste(
    served_movies: httpx.Client, movies: Movies, comedies: list[str], horror: list[str]
) -> None:
    """The list for the lover of comedies has more comedies than the list for the lover of horror."""
    genres = {
        item_id: attributes.get("genres", [])
        for item_id, attributes in zip(movies.data.items.ids, movies.data.items.attributes, strict=True)
    }
    laughing = slate(served_movies, support=rated(comedies, 5) + rated(horror, 1))
    shivering = slate(served_movies, support=rated(horror, 5) + rated(comedies, 1))
    share = [sum("Comedy" in genres[item_id] for item_id in listed) for listed in (laughing, shivering)]
    assert share[0] > share[1]


def test_rated_items_are_not_recommended(served_movies: httpx.Client, comedies: list[str]) -> None:
    """What the request says was seen does not come back."""
    assert not set(comedies) & set(slate(served_movies, support=rated(comedies, 5)))


def test_attributes_alone_are_evidence(served_movies: httpx.Client) -> None:
    """Without any rating the answer still depends on who asks."""
    people = [
        {"age": 21, "age_band": "18-24", "gender": "F", "occupation": "student"},
        {"age": 52, "age_band": "50-55", "gender": "M", "occupation": "engineer"},
        {"age": 33, "age_band": "25-34", "gender": "F", "occupation": "librarian"},
    ]
    lists = {tuple(slate(served_movies, attributes=person)) for person in people}
    assert len(lists) == len(people)


def test_the_same_evidence_gives_the_same_answer(served_movies: httpx.Client, comedies: list[str]) -> None:
    """Stateless: asking twice, with another request in between, changes nothing."""
    first = slate(served_movies, support=rated(comedies, 5))
    slate(served_movies, support=rated(comedies, 1))
    assert slate(served_movies, support=rated(comedies, 5)) == first

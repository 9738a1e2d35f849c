"""Stored users: every rating changes the next answer, and nothing is forgotten. Embedded and on Postgres + Valkey."""

from pathlib import Path
from typing import Any

import httpx

from tests.e2e.movies import Movies
from tests.e2e.service import warmstart

Slate = list[tuple[str, float]]


def rate(client: httpx.Client, user_id: str, item_id: str, value: float) -> None:
    event = {"user_id": user_id, "domain": "movies", "item_id": item_id, "value": value}
    response = client.post("/v1/interactions", json={"interactions": [event]})
    assert response.status_code == 201, response.text
    assert response.json() == {"accepted": 1, "duplicates": 0}


def slate(client: httpx.Client, user_id: str) -> Slate:
    """(item id, score) of the user's recommendations."""
    response = client.get(f"/v1/users/{user_id}/recommendations", params={"domain": "movies", "k": 20})
    assert response.status_code == 200, response.text
    return [(item["item_id"], item["score"]) for item in response.json()["items"]]


def test_each_rating_moves_the_list_and_a_restart_forgets_nothing(
    movies: Movies, backing: dict[str, Any], tmp_path: Path
) -> None:
    """A newcomer rates six films one by one.

    After each the list is another, without the films rated so far; after a restart it is exactly what it was. Nothing
    is learnt of the films meanwhile: when their rows change is the learner's business (`test_new_items`).
    """
    stock = movies.stock(tmp_path / "checkpoints", "content", "bayes-a", "maml")
    loved = movies.best_known("Sci-Fi", 3)
    hated = movies.best_known("Romance", 3, without=["Sci-Fi"])
    ratings = [rating for pair in zip(loved, hated, strict=True) for rating in zip(pair, (5.0, 1.0), strict=True)]
    with warmstart(tmp_path, checkpoint_dir=stock, learn_seconds=0, **backing) as server, server.client() as client:
        lists = [slate(client, "newcomer")]
        for n, (item_id, value) in enumerate(ratings, start=1):
            rate(client, "newcomer", item_id, value)
            lists.append(slate(client, "newcomer"))
            assert lists[-1] != lists[-2]
            assert not {seen for seen, _ in ratings[:n]} & {shown for shown, _ in lists[-1]}
        assert slate(client, "somebody else") == lists[0]
    with warmstart(tmp_path, checkpoint_dir=stock, learn_seconds=0, **backing) as server, server.client() as client:
        assert slate(client, "newcomer") == lists[-1]
        known = client.get("/v1/users/newcomer").json()["interactions"]
    assert [(event["item_id"], event["value"]) for event in known] == ratings


def test_un_rating_takes_back_what_a_rating_did(served_movies: httpx.Client, movies: Movies) -> None:
    """After an event is withdrawn the answer is the one from before it."""
    before = slate(served_movies, "undecided")
    item_id = movies.best_known("Western", 1)[0]
    event = {"event_id": "regret", "user_id": "undecided", "domain": "movies", "item_id": item_id, "value": 5}
    assert served_movies.post("/v1/interactions", json={"interactions": [event]}).status_code == 201
    assert slate(served_movies, "undecided") != before
    assert served_movies.delete("/v1/interactions/regret").status_code == 204
    assert slate(served_movies, "undecided") == before

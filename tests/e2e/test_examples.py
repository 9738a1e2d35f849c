"""The examples tell what they promise. That of two catalogues is tried in `test_transfer`, where there are two."""

import re
from pathlib import Path

import httpx

from app.client import Client
from tests.e2e.examples import told
from tests.e2e.movies import Movies
from tests.e2e.service import warmstart


def test_a_newcomer_gets_more_of_what_they_love(served_movies: httpx.Client) -> None:
    story = told("newcomer", str(served_movies.base_url))
    before, after = (float(share) for share in re.findall(r"science fiction in the list, \w+: (\d+)%", story))
    assert after > before
    assert story.count("?") == 8


def test_a_new_film_that_is_liked_rises_and_the_others_fall(movies: Movies, tmp_path: Path) -> None:
    """Afterwards the service is as it was: neither the films nor the visitors are known."""
    stock = movies.stock(tmp_path / "checkpoints", "content", "bayes-a")
    with warmstart(tmp_path, checkpoint_dir=stock, learn_seconds=0.2) as server:
        story = told("exploring", server.url)
        (unknown,) = (float(stars) for stars in re.findall(r"by its content alone: ([\d.]+) stars", story))
        good, dull, worse = (float(stars) for stars in re.findall(r"knows it now: ([\d.]+) stars", story))
        assert good > unknown > dull > worse
        rewards = [float(reward) for reward in re.findall(r"([\d.]+) of reward", story)]
        assert rewards == [1, 0.25, 0]
        with Client(server.url) as client:
            assert not [item for item in client.items("movies") if item.title == "The Good One (1998)"]

"""Workers that share Postgres and Valkey see at once what another has acknowledged.

Two services of one worker each make sure which worker is asked; `warmstart serve --workers 2` is tried besides.
"""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.movies import Movies
from tests.e2e.service import warmstart

RELOAD_SECONDS = 5.0
"""A reload reaches every worker within this time."""

Workers = tuple[httpx.Client, httpx.Client]


@pytest.fixture
def workers(movies: Movies, postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Workers]:
    """Clients of two services over one Postgres, one Valkey and one folder of checkpoints; `bayes-a` is in service."""
    stock = movies.stock(tmp_path / "checkpoints", "bayes-a")
    shared: dict[str, Any] = {"checkpoint_dir": stock, "database_url": postgres_url, "redis_url": redis_url}
    shared["learn_seconds"] = 0  # what is learnt of items reaches workers in their own time (`test_new_items`)
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(stack.enter_context(warmstart(tmp_path / name, **shared)).client())
            for name in ("first", "second")
        )
        movies.stock(stock, "bayes-b")
        yield first, second


def answer(client: httpx.Client, user_id: str, **more: Any) -> dict[str, Any]:
    body = {"domain": "movies", "user_id": user_id, "k": 10, **more}
    response = client.post("/v1/recommendations", json=body)
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    return made


def scores(client: httpx.Client, user_id: str) -> list[tuple[str, float]]:
    return [(item["item_id"], item["score"]) for item in answer(client, user_id)["items"]]


def test_an_interaction_is_seen_by_the_other_worker_at_once(workers: Workers, movies: Movies) -> None:
    """Whoever rates through one worker gets the same answer from both, without what was rated, after every rating."""
    seen = set()
    before = scores(workers[1], "wanderer")
    for n, item_id in enumerate(movies.best_known("Drama", 20)):
        here, there = workers[n % 2], workers[1 - n % 2]
        event = {"user_id": "wanderer", "domain": "movies", "item_id": item_id, "value": 1 + n % 5}
        assert here.post("/v1/interactions", json={"interactions": [event]}).status_code == 201
        seen.add(item_id)
        after = scores(there, "wanderer")
        assert after != before
        assert not seen & {shown for shown, _ in after}
        assert scores(here, "wanderer") == after
        before = after


def test_a_new_item_can_be_recommended_by_both_workers_at_once(workers: Workers) -> None:
    """An item put through one worker has a score from its content on the other, and no longer once it is gone."""
    for n in range(6):
        here, there = workers[n % 2], workers[1 - n % 2]
        item = {"title": f"New Film {n} (1998)", "attributes": {"genres": ["Comedy"], "year": 1998, "decade": "1990s"}}
        assert here.put(f"/v1/items/movies/new-{n}", json=item).status_code == 201
        only = {"filters": {"include_items": [f"new-{n}"]}}
        found = [answer(client, "anybody", **only)["items"] for client in (there, here)]
        assert [[entry["item_id"] for entry in listed] for listed in found] == [[f"new-{n}"]] * 2
        assert found[0][0]["score"] == found[1][0]["score"]
        assert here.delete(f"/v1/items/movies/new-{n}").status_code == 204
        assert answer(there, "anybody", **only)["items"] == []


def test_a_reload_reaches_both_workers(workers: Workers) -> None:
    """A reload through one worker answers there at once and on the other within five seconds; so does a rollback."""
    here, there = workers
    body = {"domain": "movies", "checkpoint": "bayes-b"}
    wanted = here.post("/v1/admin/checkpoints/reload", json=body).json()["digest"]
    assert [part["digest"] for part in answer(here, "anybody")["parts"]] == [wanted]
    assert seconds_until(there, wanted) < RELOAD_SECONDS
    back = {"domain": "movies", "role": "collaborative"}
    earlier = there.post("/v1/admin/checkpoints/rollback", json=back).json()["digest"]
    assert earlier != wanted
    assert seconds_until(here, earlier) < RELOAD_SECONDS
    assert scores(here, "anybody") == scores(there, "anybody")


def test_two_workers_behind_one_port(movies: Movies, postgres_url: str, redis_url: str, tmp_path: Path) -> None:
    """`serve --workers 2`: connections land on either, and each answers as if it were the only one."""
    stock = movies.stock(tmp_path / "checkpoints", "bayes-a")
    backing = {"database_url": postgres_url, "redis_url": redis_url}
    with (
        warmstart(tmp_path, checkpoint_dir=stock, workers=2, learn_seconds=0, **backing) as server,
        ExitStack() as stack,
    ):
        # One worker may be ready before the other listens, and which of them gets a connection is chance.
        clients = [stack.enter_context(server.client()) for _ in range(16)]
        deadline = time.monotonic() + 60
        while len({process_of(client) for client in clients}) < 2:
            assert time.monotonic() < deadline, "the second worker never answered"
            clients = [*clients[1:], stack.enter_context(server.client())]
        seen = set()
        for n, item_id in enumerate(movies.best_known("Drama", len(clients))):
            here, there = clients[n], clients[-1 - n]
            event = {"user_id": "wanderer", "domain": "movies", "item_id": item_id, "value": 4}
            assert here.post("/v1/interactions", json={"interactions": [event]}).status_code == 201
            seen.add(item_id)
            assert not seen & {shown for shown, _ in scores(there, "wanderer")}
        assert len({tuple(scores(client, "wanderer")) for client in clients}) == 1
        told = [client.get("/metrics").text for client in clients]
        assert len({text.partition("\n")[0] for text in told}) == 2
        assert all(re.search(r"^warmstart_workers\{.*\} 2\.0$", text, re.MULTILINE) for text in told)
        written = r'^warmstart_request_seconds_count\{method="POST",route="/v1/interactions",status="201"\} (\S+)$'
        counts = {float(count) for text in told for count in re.findall(written, text, re.MULTILINE)}
        assert counts == {float(len(clients))}, "each worker tells what all have done"


def process_of(client: httpx.Client) -> str:
    """What tells workers apart: the process behind a kept-alive connection."""
    return client.get("/metrics").text.partition("\n")[0]


def seconds_until(client: httpx.Client, digest: str) -> float:
    """Time until a checkpoint answers."""
    started = time.monotonic()
    while time.monotonic() < started + 2 * RELOAD_SECONDS:
        if [part["digest"] for part in answer(client, "anybody")["parts"]] == [digest]:
            break
        time.sleep(0.05)
    return time.monotonic() - started

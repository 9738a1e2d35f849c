"""The short forms of `overload`, `shutdown` and `redis`."""

import signal
from pathlib import Path
from typing import Any

from app.settings import Settings
from tests.chaos import balancer, overload, redis, shutdown
from tests.chaos.world import bodies, stocked
from tests.e2e.open_loop import Job, Load
from tests.e2e.service import warmstart


def test_overload_is_refused_as_it_should_be(tmp_path: Path) -> None:
    """Everything is answered well or refused with Retry-After, and whoever looks hears that the service is alive."""
    stock = stocked(tmp_path / "checkpoints")
    settings = {"max_working": 1, "max_queue": 4, "max_wait_seconds": 0.05, "learn_seconds": 0}
    with warmstart(tmp_path, checkpoint_dir=stock, **settings) as server:
        looks = overload.Looks(server.url)
        looks.start()
        seen = overload.level(server, bodies(), capacity=200, share=5, seconds=2)
        looks.stop()
        assert not seen.mistakes()
        assert not looks.failures
        assert seen.good
        assert len(seen.good) < len(seen.answers), "the service was never overloaded"
        after = Load(Job(port=server.port, path="/v1/cold-start/recommendations", bodies=bodies(), rate=5, seconds=1))
        after.started()
        assert {answer.status for answer in after.answers()} == {200}


def test_a_crowd_that_waits_for_nothing_does_not_take_the_time_for_answers(tmp_path: Path) -> None:
    """It asks again as soon as it is refused; told at once, there were hundreds of refusals for each answer."""
    stock = stocked(tmp_path / "checkpoints")
    with warmstart(tmp_path, checkpoint_dir=stock, max_working=4, max_queue=16, learn_seconds=0) as server:
        crowd = overload.closed(server, bodies(), connections=256, seconds=3)
    assert 0 < crowd.refused < 20 * crowd.completed
    assert "\r\nretry-after: 1\r\n" in crowd.first_refused.lower()


def test_nobody_notices_a_stop(tmp_path: Path) -> None:
    assert Settings().keep_alive_seconds > balancer.IDLE_SECONDS
    outcome = shutdown.run(tmp_path, stops=1, seconds_a_stop=10, settings={}, rate=20)
    assert not outcome.failures
    assert outcome.stops


def test_readiness_goes_first(backing: dict[str, Any], tmp_path: Path) -> None:
    """After SIGTERM `/readyz` says so, requests are still answered, their connections closed; then the process ends."""
    with warmstart(tmp_path, drain_seconds=3, **backing) as server, server.client() as client:
        assert client.put("/v1/domains/shop", json={}).status_code == 201
        assert "connection" not in client.get("/livez").headers
        server.process.send_signal(signal.SIGTERM)
        statuses = []
        while (status := client.get("/readyz").status_code) != 503:
            statuses.append(status)
        assert set(statuses) <= {200}
        answer = client.post("/v1/cold-start/recommendations", json={"domain": "shop"})
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        assert client.get("/livez").status_code == 200
        server.process.wait(30)


def test_the_cache_is_optional(tmp_path: Path) -> None:
    """Whatever becomes of it, each request is answered with the list that a service without a cache gives."""
    phases = redis.run(tmp_path, f"sqlite:///{tmp_path}/warmstart.db", seconds=2, rate=20)
    assert not [mistake for phase in phases for mistake in phase.mistakes()]
    assert sum(phase.errors for phase in phases) > 0

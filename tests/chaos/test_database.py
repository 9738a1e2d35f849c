"""Postgres may be stopped and started under the service: the short form of `python -m tests.chaos.database`."""

from pathlib import Path

from tests.chaos.database import EXPECTED, run
from tests.chaos.databases import postgres
from tests.chaos.lives import Nursery


def test_the_service_outlives_a_restart_of_postgres(services: Nursery, tmp_path: Path) -> None:
    """Nothing acknowledged is missing or twice, refusals say what they should, and nobody restarts the service."""
    with postgres() as server:
        outcome = run(services, tmp_path, server, stops=2, posts=40)
    assert outcome.problems == []
    assert (outcome.found.missing, outcome.found.duplicated, outcome.stops) == (0, 0, 2)
    assert outcome.work.target.refusals[EXPECTED] > 0, "nobody noticed that the database was away"

"""What was acknowledged is there after kills: the short form of `python -m tests.chaos.durability`."""

from pathlib import Path

from tests.chaos.durability import run
from tests.chaos.lives import Nursery


def test_nothing_acknowledged_is_missing_or_doubled_after_kills(
    services: Nursery, tmp_path: Path, database_url: str
) -> None:
    outcome = run(services, tmp_path, database_url, posts=600, kills=4)
    assert outcome.found.problems == []
    assert (outcome.found.missing, outcome.found.duplicated, outcome.kills) == (0, 0, 4)
    assert len(outcome.work.acknowledged) >= 600


def test_a_commit_behind_the_reply_is_found_out(services: Nursery, tmp_path: Path, sqlite_url: str) -> None:
    """The harness has teeth: a service that acknowledges before it commits fails it."""
    outcome = run(services, tmp_path, sqlite_url, posts=90, kills=3, fault="tests.chaos.late_commit")
    assert outcome.found.missing > 0
    assert any("acknowledged events are missing" in problem for problem in outcome.found.problems)

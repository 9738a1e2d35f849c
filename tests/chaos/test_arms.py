"""Arm statistics are exact though the service is killed under load: the short form of `python -m tests.chaos.arms`."""

from pathlib import Path

from tests.chaos.arms import run
from tests.chaos.lives import Nursery


def test_arms_are_exact_after_kills(services: Nursery, tmp_path: Path, database_url: str) -> None:
    outcome = run(services, tmp_path, database_url, rewards=1_000, kills=2)
    assert outcome.problems == []
    assert outcome.acknowledged >= 1_000

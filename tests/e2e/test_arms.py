"""Arm statistics are exact though the service is killed under load: the short form of `python -m tests.chaos.arms`."""

from pathlib import Path

import pytest

from tests.chaos.arms import run

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


def test_arms_are_exact_after_kills(tmp_path: Path, database_url: str) -> None:
    outcome = run(tmp_path, database_url, rewards=1_000, kills=2)
    assert outcome.problems == []
    assert outcome.acknowledged >= 1_000

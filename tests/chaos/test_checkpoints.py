"""Harmed checkpoints run, crash and replace nothing: the short form of `python -m tests.chaos.checkpoints`."""

from pathlib import Path

from tests.chaos.checkpoints import run
from tests.chaos.lives import Nursery
from tests.chaos.mutations import MUTATIONS

CASES = 80


def test_harmed_checkpoints_run_crash_and_replace_nothing(
    services: Nursery, bases: Path, tmp_path: Path, sqlite_url: str
) -> None:
    outcome = run(services, tmp_path / "service", bases, sqlite_url, CASES, seed=7)
    assert outcome.problems == []
    assert (outcome.executions, outcome.crashes, outcome.swaps) == (0, 0, 0)
    assert outcome.refused.total() > CASES / 2
    assert outcome.refused.total() + outcome.whole.total() + outcome.untouched == CASES >= len(MUTATIONS)

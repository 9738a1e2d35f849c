"""Descriptors, threads and connections go back: the short form of `python -m tests.chaos.soak`.

The slope of memory takes half an hour to be read, and is printed by the command.
"""

from pathlib import Path

from tests.chaos.soak import run


def test_what_was_taken_is_given_back(bases: Path, tmp_path: Path, postgres_url: str) -> None:
    outcome = run(tmp_path / "service", bases, postgres_url, seconds=10, rate=20, past=1000)
    assert outcome.problems == []
    assert outcome.transactions == 0
    assert outcome.statuses["200"] > 0 < outcome.statuses["reset"]
    assert outcome.statuses["reload 200"] + outcome.statuses["reload 422"] > 0

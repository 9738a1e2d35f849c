"""The service keeps to its OpenAPI document: the short form of `python -m tests.chaos.contract`."""

from pathlib import Path

from tests.chaos.contract import run
from tests.chaos.lives import Nursery


def test_answers_keep_to_the_document(services: Nursery, bases: Path, tmp_path: Path, sqlite_url: str) -> None:
    outcome = run(services, tmp_path, bases, sqlite_url, cases=1, examples=8, phases=["examples", "fuzzing"])
    assert outcome.failures == []
    assert outcome.cases > outcome.operations > 30

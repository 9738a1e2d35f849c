"""Retries are safe though connections break: the short form of `python -m tests.chaos.retries`."""

from pathlib import Path
from typing import Any

from tests.chaos.retries import run


def test_each_event_is_stored_once_and_each_key_executed_once(
    tmp_path: Path, sqlite_url: str, backing: dict[str, Any]
) -> None:
    outcome = run(tmp_path, **{"url": sqlite_url, "batches": 30, "keys": 2} | _with_url(backing))
    assert outcome.problems == []
    assert (outcome.rows, outcome.executions) == (300, 2)
    assert outcome.tries["reset"] > 0


def _with_url(backing: dict[str, Any]) -> dict[str, Any]:
    return {"url" if name == "database_url" else name: value for name, value in backing.items()}

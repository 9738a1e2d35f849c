"""Nothing is left of erased users after kills: the short form of `python -m tests.chaos.erasure`."""

from pathlib import Path
from typing import Any

from tests.chaos.erasure import run
from tests.chaos.lives import Nursery


def test_nothing_is_left_of_whom_a_kill_left_half_erased(
    services: Nursery, tmp_path: Path, sqlite_url: str, backing: dict[str, Any]
) -> None:
    settings = {"database_url": sqlite_url, **backing}
    outcome = run(services, tmp_path, settings.pop("database_url"), users=2, events=1_000, **settings)
    assert outcome.problems == []
    assert (outcome.traces, outcome.back, outcome.late) == (0, 0, 2_000)

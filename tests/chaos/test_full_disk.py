"""The disk of the database may be full, really: the short form of `python -m tests.chaos.full_disk`."""

from pathlib import Path

import pytest

from tests.chaos.database import EXPECTED
from tests.chaos.databases import KINDS
from tests.chaos.full_disk import NotMounted, run
from tests.chaos.lives import Nursery


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_outlives_a_full_disk(services: Nursery, tmp_path: Path, kind: str) -> None:
    """Nothing acknowledged is missing or twice, refusals say what they should, and writes go on when there is room."""
    try:
        outcome = run(services, kind, tmp_path, times=1, posts=40)
    except NotMounted as error:
        pytest.skip(f"no file system may be mounted here: {error}")
    assert outcome.problems == []
    assert (outcome.found.missing, outcome.found.duplicated, outcome.times) == (0, 0, 1)
    assert outcome.work.target.refusals[EXPECTED] > 0, "nobody noticed that the disk was full"

"""Every type of problem is one that some test provokes and looks at."""

import re
from pathlib import Path

import pytest

from app.errors import PROBLEMS

ASSERTED = re.compile(r'"(?:/problems/)?([a-z0-9-]+)"')


@pytest.fixture(scope="module")
def asserted() -> set[str]:
    """Words in quotes in the tests of the service, but for this file."""
    files = [path for path in Path(__file__).parent.rglob("test_*.py") if path.name != Path(__file__).name]
    found = {word for path in files for word in ASSERTED.findall(path.read_text(encoding="utf-8"))}
    return found | {path.rpartition("/")[2] for path in found}


@pytest.mark.parametrize("slug", PROBLEMS)
def test_it_is_provoked(slug: str, asserted: set[str]) -> None:
    assert slug in asserted

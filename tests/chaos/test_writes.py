"""The write API equals a model in plain Python: the short form of `python -m tests.chaos.writes`."""

from pathlib import Path

import httpx
import pytest

from tests.chaos.lives import Nursery
from tests.chaos.writes import run


def test_the_write_api_equals_a_model(services: Nursery, tmp_path: Path, database_url: str) -> None:
    run(services, tmp_path, database_url, examples=8, steps=15)


def test_a_service_that_answers_before_it_commits_differs_from_the_model(
    services: Nursery, tmp_path: Path, sqlite_url: str
) -> None:
    """In what it stores; or its connection breaks, where a commit fails behind an answer that has left."""
    with pytest.raises((AssertionError, ExceptionGroup, httpx.ReadError)):
        run(services, tmp_path, sqlite_url, examples=3, steps=8, fault="tests.chaos.late_commit")

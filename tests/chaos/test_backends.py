"""What was acknowledged is there after Postgres crashed: the short form of `python -m tests.chaos.backends`."""

from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from tests.chaos.backends import run
from tests.chaos.databases import postgres
from tests.chaos.lives import Nursery
from tests.e2e.service import NotReady


def test_nothing_acknowledged_is_missing_after_backends_were_killed(services: Nursery, tmp_path: Path) -> None:
    with postgres() as server:
        outcome = run(services, tmp_path, server.get_uri(), kills=2, posts_between=40)
    assert outcome.found.problems == []
    assert (outcome.found.missing, outcome.found.duplicated, outcome.kills) == (0, 0, 2)
    assert outcome.work.target.tries["503"] > 0, "nobody noticed that the database was away"


async def test_a_service_does_not_start_on_a_postgres_that_would_lose_commits(
    services: Nursery, tmp_path: Path, postgres_url: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"ALTER DATABASE {make_url(postgres_url).database} SET synchronous_commit = off")
    await connection.close()
    with (
        pytest.raises(NotReady, match="synchronous_commit off: a crash would lose acknowledged writes"),
        services.life(tmp_path, database_url=postgres_url),
    ):
        pass

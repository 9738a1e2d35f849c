"""The small world of the laws for services that start in a moment: its checkpoints, and requests about it."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.app.conftest import train_into
from tests.laws.world import World, make_world

REQUESTS = 50
PATIENT = {"max_wait_seconds": 20, "max_queue": 10_000, "deadline_seconds": 60}
"""Settings for what is not about overload: on a machine that is busy with other things, requests wait."""


@cache
def world() -> World:
    """80 films, people with tastes, and the truth about both."""
    return make_world(1)


def stocked(folder: Path, *names: str) -> Path:
    """A folder with checkpoints, `content` and `bayes` unless others are named; those that are there stay."""
    for name in names or ("content", "bayes"):
        if not (folder / name).exists():
            shutil.copytree(_trained(name), folder / name)
    return folder


@cache
def _trained(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="warmstart-chaos-"))
    atexit.register(shutil.rmtree, folder)
    return train_into(folder / name, name, world())


def bodies(k: int = 10) -> list[str]:
    """Requests of newcomers with one to fifteen ratings."""
    ids = world().data.items.ids
    return [
        json.dumps(
            {
                "domain": "films",
                "support": [
                    {"item_id": ids[(7 * n + 3 * i) % len(ids)], "value": 1 + (n + i) % 5} for i in range(1 + n % 15)
                ],
                "k": k,
            }
        )
        for n in range(REQUESTS)
    ]


def rating(n: int, user_id: str | None = None) -> dict[str, Any]:
    """A rating, another for each number."""
    ids = world().data.items.ids
    return {
        "user_id": user_id or f"user-{n % 40}",
        "domain": "films",
        "item_id": ids[(11 * n) % len(ids)],
        "value": 1 + n % 5,
    }

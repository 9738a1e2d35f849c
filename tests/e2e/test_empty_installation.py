"""From nothing: a domain, items, what people do, training on it, and answers that are about the person."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.e2e.service import COMMAND, settings_as_environment, warmstart

N_ITEMS = 60
N_USERS = 300
PER_USER = 20
K = 10
ITEMS = [f"thing-{i}" for i in range(N_ITEMS)]
EVEN, ODD = ITEMS[::2], ITEMS[1::2]


def test_an_empty_installation_becomes_personal(backing: dict[str, Any], tmp_path: Path) -> None:
    """People are of two kinds: some like even things, some odd ones, and nothing about the things says which is which.

    At first the service answers from content and counts, which know nothing of that; once it has trained on what
    people did, whoever likes three even things is shown even ones, and likewise for odd.
    """
    with warmstart(tmp_path, **backing) as server, server.client() as client:
        put_catalogue(client)
        newcomer = answer(client, EVEN[:3])
        assert len(newcomer["items"]) == K
        assert newcomer["fallback"]
        post_history(client)
        assert answer(client, EVEN[:3])["fallback"]
        assert abs(evenness(client, EVEN[:3]) - evenness(client, ODD[:3])) < K / 2
        trained = train(tmp_path, backing)
        body = {"domain": "things", "checkpoint": trained}
        client.post("/v1/admin/checkpoints/reload", json=body).raise_for_status()
        made = answer(client, EVEN[:3])
        assert made["fallback"] is None
        assert [part["checkpoint"] for part in made["parts"]] == [trained]
        assert evenness(client, EVEN[:3]) >= 0.8 * K
        assert evenness(client, ODD[:3]) <= 0.2 * K


def put_catalogue(client: httpx.Client) -> None:
    domain = {"rating_min": 1, "rating_max": 5, "item_attributes": {"shade": "categorical"}}
    assert client.put("/v1/domains/things", json=domain).status_code == 201
    items = [
        {"domain": "things", "item_id": item_id, "title": f"Thing {i}", "attributes": {"shade": "abc"[i // 2 % 3]}}
        for i, item_id in enumerate(ITEMS)
    ]
    assert client.post("/v1/items", json={"items": items}).json() == {"created": N_ITEMS, "updated": 0}


def post_history(client: httpx.Client) -> None:
    """Ratings of `N_USERS` people: 4 or 5 for what they like, 1 or 2 for the rest."""
    generator = np.random.default_rng(0)
    events = [
        {
            "user_id": f"person-{user}",
            "domain": "things",
            "item_id": ITEMS[item],
            "value": int((4 if item % 2 == user % 2 else 1) + generator.integers(2)),
        }
        for user in range(N_USERS)
        for item in generator.choice(N_ITEMS, PER_USER, replace=False).tolist()
    ]
    for start in range(0, len(events), 500):
        batch = events[start : start + 500]
        response = client.post("/v1/interactions", json={"interactions": batch})
        assert response.json() == {"accepted": len(batch), "duplicates": 0}


def train(data_dir: Path, backing: dict[str, Any]) -> str:
    """Train on the installation, which goes on serving; the name of the checkpoint."""
    stock = data_dir / "checkpoints"
    subprocess.run(
        [
            *COMMAND,
            "train",
            "bayes",
            "--from-installation",
            "--out",
            str(stock),
            "--name",
            "trained",
            "--device",
            "cpu",
        ],
        env={**os.environ, **settings_as_environment(data_dir, **backing)},
        check=True,
        capture_output=True,
    )
    return "trained"


def answer(client: httpx.Client, liked: Sequence[str]) -> dict[str, Any]:
    support = [{"item_id": item_id, "value": 5} for item_id in liked]
    response = client.post("/v1/cold-start/recommendations", json={"domain": "things", "support": support, "k": K})
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    return made


def evenness(client: httpx.Client, liked: Sequence[str]) -> int:
    """Even things among the first `K`."""
    return sum(item["item_id"] in EVEN for item in answer(client, liked)["items"])

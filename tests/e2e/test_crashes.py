"""What was acknowledged is there after the power goes."""

import threading
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.service import warmstart

KILLS = 3
BEFORE_A_KILL = 60
"""Acknowledged batches after which the service is killed."""
WRITERS = 4


class Writer(threading.Thread):
    """Posts batches of two events until the service is gone; remembers those that were acknowledged."""

    def __init__(self, url: str, name: str, enough: threading.Semaphore) -> None:
        super().__init__(name=name)
        self.url = url
        self.enough = enough
        self.acknowledged: list[str] = []
        self.sent: list[str] = []

    def event(self, event_id: str) -> dict[str, Any]:
        """An event about an item of its own."""
        return {"event_id": event_id, "user_id": self.name, "domain": "shop", "item_id": event_id, "value": 3}

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=10) as client:
            for n in range(100_000):
                events = [f"{self.name}-{n}-{half}" for half in range(2)]
                body = {"interactions": [self.event(event_id) for event_id in events]}
                self.sent += events
                try:
                    response = client.post("/v1/interactions", json=body)
                except httpx.TransportError:
                    return
                assert response.status_code == 201, response.text
                self.acknowledged += events
                self.enough.release()


def test_nothing_acknowledged_is_missing_after_kills(tmp_path: Path) -> None:
    """The service is killed (SIGKILL) again and again while events are posted; each time all that it took is there.

    Nothing is there that was not sent, and of a batch both halves or none.
    """
    writers: list[Writer] = []
    for kill in range(KILLS):
        with warmstart(tmp_path) as server:
            with server.client() as client:
                if not kill:
                    assert client.put("/v1/domains/shop", json={}).status_code == 201
                check(client, writers)
            enough = threading.Semaphore(0)
            started = [Writer(server.url, f"w{kill}-{n}", enough) for n in range(WRITERS)]
            writers += started
            for writer in started:
                writer.start()
            for _ in range(BEFORE_A_KILL):
                enough.acquire(timeout=30)
            server.kill()
            for writer in started:
                writer.join()
    with warmstart(tmp_path) as server, server.client() as client:
        check(client, writers)
    assert sum(len(writer.acknowledged) for writer in writers) >= 2 * KILLS * BEFORE_A_KILL


def check(client: httpx.Client, writers: list[Writer]) -> None:
    """What is stored is what was acknowledged, with perhaps the one batch of each writer that was under way."""
    stored = set(listed(client))
    assert stored <= {event_id for writer in writers for event_id in writer.sent}
    batches = {event_id.rpartition("-")[0] for event_id in stored}
    assert stored == {f"{batch}-{half}" for batch in batches for half in range(2)}
    for writer in writers:
        assert set(writer.acknowledged) <= stored
        for start in range(0, len(writer.acknowledged), 500):
            again = [writer.event(event_id) for event_id in writer.acknowledged[start : start + 500]]
            response = client.post("/v1/interactions", json={"interactions": again})
            assert response.json() == {"accepted": 0, "duplicates": len(again)}


def listed(client: httpx.Client) -> list[str]:
    """Ids of all items: each event was about one of its own, created along with it."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/v1/items/shop", params={"limit": 100, **cursor}).raise_for_status().json()
        found += [item["item_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}

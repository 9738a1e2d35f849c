"""Requests that are sent again until they are acknowledged, to a service that comes and goes."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

PATIENCE_SECONDS = 120.0
"""Longest time for which the same request is sent again."""
PAUSE_SECONDS = 0.02
AGAIN = (429, 503)
"""Answers that ask for another try. All others but 2xx are mistakes."""


class GaveUp(Exception):
    """A request that was refused, or not answered for too long."""


@dataclass
class Target:
    """Where the service is, and what senders saw of it; shared by their threads."""

    url: str | None = None
    """None while it is down."""
    refused: list[str] = field(default_factory=list)
    """Answers that should not have been."""
    tries: Counter[str] = field(default_factory=Counter)
    """What became of each try: its status, or `lost` where no answer came."""
    refusals: Counter[str] = field(default_factory=Counter)
    """The problems of those that ask for another try: status, type, and whether they say when."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def saw(self, what: str) -> None:
        """Count a try."""
        with self.lock:
            self.tries[what] += 1

    def saw_refusal(self, response: httpx.Response) -> None:
        """Count an answer that asks for another try."""
        kind = response.json()["type"].removeprefix("/problems/")
        when = "Retry-After" if "retry-after" in response.headers else "nothing of when"
        with self.lock:
            self.refusals[f"{response.status_code} {kind}, {when}"] += 1


@dataclass(frozen=True)
class Sender:
    """Sends to one target over connections of its own. For one thread."""

    target: Target
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30, trust_env=False))

    def send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """The 2xx answer, however often it takes. Raises GaveUp, and puts on record why."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            url = self.target.url
            if url is None:
                time.sleep(PAUSE_SECONDS)
                continue
            try:
                response = self.client.request(method, f"{url}{path}", json=body)
            except httpx.TransportError:
                self.target.saw("lost")
                time.sleep(PAUSE_SECONDS)
                continue
            self.target.saw(str(response.status_code))
            if response.is_success:
                return response
            if response.status_code not in AGAIN:
                raise self._given_up(f"{method} {path}: {response.status_code} {response.text[:300]}")
            self.target.saw_refusal(response)
            time.sleep(PAUSE_SECONDS)
        raise self._given_up(f"{method} {path}: not acknowledged within {PATIENCE_SECONDS:g} s")

    def post(self, path: str, body: Any) -> Any:
        """The decoded 2xx answer to a POST."""
        return self.send("POST", path, body).json()

    def _given_up(self, why: str) -> GaveUp:
        with self.target.lock:
            self.target.refused.append(why)
        return GaveUp(why)

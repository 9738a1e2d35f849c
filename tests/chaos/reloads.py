"""A hundred reloads, half of them of harmed checkpoints, under load: `python -m tests.chaos.reloads [--reloads 100]`.

`tests.e2e.reload_under_load` with a harmed checkpoint asked for after each change: truncated, not finite, not what was
saved, of another version, with a pickle in place of the weights. Once embedded, once with two workers on Postgres and
Valkey, which must all follow within 5 s. No request may fail, every answer must be that of the checkpoint it names, no
harmed checkpoint may be taken. In the end twenty reloads at the same moment, at whichever workers, must come to one
load in each of them, and memory must be back within 10 %.
"""

import argparse
import hashlib
import json
import pickle
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import httpx
import torch
from safetensors.torch import load_file, save_file

from models.checkpoint import PARTS
from models.datasets.fetch import fetch
from tests.chaos.databases import scratch
from tests.chaos.shutdown import production
from tests.chaos.world import PATIENT
from tests.e2e.movies import prepare
from tests.e2e.reload_under_load import CONVERGENCE_SECONDS, PATH, run

AT_ONCE = 20


def harm(stock: Path) -> Sequence[str]:
    """Put harmed copies of `bayes-b` beside it; their names."""
    for name, spoil in HARMS.items():
        path = Path(shutil.copytree(stock / "bayes-b", stock / name))
        spoil(path)
    return [*HARMS]


def _truncated(path: Path) -> None:
    content = (path / "weights.safetensors").read_bytes()
    (path / "weights.safetensors").write_bytes(content[: len(content) // 2])
    _seal(path)


def _not_finite(path: Path) -> None:
    tensors = load_file(path / "items.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[0] = torch.nan
    save_file(tensors, path / "items.safetensors")
    _seal(path)


def _not_what_was_saved(path: Path) -> None:
    content = bytearray((path / "items.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "items.safetensors").write_bytes(content)


def _of_another_version(path: Path) -> None:
    card = json.loads((path / "card.json").read_text())
    (path / "card.json").write_text(json.dumps(card | {"format_version": 99}))
    _seal(path)


def _pickled(path: Path) -> None:
    (path / "weights.safetensors").write_bytes(pickle.dumps({"weights": [1.0]}))
    _seal(path)


def _seal(path: Path) -> None:
    """Digests of what is there now: what somebody who tampers would write."""
    digests = {part: hashlib.sha256((path / part).read_bytes()).hexdigest() for part in PARTS}
    (path / "digests.json").write_text(json.dumps(digests))


HARMS: dict[str, Callable[[Path], None]] = {
    "harmed-truncated": _truncated,
    "harmed-not-finite": _not_finite,
    "harmed-not-what-was-saved": _not_what_was_saved,
    "harmed-other-version": _of_another_version,
    "harmed-pickle": _pickled,
}


@dataclass(frozen=True)
class Parallel:
    """What became of twenty reloads of one checkpoint at the same moment."""

    statuses: Counter[int]
    loads: int
    """On all workers together."""


def at_once(client: httpx.Client) -> Parallel:
    """Reload what is not in service, over connections of their own, which land on any worker."""
    body = {"domain": "movies", "checkpoint": "bayes-a"}
    (served,) = client.post(PATH, json={"domain": "movies"}).raise_for_status().json()["parts"]
    if served["checkpoint"] == body["checkpoint"]:
        body["checkpoint"] = "bayes-b"
    before = loads(client)

    def reload(_: int) -> int:
        with httpx.Client(base_url=client.base_url, timeout=60, trust_env=False) as other:
            return other.post("/v1/admin/checkpoints/reload", json=body).status_code

    with ThreadPoolExecutor(AT_ONCE) as pool:
        statuses = Counter(pool.map(reload, range(AT_ONCE)))
    time.sleep(CONVERGENCE_SECONDS)
    return Parallel(statuses, loads(client) - before)


def loads(client: httpx.Client) -> int:
    """Checkpoints that all workers have taken into service so far."""
    found = re.search(r'^warmstart_reloads_total{result="ok"} (.*)$', client.get("/metrics").text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description="reloads under load, half of them of harmed checkpoints")
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--backing", choices=["embedded", "production", "both"], default="both")
    parser.add_argument("--data", type=Path, default=Path("var/datasets/movielens-100k"))
    arguments = parser.parse_args()
    failed = False
    with scratch() as folder:
        movies = prepare(fetch("movielens-100k", arguments.data), folder, ["bayes-a", "bayes-b"])
        for name in ("embedded", "production") if arguments.backing == "both" else (arguments.backing,):
            parallel: list[Parallel] = []
            with production(folder) if name == "production" else nullcontext({}) as backing:
                outcome = run(
                    movies,
                    folder / name,
                    seconds=arguments.seconds,
                    rate=arguments.rate,
                    changes=arguments.reloads // 2,
                    harmed=harm,
                    after=lambda client: parallel.append(at_once(client)),  # noqa: B023 - called within the run
                    **PATIENT,
                    **backing,
                )
            mistakes = outcome.mistakes()
            before, after = (size / 1e6 for size in outcome.resident)
            refused = sum(answer.status != 200 for answer in outcome.answers)
            print(
                f"{name}: {len(outcome.answers)} requests at {arguments.rate:g}/s, {len(outcome.changes)} reloads and"
                f" rollbacks, as many of harmed checkpoints, {len(outcome.taken)} of them taken; not 200: {refused},"
                f" mistakes in all: {len(mistakes)}; workers followed within {outcome.convergence():.2f} s; memory"
                f" {before:.0f} MB before, {after:.0f} MB after; {AT_ONCE} reloads at once:"
                f" {dict(sorted(parallel[0].statuses.items()))}, {parallel[0].loads} loads; p50"
                f" {outcome.latency_ms(0.5):.1f} ms, p99 {outcome.latency_ms(0.99):.1f} ms",
                flush=True,
            )
            for mistake in mistakes[:5]:
                print(mistake)
            failed |= bool(mistakes) or after > 1.1 * before or parallel[0].loads != backing.get("workers", 1)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()

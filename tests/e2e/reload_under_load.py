"""Checkpoints change while requests pour in: nothing is refused, no answer is a mixture.

    python -m tests.e2e.reload_under_load [--seconds 20] [--rate 200] [--changes 10]

One embedded service, two `bayes` checkpoints of MovieLens-100K. Reloads and rollbacks take turns; every answer must
name the digest of one of the two and be that checkpoint's own, as it was given before in quiet; and whoever asks after
a change was acknowledged gets the new one.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from models.datasets.fetch import fetch
from tests.e2e.movies import Movies, prepare
from tests.e2e.open_loop import Answer, Job, Load
from tests.e2e.service import warmstart

PATH = "/v1/cold-start/recommendations"
K = 10
BEYOND = 3 * K
"""Length of the lists to compare with: an item tied with the last of ten must be among them."""
TOLERANCE = 1e-3
"""Scores are rounded to four digits, and arithmetic in batches differs in the last of them."""
REQUESTS = 40

Slate = list[tuple[str, float]]


@dataclass(frozen=True)
class Change:
    """A reload or a rollback: when it was asked for, when it was acknowledged, what answers since."""

    asked: float
    acknowledged: float
    digest: str


@dataclass(frozen=True)
class Outcome:
    """What was seen."""

    answers: list[Answer]
    changes: list[Change]
    golden: Mapping[str, list[Slate]]
    """Digest → what that checkpoint answers to each request, to `BEYOND` places."""

    def mistakes(self) -> list[str]:
        """Everything that should not have been; empty is good."""
        found = [f"status {answer.status}: {answer.body[:200]}" for answer in self.answers if answer.status != 200]
        for answer in self.answers:
            if answer.status == 200:
                found += self._mistakes_in(answer)
        return found

    def _mistakes_in(self, answer: Answer) -> list[str]:
        body = json.loads(answer.body)
        digests = [part["digest"] for part in body["parts"]]
        if len(digests) != 1 or digests[0] not in self.golden:
            return [f"answered by {digests}"]
        own = self.golden[digests[0]][answer.request]
        found = []
        if not same(slate_of(body), own):
            found.append(f"{digests[0][:8]} answered {slate_of(body)}, its own answer is {own[:K]}")
        for change, following in zip(self.changes, [*self.changes[1:], None], strict=True):
            undisturbed = answer.sent > change.acknowledged and (following is None or answer.done < following.asked)
            if undisturbed and digests[0] != change.digest:
                found.append(f"{digests[0][:8]} answered after {change.digest[:8]} was acknowledged")
        return found

    def by_digest(self) -> Counter[str]:
        """How many answers each checkpoint gave."""
        return Counter(json.loads(a.body)["parts"][0]["digest"] for a in self.answers if a.status == 200)

    def latency_ms(self, quantile: float) -> float:
        """Of the answers, from the moment they were due."""
        return float(1e3 * np.quantile([answer.done - answer.due for answer in self.answers], quantile))


def same(given: Slate, own: Slate) -> bool:
    """Whether a list is a checkpoint's own, up to the order of items whose scores differ by less than `TOLERANCE`."""
    scores = dict(own)
    return len(given) == K and all(
        abs(score - own[place][1]) <= TOLERANCE and abs(score - scores.get(item_id, np.inf)) <= TOLERANCE
        for place, (item_id, score) in enumerate(given)
    )


def slate_of(body: Mapping[str, Any]) -> Slate:
    """(item id, score) of an answer."""
    return [(item["item_id"], item["score"]) for item in body["items"]]


def run(movies: Movies, folder: Path, *, seconds: float, rate: float, changes: int) -> Outcome:
    """Start a service in `folder`, record each checkpoint's own answers, then change them under load."""
    stock = movies.stock(folder / "checkpoints", "bayes-a")
    with warmstart(folder, checkpoint_dir=stock) as server, server.client() as client:
        movies.stock(stock, "bayes-b")
        bodies = questions(movies)
        golden = {}
        for _ in range(2):
            listed = [ask(client, {**body, "k": BEYOND}) for body in bodies]
            golden[listed[0]["parts"][0]["digest"]] = [slate_of(answer) for answer in listed]
            change(client, len(golden) - 1)
        texts = [json.dumps({**body, "k": K}) for body in bodies]
        load = Load(Job(port=server.port, path=PATH, bodies=texts, rate=rate, seconds=seconds))
        load.started()
        began = time.monotonic()
        made = []
        for n in range(changes):
            time.sleep(max(0.0, began + seconds * (n + 0.5) / changes - time.monotonic()))
            made.append(change(client, n))
        return Outcome(load.answers(), made, golden)


def change(client: httpx.Client, n: int) -> Change:
    """Reload `bayes-b`, or roll back to `bayes-a`, by turns."""
    reload: tuple[str, Any] = ("reload", {"domain": "movies", "checkpoint": "bayes-b"})
    rollback = ("rollback", {"domain": "movies", "role": "collaborative"})
    verb, body = rollback if n % 2 else reload
    asked = time.monotonic()
    response = client.post(f"/v1/admin/checkpoints/{verb}", json=body)
    response.raise_for_status()
    return Change(asked, time.monotonic(), response.json()["digest"])


def ask(client: httpx.Client, body: Mapping[str, Any]) -> dict[str, Any]:
    """One cold-start answer."""
    answer: dict[str, Any] = client.post(PATH, json=body).raise_for_status().json()
    return answer


def questions(movies: Movies) -> Sequence[dict[str, Any]]:
    """Cold-start requests with the first ratings of held-out users, from one to fifteen."""
    return [
        {
            "domain": "movies",
            "support": [{"item_id": item_id, "value": value} for item_id, value in movies.ratings(user)[: 1 + n % 15]],
        }
        for n, user in enumerate(movies.held_out[:REQUESTS])
    ]


def main(
    seconds: Annotated[float, typer.Option(help="Length.")] = 20.0,
    rate: Annotated[float, typer.Option(help="Requests a second.")] = 200.0,
    changes: Annotated[int, typer.Option(help="Reloads and rollbacks, by turns.")] = 10,
    data: Annotated[Path, typer.Option(help="Folder of MovieLens-100K; fetched where it is not there.")] = Path(
        "var/datasets/movielens-100k"
    ),
) -> None:
    """Print what was seen; exit with 1 where anything went wrong."""
    with tempfile.TemporaryDirectory(prefix="warmstart-reload-") as name:
        movies = prepare(fetch("movielens-100k", data), Path(name), ["bayes-a", "bayes-b"])
        outcome = run(movies, Path(name) / "service", seconds=seconds, rate=rate, changes=changes)
    mistakes = outcome.mistakes()
    took = [1e3 * (made.acknowledged - made.asked) for made in outcome.changes]
    print(f"{len(outcome.answers)} requests at {rate:g}/s, {changes} reloads and rollbacks of {np.mean(took):.0f} ms")
    print(f"not 200: {sum(answer.status != 200 for answer in outcome.answers)}, mistakes in all: {len(mistakes)}")
    print("answers by digest: " + ", ".join(f"{d[:8]} {n}" for d, n in sorted(outcome.by_digest().items())))
    print(f"latency ms: p50 {outcome.latency_ms(0.5):.1f}, p99 {outcome.latency_ms(0.99):.1f}")
    for mistake in mistakes[:10]:
        print(mistake)
    raise typer.Exit(bool(mistakes))


if __name__ == "__main__":
    typer.run(main)

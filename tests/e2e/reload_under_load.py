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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from models.datasets.fetch import fetch
from tests.e2e.movies import Movies, prepare
from tests.e2e.open_loop import Answer, Job, Load
from tests.e2e.service import Server, warmstart

PATH = "/v1/cold-start/recommendations"
K = 10
BEYOND = 3 * K
"""Length of the lists to compare with: an item tied with the last of ten must be among them."""
TOLERANCE = 1e-3
"""Scores are rounded to four digits, and arithmetic in batches differs in the last of them."""
REQUESTS = 40
CONVERGENCE_SECONDS = 5.0
"""Time in which every worker follows a reload."""

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
    grace: float = 0.0
    """Seconds that other workers than the one that was asked may take to follow."""
    taken: Sequence[str] = ()
    """What was wrong with checkpoints in service: harmed ones that were not refused, old ones in the end."""
    resident: Sequence[int] = ()
    """Bytes of memory before the changes and after them."""

    def mistakes(self) -> list[str]:
        """Everything that should not have been; empty is good."""
        found = [f"status {answer.status}: {answer.body[:200]}" for answer in self.answers if answer.status != 200]
        found += [f"not as it should be: {told}" for told in self.taken]
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
            undisturbed = answer.sent > change.acknowledged + self.grace and (
                following is None or answer.done < following.asked
            )
            if undisturbed and digests[0] != change.digest:
                found.append(f"{digests[0][:8]} answered after {change.digest[:8]} was acknowledged")
        return found

    def convergence(self) -> float:
        """The longest time, in seconds, after which a change had not reached whoever was asked."""
        late = [0.0]
        digests = [json.loads(a.body)["parts"][0]["digest"] if a.status == 200 else "" for a in self.answers]
        for change, following in zip(self.changes, [*self.changes[1:], None], strict=True):
            for answer, digest in zip(self.answers, digests, strict=True):
                current = answer.sent > change.acknowledged and (following is None or answer.done < following.asked)
                if current and digest != change.digest:
                    late.append(answer.sent - change.acknowledged)
        return max(late)

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


def run(
    movies: Movies,
    folder: Path,
    *,
    seconds: float,
    rate: float,
    changes: int,
    harmed: Callable[[Path], Sequence[str]] = lambda stock: (),
    after: Callable[[httpx.Client], object] = lambda client: None,
    **settings: Any,
) -> Outcome:
    """Start a service in `folder`, record each checkpoint's own answers, then change them under load.

    `harmed` puts checkpoints that must be refused beside the good ones; one of them is asked for with each change.
    `after` is called in the end. `settings` as for `warmstart`.
    """
    stock = movies.stock(folder / "checkpoints", "bayes-a")
    with warmstart(folder, checkpoint_dir=stock, **settings) as server, server.client() as client:
        movies.stock(stock, "bayes-b")
        bad = harmed(stock)
        bodies = questions(movies)
        golden = {}
        for _ in range(2):
            listed = [ask(client, {**body, "k": BEYOND}) for body in bodies]
            golden[listed[0]["parts"][0]["digest"]] = [slate_of(answer) for answer in listed]
            change(client, len(golden) - 1)
            settled(settings)
        texts = [json.dumps({**body, "k": K}) for body in bodies]
        load = Load(Job(port=server.port, path=PATH, bodies=texts, rate=rate, seconds=seconds))
        load.started()
        resident = [server.resident_bytes()]
        began = time.monotonic()
        made, taken = [], []
        for n in range(changes):
            time.sleep(max(0.0, began + seconds * (n + 0.5) / changes - time.monotonic()))
            made.append(change(client, n))
            if bad:
                taken += refusal(client, bad[n % len(bad)])
        answers = load.answers()
        resident.append(server.resident_bytes())
        settled(settings)
        taken += laggards(server, bodies[0], made[-1].digest)
        after(client)
        grace = CONVERGENCE_SECONDS if settings.get("workers", 1) > 1 else 0.0
        return Outcome(answers, made, golden, grace, taken, resident)


def settled(settings: Mapping[str, Any]) -> None:
    """Wait until other workers have followed, where there are any."""
    if settings.get("workers", 1) > 1:
        time.sleep(CONVERGENCE_SECONDS)


def laggards(server: Server, body: Mapping[str, Any], digest: str) -> list[str]:
    """What connections of their own, which land on any worker, say of a checkpoint that should answer everywhere."""
    found = []
    for _ in range(16):
        with server.client() as client:
            given = ask(client, {**body, "k": K})["parts"][0]["digest"]
        found += [f"{given[:8]} still in service"] if given != digest else []
    return found


def refusal(client: httpx.Client, name: str) -> list[str]:
    """Ask for a harmed checkpoint; what is wrong with the answer."""
    response = client.post("/v1/admin/checkpoints/reload", json={"domain": "movies", "checkpoint": name})
    refused = response.status_code == 422 and response.json()["type"].startswith("/problems/checkpoint-")
    return [] if refused else [f"{name}: {response.status_code} {response.text[:100]}"]


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

"""Cold-start answers over HTTP, as a share of what a bare FastAPI application answers on the same machine.

    python -m benchmarks.serving [--seconds 4] [--rounds 3] [--connections 1,32,256] [--recommender maml] [--json PATH]

The service runs as it does for anybody: SQLite with synchronous FULL, each slate committed before its answer, one
`maml` checkpoint whose head adapts in closed form, over a catalogue as large as MovieLens-1M's. A request carries 20
ratings and asks for 10 items. The bare application (`benchmarks.bare`) answers {"ok": true} to the same bodies, parsed,
and to a GET without any. Rounds are interleaved, so that whatever else the machine does falls on all of them.
"""

import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from app.commands.train import train_checkpoint
from benchmarks.closed_loop import Job, Result, request, run
from models.datasets.dataset import Dataset
from models.datasets.description import Description, DomainDescription
from models.datasets.folder import Tables, write
from tests.e2e.service import serving, warmstart

N_ITEMS = 3706
"""Items with ratings in MovieLens-1M."""
N_USERS = 600
"""Speed does not depend on how many users taught the weights, so there are few."""
RATINGS = 30
SUPPORT = 20
K = 10
GENRES = tuple(f"genre {i}" for i in range(18))
BODIES = 256
"""Different requests, sent in turn."""
BARE = ("uvicorn", "benchmarks.bare:app", "--port", "{port}", "--no-access-log", "--log-level", "warning")


@dataclass(frozen=True)
class Line:
    """One server at one number of connections: medians over the rounds."""

    server: str
    connections: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    share_of_bare_post: float
    refused: int


def main(
    seconds: Annotated[float, typer.Option(help="Length of one round.")] = 4.0,
    rounds: Annotated[int, typer.Option(help="Rounds of each.")] = 3,
    connections: Annotated[str, typer.Option(help="Numbers of connections.")] = "1,32,256",
    recommender: Annotated[str, typer.Option(help="What the checkpoint is.")] = "maml",
    json_path: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Measure, print a table."""
    counts = [int(n) for n in connections.split(",")]
    with tempfile.TemporaryDirectory(prefix="warmstart-bench-") as folder:
        lines = measure(Path(folder), recommender, counts, seconds, rounds)
    show(lines, recommender)
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(line) for line in lines], indent=2), encoding="utf-8")


def measure(folder: Path, recommender: str, counts: list[int], seconds: float, rounds: int) -> list[Line]:
    """Start the servers and send `rounds` rounds to each, in turn, for each number of connections."""
    data = write(synthetic(), folder / "data")
    settings = {"epochs": 1} if recommender == "maml" else {}
    train_checkpoint(recommender, settings, data, folder / "checkpoints", device="cpu")
    bodies = [json.dumps(body, separators=(",", ":")).encode() for body in questions(data)]
    with ExitStack() as servers:
        bare = servers.enter_context(serving([sys.executable, "-m", *BARE], folder / "bare.log", ready="/ready"))
        service = servers.enter_context(warmstart(folder, log_level="warning"))
        jobs = {
            "bare GET": (bare.port, [request("GET", "/ready")]),
            "bare POST": (bare.port, [request("POST", "/answer", body) for body in bodies]),
            "cold start": (service.port, [request("POST", "/v1/cold-start/recommendations", body) for body in bodies]),
        }
        lines = []
        for n in counts:
            results: dict[str, list[Result]] = {name: [] for name in jobs}
            for _ in range(rounds):
                for name, (port, requests) in jobs.items():
                    results[name].append(run(Job(port=port, requests=requests, connections=n, seconds=seconds)))
            yardstick = statistics.median(result.rate for result in results["bare POST"])
            lines += [_line(name, n, made, yardstick) for name, made in results.items()]
        return lines


def show(lines: list[Line], recommender: str) -> None:
    """Print the table."""
    table = Table("server", "connections", "requests/s", "p50 ms", "p99 ms", "share of bare POST", "refused")
    for line in lines:
        table.add_row(
            line.server,
            str(line.connections),
            f"{line.requests_per_second:.0f}",
            f"{line.p50_ms:.2f}",
            f"{line.p99_ms:.2f}",
            f"{line.share_of_bare_post:.3f}",
            str(line.refused),
        )
    console = Console()
    console.print(f"{recommender}, {N_ITEMS} items, {SUPPORT} support ratings, top {K}, slates committed to SQLite")
    console.print(table)


def synthetic() -> Tables:
    """Random ratings on a catalogue of MovieLens-1M's size and form."""
    generator = np.random.default_rng(0)
    rated = np.concatenate([generator.choice(N_ITEMS, RATINGS, replace=False) for _ in range(N_USERS)])
    genres = ["|".join(generator.choice(GENRES, generator.integers(1, 4), replace=False)) for _ in range(N_ITEMS)]
    attributes = {"genres": "multi", "year": "numeric"}
    return Tables(
        Description(
            name="synthetic",
            domains={"movies": DomainDescription(rating_min=1, rating_max=5, item_attributes=attributes)},
        ),
        pl.DataFrame(
            {
                "user_id": np.repeat([f"u{u}" for u in range(N_USERS)], RATINGS),
                "domain": ["movies"] * len(rated),
                "item_id": [str(i) for i in rated],
                "value": generator.integers(1, 6, len(rated)),
            }
        ),
        None,
        pl.DataFrame(
            {
                "domain": ["movies"] * N_ITEMS,
                "item_id": [str(i) for i in range(N_ITEMS)],
                "title": [f"A Film of Some Name, Part {i}" for i in range(N_ITEMS)],
                "genres": genres,
                "year": generator.integers(1930, 2001, N_ITEMS),
            }
        ),
    )


def questions(data: Dataset) -> list[dict[str, object]]:
    """Bodies of cold-start requests with random support."""
    generator = np.random.default_rng(1)
    return [
        {
            "domain": "movies",
            "support": [
                {"item_id": data.items.ids[item], "value": int(value)}
                for item, value in zip(
                    generator.choice(data.n_items, SUPPORT, replace=False),
                    generator.integers(1, 6, SUPPORT),
                    strict=True,
                )
            ],
            "k": K,
        }
        for _ in range(BODIES)
    ]


def _line(server: str, connections: int, results: list[Result], yardstick: float) -> Line:
    def median(figures: list[float]) -> float:
        return float(statistics.median(figures))

    rate = median([result.rate for result in results])
    return Line(
        server,
        connections,
        round(rate, 1),
        round(1e3 * median([np.quantile(result.latencies, 0.5) for result in results]), 3),
        round(1e3 * median([np.quantile(result.latencies, 0.99) for result in results]), 3),
        round(rate / yardstick, 4),
        sum(result.refused for result in results),
    )


if __name__ == "__main__":
    typer.run(main)

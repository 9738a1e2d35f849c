"""How soon a running service knows new items: the error of its predictions after 0, 1, 3 and 10 of their ratings.

    python -m tests.e2e.new_items --data DIR [--items 150] [--recommenders bayes content+bayes …]

Films are held out of a data set, recommenders are trained on the rest, and a service starts with what all people did
with the other films. Then the held-out films are put with their content, ten people who rated each of them post their
ratings over HTTP, a few at a time, and in between the service predicts what others gave these films.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl

from app.commands.train import train_checkpoint
from app.services.exchange import import_folder
from app.storage.database import Database
from models.datasets.dataset import Dataset
from models.datasets.description import read_description
from models.datasets.folder import Tables, read, write
from tests.e2e.service import Server, warmstart

RATINGS = (0, 1, 3, 10)
"""Ratings of each new item that have been posted when predictions are asked for."""
JUDGES = 20
"""People, at most, whose own rating of a new item is predicted."""
LEARN_SECONDS = 0.2
PATIENCE_SECONDS = 120.0
CLIENTS = 4


@dataclass(frozen=True)
class NewItem:
    """An item that nobody has met."""

    item_id: str
    title: str
    attributes: dict[str, Any]
    raters: list[tuple[str, float]]
    """(user id, rating) of those who post theirs, in this order."""
    judges: list[tuple[str, float]]
    """The same of those whose rating is predicted."""


@dataclass(frozen=True)
class Premiere:
    """A data set without some items, checkpoints trained on it, and those items."""

    domain: str
    training_folder: Path
    checkpoints: Path
    """A folder of checkpoints for each line-up."""
    items: list[NewItem]

    def ratings(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Events: the ratings of each item from its `start`th to before its `stop`th."""
        return [
            {"user_id": user_id, "domain": self.domain, "item_id": item.item_id, "value": value}
            for item in self.items
            for user_id, value in item.raters[start:stop]
        ]

    def judged(self) -> dict[str, list[tuple[str, float]]]:
        """User id → (item id, rating) that the user gave."""
        asked: dict[str, list[tuple[str, float]]] = {}
        for item in self.items:
            for user_id, value in item.judges:
                asked.setdefault(user_id, []).append((item.item_id, value))
        return asked


def prepare(full: Path, folder: Path, n_items: int, line_ups: Sequence[str], seed: int = 0) -> Premiere:
    """Hold `n_items` items of a data set of one domain out and train on the rest.

    A line-up is one recommender or several (`content+bayes`), which then answer together.
    """
    data = read(full)
    generator = np.random.default_rng(seed)
    seen = data.interactions
    counts = np.bincount(seen.items.numpy(), minlength=data.n_items)
    held = generator.choice(np.flatnonzero(counts >= max(RATINGS) + JUDGES), n_items, replace=False)
    items = [_new_item(data, item, generator) for item in held.tolist()]
    out = [item.item_id for item in items]
    training_folder = folder / "training"
    tables = {
        name: pl.read_csv(full / f"{name}.csv", infer_schema=False) for name in ("interactions", "users", "items")
    }
    write(
        Tables(
            read_description(full),
            tables["interactions"].filter(~pl.col("item_id").is_in(out)),
            tables["users"],
            tables["items"].filter(~pl.col("item_id").is_in(out)),
        ),
        training_folder,
    )
    training = read(training_folder)
    for line_up in line_ups:
        for recommender in line_up.split("+"):
            train_checkpoint(recommender, {}, training, folder / line_up, name=recommender, device="cpu")
    return Premiere(data.schema.domains[0].name, training_folder, folder, items)


def _new_item(data: Dataset, item: int, generator: np.random.Generator) -> NewItem:
    seen = data.interactions
    rows = generator.permutation(np.flatnonzero(seen.items.numpy() == item))
    people = [(data.user_ids[int(seen.users[row])], float(seen.values[row])) for row in rows.tolist()]
    raters, judges = people[: max(RATINGS)], people[max(RATINGS) :][:JUDGES]
    title, attributes = data.items.titles[item], dict(data.items.attributes[item])
    return NewItem(data.items.ids[item], title, attributes, raters, judges)


@contextmanager
def opening(premiere: Premiere, line_up: str, data_dir: Path, **settings: Any) -> Iterator[Server]:
    """A service with a line-up of checkpoints, that knows what people did with the other items."""
    chosen = {"learn_seconds": LEARN_SECONDS, "checkpoint_dir": premiere.checkpoints / line_up, **settings}
    data_dir.mkdir(parents=True, exist_ok=True)
    asyncio.run(_fill(settings.get("database_url", f"sqlite:///{data_dir / 'warmstart.db'}"), premiere.training_folder))
    with warmstart(data_dir, **chosen) as server:
        yield server


async def _fill(url: str, folder: Path) -> None:
    database = await Database.open(url)
    try:
        await database.upgrade()
        await import_folder(database, folder)
    finally:
        await database.close()


def put(client: httpx.Client, premiere: Premiere) -> None:
    """Add the new items with what is known of them."""
    items = [
        {"domain": premiere.domain, "item_id": item.item_id, "title": item.title, "attributes": item.attributes}
        for item in premiere.items
    ]
    client.post("/v1/items", json={"items": items}).raise_for_status()


def post(client: httpx.Client, events: Sequence[Mapping[str, Any]], watched: Sequence[httpx.Client]) -> None:
    """Post events, each item's in one batch, and wait until the rows of all these items have been learnt.

    `watched` are clients of all the services that are to learn them, of one worker and one checkpoint for each of
    their line-up's recommenders.
    """
    by_item: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        by_item.setdefault(event["item_id"], []).append(event)
    before = [learnt_rows(one) for one in watched]
    batch: list[Mapping[str, Any]] = []
    for some in [*by_item.values(), []]:
        if batch and (not some or len(batch) + len(some) > 500):
            client.post("/v1/interactions", json={"interactions": batch}).raise_for_status()
            batch = []
        batch += some
    deadline = time.monotonic() + PATIENCE_SECONDS
    for one, start in zip(watched, before, strict=True):
        parts = len(one.get("/v1/admin/checkpoints").json())
        while learnt_rows(one) < start + parts * len(by_item):
            assert time.monotonic() < deadline, "the rows were not learnt in time"
            time.sleep(0.05)


def learnt_rows(client: httpx.Client) -> int:
    """Rows that a service has learnt since its start."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("warmstart_item_rows_learnt_total "):
            return int(float(line.split()[1]))
    return 0


def predictions(client: httpx.Client, premiere: Premiere) -> dict[tuple[str, str], float]:
    """(user id, item id) → what the service says that the judges gave the new items."""

    def ask(entry: tuple[str, list[tuple[str, float]]]) -> dict[tuple[str, str], float]:
        user_id, asked = entry
        body = {"domain": premiere.domain, "user_id": user_id, "items": [item_id for item_id, _ in asked]}
        response = client.post("/v1/predictions", json=body)
        assert response.status_code == 200, response.text
        return {(user_id, one["item_id"]): one["rating"] for one in response.json()["predictions"]}

    with ThreadPoolExecutor(CLIENTS) as pool:
        return {key: rating for answer in pool.map(ask, premiere.judged().items()) for key, rating in answer.items()}


def rmse(predicted: Mapping[tuple[str, str], float], premiere: Premiere) -> float:
    """Root mean squared error over all judges and items."""
    errors = [
        predicted[user_id, item_id] - value for user_id, asked in premiere.judged().items() for item_id, value in asked
    ]
    return float(np.sqrt(np.mean(np.square(errors))))


def course(client: httpx.Client, premiere: Premiere) -> list[float]:
    """The error after each number of `RATINGS`."""
    put(client, premiere)
    errors = []
    for start, stop in zip((0, *RATINGS), RATINGS, strict=False):
        if stop:
            post(client, premiere.ratings(start, stop), [client])
        errors.append(rmse(predictions(client, premiere), premiere))
    return errors


def told(line_up: str, errors: Sequence[float]) -> str:
    """A line of the table."""
    return f"{line_up:<16}" + "".join(f"{error:>9.4f}" for error in errors)


def main() -> None:
    """Print a table: a line for each line-up, a column for each number of ratings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=int, default=150)
    parser.add_argument(
        "--recommenders", nargs="+", default=["popularity", "bias", "mf", "content", "bayes", "content+bayes"]
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as aside:
        premiere = prepare(given.data, Path(aside), given.items, given.recommenders)
        n = sum(len(item.judges) for item in premiere.items)
        print(f"{read_description(given.data).name}: {len(premiere.items)} new items, RMSE of {n} predictions")
        print(f"{'ratings of each':<16}" + "".join(f"{k:>9}" for k in RATINGS))
        for line_up in given.recommenders:
            data_dir = Path(aside) / f"data-{line_up}"
            with opening(premiere, line_up, data_dir) as server, server.client() as client:
                print(told(line_up, course(client, premiere)), flush=True)


if __name__ == "__main__":
    main()

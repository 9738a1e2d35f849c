"""MovieLens-100K for the tests of the whole: some users held out, checkpoints trained on the others."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from app.commands.train import train_checkpoint
from models.datasets.dataset import Dataset
from models.datasets.description import read_description
from models.datasets.folder import Tables, read, write

HELD_OUT = 200
CHECKPOINTS: Mapping[str, tuple[str, dict[str, Any], int]] = {
    "content": ("content", {}, 0),
    "bayes-a": ("bayes", {}, 0),
    "bayes-b": ("bayes", {}, 1),
    "maml": ("maml", {"epochs": 8}, 0),
    "ease": ("ease", {}, 0),
}
"""Name → recommender, settings, seed. The two of `bayes` hold other users out for validation and so differ."""


@dataclass(frozen=True)
class Movies:
    """The data set, what training saw of it, and what came of that."""

    data: Dataset
    """All of it."""
    training: Dataset
    """Without the users held out."""
    training_folder: Path
    held_out: list[str]
    """Ids of the users that nothing was trained on."""
    checkpoints: Path
    """Folder with those of `CHECKPOINTS` that were wanted."""

    def stock(self, folder: Path, *names: str) -> Path:
        """A folder of checkpoints with some of them."""
        for name in names:
            shutil.copytree(self.checkpoints / name, folder / name)
        return folder

    def ratings(self, user_id: str) -> list[tuple[str, float]]:
        """(item id, rating) of a user, oldest first."""
        user = self.data.user_ids.index(user_id)
        rows = slice(int(self.data.offsets[user]), int(self.data.offsets[user + 1]))
        items, values = self.data.interactions.items[rows].tolist(), self.data.interactions.values[rows].tolist()
        return [(self.data.items.ids[item], value) for item, value in zip(items, values, strict=True)]

    def counts(self) -> dict[str, int]:
        """Ratings of each item in training."""
        counted = torch.bincount(self.training.interactions.items, minlength=self.training.n_items).tolist()
        return dict(zip(self.training.items.ids, counted, strict=True))

    def best_known(self, genre: str, n: int, without: Iterable[str] = ()) -> list[str]:
        """The n items of a genre, and of none of `without`, that most people rated."""
        counts = self.counts()
        known = [
            item_id
            for item_id, attributes in zip(self.data.items.ids, self.data.items.attributes, strict=True)
            if genre in (genres := attributes.get("genres", [])) and not set(without) & set(genres)
        ]
        return sorted(known, key=lambda item_id: (-counts.get(item_id, 0), item_id))[:n]


def prepare(full: Path, folder: Path, wanted: Iterable[str] = CHECKPOINTS) -> Movies:
    """Hold `HELD_OUT` users of the data set folder `full` out and train the `wanted` checkpoints on the rest."""
    data = read(full)
    drawn = np.random.default_rng(0).choice(data.n_users, HELD_OUT, replace=False)
    held_out = sorted(data.user_ids[user] for user in drawn.tolist())
    training_folder = folder / "training"
    interactions, users = (
        pl.read_csv(full / name, infer_schema=False).filter(~pl.col("user_id").is_in(held_out))
        for name in ("interactions.csv", "users.csv")
    )
    items = pl.read_csv(full / "items.csv", infer_schema=False)
    training = write(Tables(read_description(full), interactions, users, items), training_folder)
    checkpoints = folder / "checkpoints"
    for name in wanted:
        recommender, settings, seed = CHECKPOINTS[name]
        train_checkpoint(recommender, settings, training, checkpoints, name=name, seed=seed, device="cpu")
    return Movies(data, training, training_folder, held_out, checkpoints)

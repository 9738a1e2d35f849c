"""Fits kept on disk: an evaluation that was stopped goes on where it was, and one that puts other questions to the same
recommenders, or mixes them anew, trains nothing again.

A fit is known by all that it comes of: recommender, settings, training data, users held apart, seed, and the version of
the program. Whoever changes the code of a recommender without a new version names another folder.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import checkpoint
from models.datasets.dataset import Dataset
from models.recommender import FitReport, Fitted
from models.registry import RECOMMENDERS
from models.training.domains import Direction
from models.training.train import Trained


@dataclass(frozen=True)
class FitKey:
    """What makes a fit what it is."""

    recommender: str
    settings: dict[str, Any]
    data: Dataset
    held: Tensor | None
    """(V,) users held apart; None where the fit draws them by its seed."""
    seed: int
    direction: Direction | None = None
    deterministic: bool = False


class Fits:
    """A folder of checkpoints, each named by the digest of its `FitKey`."""

    def __init__(self, folder: Path, code_version: str, device: torch.device | str = "cpu") -> None:
        self.folder, self.code_version, self.device = folder, code_version, device

    def find(self, key: FitKey) -> Trained | None:
        """The fit, where it is there and whole; its report has no history."""
        try:
            kept = checkpoint.load(self._path(key), self.device)
        except checkpoint.CheckpointError:
            return None
        fitted = Fitted(kept.table, FitReport(kept.card.epochs))
        return Trained(kept.recommender, fitted, kept.card.metrics, kept.card.fit_seconds)

    def keep(self, key: FitKey, trained: Trained) -> None:
        """Write a fit down. One that is there already is left as it is."""
        try:
            checkpoint.save(
                self._path(key),
                trained.recommender,
                trained.fitted,
                key.data,
                metrics=trained.metrics,
                seed=key.seed,
                fit_seconds=trained.seconds,
                code_version=self.code_version,
            )
        except FileExistsError:
            return

    def _path(self, key: FitKey) -> Path:
        config = RECOMMENDERS[key.recommender].Config.model_validate(key.settings).model_dump(mode="json")
        made_of = {
            "version": self.code_version,
            "device": str(self.device),
            "recommender": key.recommender,
            "config": config,
            "data": key.data.fingerprint,
            "held": None if key.held is None else key.held.tolist(),
            "seed": key.seed,
            "direction": None if key.direction is None else [key.direction.source, key.direction.target],
            "deterministic": key.deterministic,
        }
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{key.recommender}-{digest[:24]}"

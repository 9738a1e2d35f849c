"""Train one recommender on a data set: hold users apart, fit, measure."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.recommender import FitOptions, Fitted, Recommender
from models.registry import RECOMMENDERS
from models.training.domains import Direction, overlapping_users, users_in, without
from models.training.validation import Validation

VALIDATION_SHARE = 0.1
"""Share of the users that no fit learns from; epochs are chosen and metrics measured on them."""
MIN_OVERLAP = 10
"""Users in both domains, below which a transfer is measured on users of the target as a whole."""


@dataclass(frozen=True)
class Trained:
    """A fitted recommender with what a card says of the fit."""

    recommender: Recommender
    fitted: Fitted
    metrics: dict[str, float]
    seconds: float


def train(
    name: str,
    settings: Mapping[str, Any],
    data: Dataset,
    options: FitOptions,
    *,
    held: Tensor | None = None,
    direction: Direction | None = None,
    deterministic: bool = False,
) -> Trained:
    """Fit the recommender `name` with `settings` (the others at their defaults).

    `held` names the users to validate on, by index; by default a tenth of them, drawn by the seed. With an empty `held`
    every user is learnt from, nothing is selected and no metric is measured.

    A `direction`, by default that of a recommender that transfers, makes the held users cold in its target alone: what
    they did elsewhere is learnt from, and shown to whoever is measured. They are drawn from those who are in both
    domains, or from those in the target where hardly anybody is.

    `deterministic` makes torch refuse operations whose result may differ from run to run.

    Raises KeyError for an unknown name, pydantic.ValidationError for settings that it does not have.
    """
    kind = RECOMMENDERS[name]
    recommender = kind(kind.Config.model_validate(dict(settings)), data.schema).to(options.device)
    direction = direction or getattr(recommender, "direction", None)
    if held is None and direction is not None:
        held = held_in_target(data, direction, options.seed)
    elif held is None:
        _, held = data.split_users(VALIDATION_SHARE, options.seed)
    validation = None
    if direction is not None:
        training = without(data, held, direction.target)
    else:
        training = data.where(~torch.isin(data.interactions.users, held))
    if len(held):
        validation = (
            Validation.draw(data, held, options.seed)
            if direction is None
            else Validation.draw_transfer(data, held, direction, options.seed)
        )
    started = time.perf_counter()
    with deterministic_algorithms(deterministic):
        fitted = recommender.fit(training, replace(options, validation=validation))
    seconds = time.perf_counter() - started
    recommender.eval().requires_grad_(False)
    metrics = validation.measure(recommender, fitted.table) if validation else {}
    return Trained(recommender, fitted, metrics, seconds)


def held_in_target(data: Dataset, direction: Direction, seed: int) -> Tensor:
    """(V,) those in both domains of the users that any other fit with this seed holds apart, or in the target where
    hardly anybody is in both; so a transfer and what it is mixed with have met none of them."""
    candidates = overlapping_users(data, direction)
    if len(candidates) < MIN_OVERLAP:
        candidates = users_in(data, direction.target).nonzero().flatten()
    _, held = data.split_users(VALIDATION_SHARE, seed)
    kept = held[torch.isin(held, candidates)]
    return kept if len(kept) else candidates[:1]


@contextmanager
def deterministic_algorithms(wanted: bool = True) -> Iterator[None]:
    """Within it torch raises RuntimeError rather than run an operation that has no deterministic form.

    On CUDA, cuBLAS reads CUBLAS_WORKSPACE_CONFIG at its first use: start with the mode on, or set it before.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)

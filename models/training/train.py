"""Train one recommender on a data set: hold users apart, fit, measure."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from models.datasets.dataset import Dataset
from models.recommender import FitOptions, Fitted, Recommender
from models.registry import RECOMMENDERS
from models.training.validation import Validation

VALIDATION_SHARE = 0.1
"""Share of the users that no fit learns from; epochs are chosen and metrics measured on them."""


@dataclass(frozen=True)
class Trained:
    """A fitted recommender with what a card says of the fit."""

    recommender: Recommender
    fitted: Fitted
    metrics: dict[str, float]
    seconds: float


def train(name: str, settings: Mapping[str, Any], data: Dataset, options: FitOptions) -> Trained:
    """Fit the recommender `name` with `settings` (the others at their defaults).

    Raises KeyError for an unknown name, pydantic.ValidationError for settings that it does not have.
    """
    kind = RECOMMENDERS[name]
    recommender = kind(kind.Config.model_validate(dict(settings)), data.schema).to(options.device)
    training, held = data.split_users(VALIDATION_SHARE, options.seed)
    validation = Validation.draw(data, held, options.seed)
    started = time.perf_counter()
    fitted = recommender.fit(training, replace(options, validation=validation))
    seconds = time.perf_counter() - started
    recommender.eval().requires_grad_(False)
    return Trained(recommender, fitted, validation.measure(recommender, fitted.table), seconds)

"""What is left to foretell of cold users, and what could tell it: `python -m benchmarks.limits --help`.

Errors of one person's ratings go together: some are content with everything, some with nothing. For each group of
questions of `kshot` or `crossdomain` the table splits the squared error of a recipe in two,

    sum_u sum_i e_ui² / n = within + between
    within = sum_u n_u s_u² / n,    s_u² = sum_i (e_ui - mean e_u)² / (n_u - 1)

where the root of `within` is the error that would be left if the level of each person were known exactly. The
interval says how much depends on whom a draw asks: people are resampled, with all of their ratings. Beside the mean
error stand RMSE and MAE without it.

Where people are asked without any history, a second table shows how much of their levels can be told beforehand, from
attributes and from when they came: the share of the variance between people of the training part that a ridge
regression explains of people whom it has not seen. Below zero it foretells worse than one level for all.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from app.commands.terminal import fail, show
from models.datasets.dataset import Dataset
from models.datasets.description import DatasetError
from models.datasets.folder import read
from models.evaluation.draws import DrawsError
from models.evaluation.exam import Exam, Group
from models.evaluation.predictors import Predictor, TrainedPredictor
from models.evaluation.protocols import PROTOCOLS, ProtocolOptions
from models.evaluation.significance import paired_bootstrap, per_user
from models.recipes import Recipe, RecipeError, load
from models.recommender import FitOptions
from models.registry import RECOMMENDERS
from models.training.domains import TransferSettings
from models.training.statistics import domain_means, ridge, shrunken_item_biases
from models.training.train import train

ITEM_REG, LEVEL_REG = 5.0, 4.0
"""Ratings' worth of shrinkage of an item's mean, and of belief in a person's level."""
RIDGE = (10.0, 40.0, 160.0)
"""People's worth of shrinkage of what an attribute adds; the best is shown, which flatters rather than hides."""
FOLDS = 10
HOUR, WEEK = 3600, 7 * 86400


def errors(predictor: Predictor, exam: Exam, group: Group) -> str:
    """A line of the first table."""
    low, high = (float(bound[group.domain]) for bound in exam.data.schema.scales())
    asked = group.mask.numpy()
    error = (np.clip(predictor.answer(group).mean, low, high) - group.values.numpy())[asked]  # (n,)
    person = np.broadcast_to(group.users.numpy()[:, None], asked.shape)[asked]
    _, squares, counts = per_user(person, error**2, np.ones(len(error)))
    _, sums, _ = per_user(person, error, np.ones(len(error)))
    several = counts > 1
    spread = (squares - sums**2 / counts)[several] / (counts[several] - 1)  # s_u²
    within = float((counts[several] * spread).sum() / counts[several].sum())
    whole = float(squares.sum() / counts.sum())
    drawn = paired_bootstrap(squares, np.zeros_like(squares), counts, "root_mean")
    moved = error - error.mean()
    without = f"{np.square(moved).mean() ** 0.5:.4f} {np.abs(moved).mean():.4f}"
    return (
        f"{group.label:12} {len(counts):6} {len(error):8}  {whole**0.5:.4f} [{drawn.low:.4f}, {drawn.high:.4f}] "
        f"{np.abs(error).mean():.4f}  {error.mean():+.3f} {without:17}  {within**0.5:11.4f}  {1 - within / whole:7.1%}"
    )


def told_beforehand(training: Dataset) -> Iterator[str]:
    """Lines of the second table."""
    levels, weights = _levels(training)
    people = (weights > 0).nonzero().flatten()
    lot = torch.randperm(len(people), generator=torch.Generator().manual_seed(0)) % FOLDS
    for name, design in _designs(training):
        shares = [_explained(design[people], levels[people], weights[people], lot, reg) for reg in RIDGE]
        yield f"{name:44} {design.shape[1]:8} {max(shares):+10.2%}"


def _levels(training: Dataset) -> tuple[Tensor, Tensor]:
    """How far each person's ratings lie above those of their items (U,), and how much that is to be believed (U,)."""
    means, seen = domain_means(training), training.interactions
    level = means[training.items.domain] + shrunken_item_biases(training, means, ITEM_REG)
    counts = torch.bincount(seen.users, minlength=training.n_users).double()
    total = torch.zeros(training.n_users).double()
    total.index_add_(0, seen.users, (seen.values - level[seen.items]).double())
    return total / counts.clamp(min=1), counts / (counts + LEVEL_REG)


def _designs(training: Dataset) -> Iterator[tuple[str, Tensor]]:
    """What may be known of people on the day they come, as columns (U, C)."""
    parts, start = [], 0
    for field in training.schema.user_attributes.fields:
        parts.append(training.user_attributes[:, start : start + field.width])
        start += field.width
        yield field.name, parts[-1]
    yield "all attributes", training.user_attributes
    pairs = [(a[:, :, None] * b[:, None, :]).flatten(1) for a, b in combinations(parts, 2)]
    if pairs:
        yield "all attributes and their pairs", torch.cat([training.user_attributes, *pairs], dim=1)
    came = torch.full((training.n_users,), torch.inf).double()
    came.scatter_reduce_(0, training.interactions.users, training.interactions.times, "amin")
    if bool(came.isnan().any()) or bool(came.isinf().all()):
        return
    came = came.where(came.isfinite(), came[came.isfinite()].min())
    for name, slot in (("week", came // WEEK), ("hour", came // HOUR % 24)):
        column = torch.nn.functional.one_hot(torch.unique(slot, return_inverse=True)[1]).float()
        yield f"all attributes and the {name} they came in", torch.cat([training.user_attributes, column], dim=1)


def _explained(design: Tensor, levels: Tensor, weights: Tensor, lot: Tensor, reg: float) -> float:
    """Share of the variance of the levels of people in each fold that those of the other folds explain."""
    left = before = 0.0
    for fold in range(FOLDS):
        known, asked = lot != fold, lot == fold
        usual = (weights[known] * levels[known]).sum() / weights[known].sum()
        found = ridge(design[known].double(), (levels[known] - usual)[:, None], weights[known], reg)
        residual = levels[asked] - usual - (design[asked].double() @ found)[:, 0]
        left += float((weights[asked] * residual.square()).sum())
        before += float((weights[asked] * (levels[asked] - usual).square()).sum())
    return 1 - left / before


def main(
    data: Annotated[Path, typer.Option(help="Data set folder.")],
    protocol: Annotated[str, typer.Option(help="kshot or crossdomain.")] = "kshot",
    recommender: Annotated[str, typer.Option(help="Recipe that answers.")] = "bayes",
    source: Annotated[str | None, typer.Option(help="Cross-domain: where histories come from.")] = None,
    target: Annotated[str | None, typer.Option(help="Cross-domain: what is asked about.")] = None,
    beta: Annotated[float, typer.Option(help="Cross-domain: share of people who are cold.")] = 0.5,
    seeds: Annotated[int, typer.Option(min=1, help="Draws.")] = 1,
) -> None:
    """Errors of cold users split in what stands in their levels and what does not."""
    try:
        recipe, whole = load(recommender), read(data)
        if protocol not in {"kshot", "crossdomain"}:
            raise DrawsError(f"there is no such table for the protocol {protocol!r}; take kshot or crossdomain")
        exams = [
            PROTOCOLS[protocol](whole, ProtocolOptions(seed=seed, source=source, target=target, beta=beta))
            for seed in range(seeds)
        ]
    except (DatasetError, DrawsError, RecipeError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    show(
        f"{whole.name}, {recommender}",
        f"{'':12} {'people':>6} {'ratings':>8}  {'RMSE':6} {'over people':16} {'MAE':6}  "
        f"{'mean':>6} {'RMSE, MAE without':17}  level known  between",
    )
    for seed, exam in enumerate(exams):
        predictor = _trained(recipe, exam, seed, source, target)
        show(*(f"{errors(predictor, exam, group)}  draw {seed}" for group in exam.groups))
    if exams[0].direction is None:
        show("", f"{'of a level told beforehand, by':44} {'columns':>8} {'explained':>10}")
        show(*told_beforehand(exams[0].training))


def _trained(recipe: Recipe, exam: Exam, seed: int, source: str | None, target: str | None) -> Predictor:
    """The recipe, trained on all that the exam allows."""
    settings = dict(recipe.settings)
    if issubclass(RECOMMENDERS[recipe.recommender].Config, TransferSettings):
        settings |= {"source": source, "target": target}
    held = torch.empty(0, dtype=torch.long) if recipe.learns_from_everyone else exam.validation_users
    options = FitOptions(seed=seed)
    trained = train(recipe.recommender, settings, exam.training, options, held=held, direction=exam.direction)
    return TrainedPredictor(trained.recommender, trained.fitted.table)


if __name__ == "__main__":
    typer.run(main)

"""What trees find in errors about people without history: `python -m benchmarks.leftover --help`.

`kshot` at k = 0, asked of the people of the training part: they lie in folds, those of one fold are answered by a fit
on the others, and so every rating r_ui has an error e_ui = r_ui - r̂_ui of a recipe that knows no rating of that
person. Gradient-boosted regression trees (Friedman, "Greedy function approximation: a gradient boosting machine",
Annals of Statistics 2001) then learn e_ui from all that may be known beforehand: the answer itself, the person's
attributes, the item's, how often, how well and by how busy people the item was rated, when the person came, when the
rating is. They too learn from the other folds alone. If they foretell the errors of people whom they have not seen, the
recipe has left something; if not, neither more shape nor more products of these columns will help it.

Each person counts alike, as in `kshot`, and as there only people with `AT_LEAST` ratings are asked. Beside what the
trees gain or lose stands what the best multiple of what they say would gain: chosen on the very people asked, so more
than anybody could have.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from sklearn.ensemble import HistGradientBoostingRegressor

from app.commands.terminal import fail, show
from models.datasets.dataset import Dataset
from models.datasets.description import DatasetError
from models.datasets.folder import read
from models.evaluation.draws import DrawsError
from models.evaluation.protocols import PROTOCOLS, QUERY_SIZE, SHOTS, ProtocolOptions
from models.evaluation.significance import paired_bootstrap
from models.recipes import Recipe, RecipeError, load
from models.recommender import FitOptions
from models.training.train import train

FOLDS = 5
AT_LEAST = QUERY_SIZE + max(SHOTS)
"""Ratings of somebody whom `kshot` may ask."""
ROUNDS = (10, 20, 40, 80, 160)
"""Numbers of trees. All are shown: to choose among them is left to whom it may flatter."""
CONTENT = 40
"""Columns of items' attributes, the most frequent."""
BATCH = 256
DAY = 86400.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Left:
    """M ratings of people in folds, and what a recipe without their history gets wrong."""

    fold: npt.NDArray[np.int64]
    """(M,)"""
    answer: Floats
    """(M,) what was foretold."""
    error: Floats
    """(M,) the rating less that."""


def left_by(recipe: Recipe, training: Dataset, folds: int = FOLDS) -> Left:
    """The errors of a recipe about people of each fold, fitted on the others."""
    seen = training.interactions
    lot = torch.randperm(training.n_users, generator=torch.Generator().manual_seed(0)) % folds
    answer = torch.zeros(len(seen))
    for fold in range(folds):
        asked = lot[seen.users] == fold
        nobody = torch.empty(0, dtype=torch.long)
        fitted = train(recipe.recommender, recipe.settings, training.where(~asked), FitOptions(seed=0), held=nobody)
        recommender, table = fitted.recommender, fitted.fitted.table
        people = torch.unique(seen.users[asked])
        for some in people.split(BATCH):
            rows = torch.cat([torch.arange(training.offsets[u], training.offsets[u + 1]) for u in some.tolist()])
            with torch.no_grad():
                states = recommender.adapt(training.evidence(some, last=0), table, 0)
                means = recommender.means(states, table)  # (B, N)
            answer[rows] = means[torch.searchsorted(some, seen.users[rows]), seen.items[rows]]
    low, high = training.schema.scales()
    answer = answer.clamp(float(low[0]), float(high[0]))
    return Left(lot[seen.users].numpy(), answer.double().numpy(), (seen.values - answer).double().numpy())


def columns(training: Dataset, left: Left, fold: int, when: bool) -> npt.NDArray[np.float32]:
    """(M, C) what may be known of each rating before it is given, without the ratings of the people of a fold."""
    seen = training.interactions
    users, items, values, times = (t.numpy() for t in (seen.users, seen.items, seen.values, seen.times))
    known = left.fold != fold
    busy = np.log(np.bincount(users, minlength=training.n_users).clip(1))
    count = np.bincount(items[known], minlength=training.n_items)

    def mean(of: npt.NDArray[np.floating], usual: float) -> Floats:
        total: Floats = np.bincount(items[known], of[known] - usual, training.n_items)
        return usual + total / (count + 5)

    quality = mean(values, float(values[known].mean()))
    spread = mean((values - quality[items]) ** 2, float(values[known].var()))
    raters = mean(busy[users], float(busy[users][known].mean()))
    content = training.items.content.features.numpy()
    content = content[:, np.argsort(-content.sum(0), kind="stable")[:CONTENT]]
    of_item = np.column_stack([quality, spread, raters, np.log1p(count), content])
    parts = [left.answer, training.user_attributes.numpy()[users], of_item[items]]
    if when:
        came = np.full(training.n_users, np.inf)
        np.minimum.at(came, users, times)
        parts += [came[users] / DAY, (times - came[users]) / DAY, times / DAY % 1]
    return np.column_stack(parts).astype(np.float32)


def foretold(training: Dataset, left: Left, when: bool, rounds: Sequence[int] = ROUNDS) -> Floats:
    """(R, M) what trees say of the errors, after each number of rounds, about people whom they have not seen."""
    users = training.interactions.users.numpy()
    weight = 1 / np.bincount(users, minlength=training.n_users)[users]
    said = np.zeros((len(rounds), len(users)))
    for fold in np.unique(left.fold):
        known, asked = left.fold != fold, left.fold == fold
        told = columns(training, left, fold, when)
        trees = HistGradientBoostingRegressor(
            max_iter=max(rounds), learning_rate=0.05, max_leaf_nodes=15, early_stopping=False, random_state=0,
            min_samples_leaf=min(2000, max(20, int(known.sum()) // 100)), l2_regularization=10.0,
        )  # fmt: skip
        trees.fit(told[known], left.error[known], sample_weight=weight[known] / weight[known].mean())
        for done, answer in enumerate(trees.staged_predict(told[asked]), start=1):
            if done in rounds:
                said[list(rounds).index(done), asked] = answer
    return said


def lines(training: Dataset, left: Left, said: Floats, rounds: Sequence[int] = ROUNDS) -> Iterator[str]:
    """Of each number of rounds: RMSE with what the trees say, and its difference to the recipe alone."""
    users = training.interactions.users.numpy()
    count = np.bincount(users, minlength=training.n_users)
    asked = count >= AT_LEAST

    def squares(error: Floats) -> Floats:
        total: Floats = np.bincount(users, error**2, training.n_users)
        return total[asked] / count[asked]

    alone, each = squares(left.error), np.ones(int(asked.sum()))
    yield f"{'the recipe alone':22} {alone.mean() ** 0.5:.4f}"
    for number, answer in zip(rounds, said, strict=True):
        together = squares(left.error - answer)
        gain = paired_bootstrap(together, alone, each, "root_mean")
        told = f"{gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
        multiple = max(0.0, 0.5 + (alone - together).sum() / squares(answer).sum() / 2)  # least squares
        best = squares(left.error - multiple * answer).mean() ** 0.5 - alone.mean() ** 0.5
        yield f"{f'and {number} trees':22} {together.mean() ** 0.5:.4f}  {told}  {best:+.4f} ({multiple:.2f})"


def main(
    data: Annotated[Path, typer.Option(help="Data set folder, of one domain.")],
    recommender: Annotated[str, typer.Option(help="Recipe that answers.")] = "bayes",
) -> None:
    """What boosted trees find in what a recipe gets wrong about people without history."""
    try:
        recipe = load(recommender)
        training = PROTOCOLS["kshot"](read(data), ProtocolOptions(seed=0)).training
    except (DatasetError, DrawsError, RecipeError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    left = left_by(recipe, training)
    asked = int((np.bincount(training.interactions.users.numpy()) >= AT_LEAST).sum())
    show(f"{training.name}, {recommender}, {asked} people of the training part, each as if nothing were known")
    timed = not bool(training.interactions.times.isnan().any())
    for name, when in [("person and item", False), ("person, item and time", True)][: 1 + timed]:
        show("", f"{name:22} {'RMSE':6}  {'less the recipe alone':25}  by the best multiple")
        show(*lines(training, left, foretold(training, left, when)))


if __name__ == "__main__":
    typer.run(main)

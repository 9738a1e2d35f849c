"""Source selection: which other domain would tell most about people who are cold in the target.

From each candidate a cheap transfer is trained, and the target alone by itself; both answer validation users, of whom
all is shown that they did in the candidate and k of their ratings in the target. The gain is the RMSE that the transfer
saves, with an interval bootstrapped over users. People who are not in both domains tell nothing about a transfer, so
each candidate is judged on its own people; where it has too few it is not judged.
"""

from dataclasses import dataclass

import numpy as np
import torch

from models.datasets.dataset import Dataset
from models.evaluation.metrics import Floats
from models.evaluation.predictors import AlonePredictor, Predictor, TrainedPredictor
from models.evaluation.significance import Interval, paired_bootstrap, per_user
from models.recommender import FitOptions
from models.training.domains import Direction, alone, overlapping_users
from models.training.train import held_in_target, train
from models.training.validation import Task, Validation

TRANSFER, TARGET_ONLY = "bayes_transfer", "bayes"
MIN_SHARED = 50
"""People in both domains below which a candidate is not judged: a tenth of them are asked."""


@dataclass(frozen=True)
class Candidate:
    """A domain that a transfer to the target could come from."""

    source: str
    shared_users: int
    """People who are in both domains."""
    shared_items: int
    """Items of the target that are the same thing as one of the source (`same_as`)."""
    asked: int
    """Validation users that it was judged on."""
    gain: Interval | None
    """RMSE saved, target-only minus transfer, with a 95 % interval; None where too few are in both domains."""
    gain_at: dict[int, float]
    """The same by the number of target ratings known."""


def rank_sources(data: Dataset, target: int, options: FitOptions) -> list[Candidate]:
    """Every other domain as a source for `target`, the most useful first: by the lower end of the gain's interval.

    Those that cannot be judged stand last. Raises ValueError where the data has no other domain.
    """
    names = [domain.name for domain in data.schema.domains]
    others = [index for index in range(len(names)) if index != target]
    if not others:
        raise ValueError(f"{data.name} has no domain beside {names[target]!r}")
    found = [_judge(data, Direction(source, target), options) for source in others]
    return sorted(found, key=lambda c: (c.gain is None, -c.gain.low if c.gain else 0.0, c.source))


def _judge(data: Dataset, direction: Direction, options: FitOptions) -> Candidate:
    names = [domain.name for domain in data.schema.domains]
    source, target = names[direction.source], names[direction.target]
    shared = len(overlapping_users(data, direction))
    items = len({b for a, b in data.items.same_as.items() if _crosses(data, a, b, direction)})
    if shared < MIN_SHARED:
        return Candidate(source, shared, items, 0, None, {})
    held = held_in_target(data, direction, options.seed)
    carrying = train(TRANSFER, {"source": source, "target": target}, data, options, held=held)
    known = train(TARGET_ONLY, {}, alone(data, direction.target), options, held=held)
    there = TrainedPredictor(carrying.recommender, carrying.fitted.table)
    here = AlonePredictor(known.recommender, known.fitted.table, data, direction.target)
    tasks = Validation.draw_transfer(data, held, direction, options.seed).tasks
    if not tasks:
        return Candidate(source, shared, items, 0, None, {})
    high, low = (float(bound[direction.target]) for bound in reversed(data.schema.scales()))
    before, after, counts = (np.zeros((len(tasks), len(tasks[0].query_mask))) for _ in range(3))
    for t, task in enumerate(tasks):
        before[t], after[t] = (_squared(predictor, task, low, high) for predictor in (here, there))
        counts[t] = task.query_mask.sum(1).numpy()
    users = np.tile(np.arange(counts.shape[1]), len(tasks))
    _, lost, n = per_user(users, before.reshape(-1), counts.reshape(-1))
    _, left, _ = per_user(users, after.reshape(-1), counts.reshape(-1))
    cost = paired_bootstrap(left, lost, n, "root_mean")
    gain = Interval(difference=-cost.difference, low=-cost.high, high=-cost.low)
    roots = [np.sqrt(losses.sum(1) / counts.sum(1)) for losses in (before, after)]
    at = {task.support_size: float(b - a) for task, b, a in zip(tasks, *roots, strict=True)}
    return Candidate(source, shared, items, counts.shape[1], gain, at)


def _crosses(data: Dataset, a: int, b: int, direction: Direction) -> bool:
    return int(data.items.domain[a]) == direction.source and int(data.items.domain[b]) == direction.target


def _squared(predictor: Predictor, task: Task, low: float, high: float) -> Floats:
    """(B,) sum of squared errors of each user's predictions, clipped to the scale."""
    asked, place = torch.unique(task.query_items, return_inverse=True)
    mean = predictor.scores(task.support, task.domain, asked).mean.cpu().gather(1, place).clamp(low, high)
    return np.asarray(((mean - task.query_values).square() * task.query_mask).sum(1).double().numpy())

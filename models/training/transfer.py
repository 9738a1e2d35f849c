"""What transfer recommenders share: the direction, joint training on two domains, and what they say for other items.

    L = alpha L_source + (1 - alpha) L_target

A step takes a mini-batch of ratings from each domain, so both weigh the same however many ratings they have; the
smaller domain is gone through more than once. What is kept is the epoch after which validation users, who are cold in
the target, are answered best.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import Columns, FitOptions, FitReport, Fitted, ItemTable, Recommender, Role
from models.training.biases import units
from models.training.domains import Direction, TransferSettings, domain_of


class Transfer(Recommender):
    """A recommender that carries what is known from `direction.source` to `direction.target`."""

    role: ClassVar[Role] = "transfer"
    config: TransferSettings

    def __init__(self, config: TransferSettings, schema: Schema) -> None:
        """Raises ValueError where the schema does not have the domains that the configuration names."""
        super().__init__(config, schema)
        self.direction = Direction.of(config, schema)


def named(columns: Columns, prefix: str) -> Columns:
    """Columns of a part of a recommender, as they are called in its item table."""
    return {prefix + name: column for name, column in columns.items()}


def part(table: ItemTable, prefix: str) -> ItemTable:
    """The columns of a part of a recommender, under their own names."""
    columns = {name.removeprefix(prefix): c for name, c in table.columns.items() if name.startswith(prefix)}
    return replace(table, columns=columns)


class JointSettings(TransferSettings):
    """Settings of training on both domains at once."""

    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of the source's loss; the target's is one minus it."""
    epochs: int = Field(30, ge=1)
    """Passes over the larger domain at most."""
    patience: int = Field(4, ge=1)
    """Epochs without better answers to validation users before the fit stops."""
    batch_size: int = Field(1024, ge=1)
    """Ratings of each domain in a step."""
    learning_rate: float = Field(3e-3, gt=0)
    """Adam's."""
    reg: float = Field(1e-5, ge=0)
    """Weight decay (decoupled, Adam's W)."""


@dataclass(frozen=True)
class Ratings:
    """M ratings of one domain."""

    users: Tensor
    """(M,) int64."""
    items: Tensor
    """(M,) int64, rows of the table of all domains."""
    values: Tensor
    """(M,) in steps of a five-point scale, less the mean of the domain."""
    weights: Tensor
    """(M,)."""

    def __len__(self) -> int:
        return len(self.users)

    def rows(self, index: Tensor) -> "Ratings":
        """Some of the ratings."""
        return Ratings(**{name: tensor[index] for name, tensor in vars(self).items()})

    def to(self, device: torch.device | str) -> "Ratings":
        """The same on another device."""
        return Ratings(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    @classmethod
    def of(cls, data: Dataset, domain: int, mean: Tensor) -> "Ratings":
        """The interactions of one domain; `mean` (D,) is that of each domain on its own scale."""
        seen = data.interactions.rows(domain_of(data) == domain)
        values = (seen.values - float(mean[domain])) / float(units(data.schema)[domain])
        return cls(seen.users, seen.items, values, seen.weights)


class JointBatches:
    """Mini-batches of source and target side by side, in random order; the smaller domain begins again at its end."""

    def __init__(self, source: Ratings, target: Ratings, batch_size: int, generator: torch.Generator) -> None:
        self.source, self.target, self.batch_size, self.generator = source, target, batch_size, generator

    def __len__(self) -> int:
        """Steps an epoch."""
        return max(1, math.ceil(max(len(self.source), len(self.target)) / self.batch_size))

    def epoch(self) -> Iterator[tuple[Ratings, Ratings]]:
        """One pass over the larger domain."""
        pairs = zip(self._batches(self.source), self._batches(self.target), strict=False)
        for _, pair in zip(range(len(self)), pairs, strict=False):
            yield pair

    def _batches(self, ratings: Ratings) -> Iterator[Ratings]:
        """Endless; empty batches of a domain without ratings."""
        size = max(1, min(self.batch_size, len(ratings)))
        while True:
            order = torch.randperm(len(ratings), generator=self.generator)
            for index in torch.split(order, size) if len(order) else (order,):
                yield ratings.rows(index.to(ratings.users.device))


Loss = Callable[[Ratings], Tensor]
"""Loss of a mini-batch of one domain."""


def squared_error(predicted: Tensor, ratings: Ratings) -> Tensor:
    """Weighted mean squared error of predictions (M,) in the units of `Ratings.values`; 0 of none."""
    total = (ratings.weights * (predicted - ratings.values).square()).sum()
    return total / ratings.weights.sum().clamp(min=1e-9)


def train_jointly(
    recommender: Transfer,
    parameters: nn.Module | list[dict[str, Any]],
    batches: JointBatches,
    settings: JointSettings,
    options: FitOptions,
    *,
    source_loss: Loss,
    target_loss: Loss,
    table: Callable[[], ItemTable],
    extra_loss: Callable[[Ratings, Ratings, float], Tensor] | None = None,
) -> Fitted:
    """Minimise alpha L_source + (1 - alpha) L_target (+ an extra loss), and keep the best epoch.

    `parameters` is a module, or groups as optimisers take them. `table()` makes the item table as the weights stand;
    `extra_loss` gets both mini-batches and the share of training gone by (alignment, adversaries, paired users).
    """
    groups = list(parameters.parameters()) if isinstance(parameters, nn.Module) else parameters
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.reg)
    steps = settings.epochs * len(batches)
    alpha = settings.alpha

    def epoch(number: int) -> Mapping[str, float]:
        total = 0.0
        recommender.train()
        for step, (source, target) in enumerate(batches.epoch(), start=number * len(batches)):
            loss = alpha * source_loss(source) + (1 - alpha) * target_loss(target)
            if extra_loss is not None:
                loss = loss + extra_loss(source, target, step / steps)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            total += float(loss.detach())
        return {"loss": total / len(batches)}

    return keep_best(recommender, epoch, table, settings.epochs, settings.patience, options)


def keep_best(
    recommender: Recommender,
    epoch: Callable[[int], Mapping[str, float]],
    table: Callable[[], ItemTable],
    epochs: int,
    patience: int,
    options: FitOptions,
    stage: str = "training",
) -> Fitted:
    """Run `epoch(0)`, `epoch(1)`, … and leave the module with the weights, and the table, that answered validation
    users best; without validation, the last. Stops after `patience` epochs that were no better."""
    history: list[dict[str, float]] = []
    best_loss, best_epoch, kept, kept_table = math.inf, 0, recommender.state_dict(), None
    for number in range(epochs):
        metrics = dict(epoch(number))
        recommender.eval()
        with torch.no_grad():
            current = table()
            if options.validation is not None:
                metrics |= options.validation.measure(recommender, current)
        history.append(metrics)
        options.progress(stage, (number + 1) / epochs, metrics)
        loss = metrics.get("rmse", -float(number))
        if kept_table is None or loss < best_loss:
            best_loss, best_epoch, kept_table = loss, number + 1, current
            kept = deepcopy(recommender.state_dict())
        elif number + 1 - best_epoch >= patience:
            break
    assert kept_table is not None
    recommender.load_state_dict(kept)
    return Fitted(kept_table, FitReport(best_epoch, history))

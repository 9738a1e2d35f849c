"""Lessons: episodes seen from a ground, and the training on them that recommenders with item rows share.

An item's row is a learnt embedding plus a projection of its content. The first half of a row starts at who rates the
item, the second at what they think of it beyond what the base says (`models.training.co_rating`). In training the
embedding is left out at random, so that the content learns to stand in for it and an item without ratings gets a
sensible row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import Columns, Evidence, FitOptions, Fitted, ItemTable, Recommender
from models.training.biases import item_design
from models.training.co_rating import co_opinion_vectors, co_rating_vectors
from models.training.episodes import Episode, Episodes
from models.training.ground import Fold, Ground, GroundSettings, prefixed
from models.training.outer_loop import outer_loop
from models.training.statistics import item_counts, ridge

REG_CONTENT, REG_ITEM = 5.0, 5.0
"""Ridge penalty of the first projection of content, and ratings' worth of belief in it."""

BATCH = 256
"""Users whose residuals are computed at a time."""


class LessonSettings(GroundSettings):
    """Settings of rows and lessons."""

    embedding_size: int = Field(96, ge=2)
    """Width of item rows."""
    max_support: int = Field(64, ge=1)
    """Largest support of a training episode; sizes are log-uniform."""
    query_size: int = Field(100, ge=1)
    """Largest query of a training episode."""
    embedding_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of items met without their embedding in training."""
    epochs: int = Field(10, ge=1)
    """Passes over the users, at most."""
    patience: int = Field(3, ge=1)
    """Epochs without a better validation error before training ends."""
    batch_size: int = Field(64, ge=1)
    """Users a step."""
    learning_rate: float = Field(3e-3, gt=0)
    """Of Adam, for the network."""
    warm_learning_rate: float = Field(1e-4, gt=0)
    """The same for item rows, which start at who rates items together."""
    reg: float = Field(1e-5, ge=0)
    """Weight decay of item embeddings."""


@dataclass(frozen=True)
class Lesson:
    """B users: what a learner may see of them, and what it is to say."""

    support: Evidence
    opinions: Tensor
    """(B, L, 2), as `Ground.opinions` gives them."""
    support_rows: Tensor
    """(B, L, E)."""
    query_rows: Tensor
    """(B, Q, E)."""
    targets: Tensor
    """(B, Q) what the base leaves unexplained of the query, in units."""
    weights: Tensor
    """(B, Q), 0 where padded."""


class ContentRows(nn.Linear):
    """Rows (n, E) from content's design (n, F + D): what is known of items without embeddings."""

    def __init__(self, schema: Schema, size: int) -> None:
        super().__init__(schema.item_attributes.width + len(schema.domains), size, bias=False)


class Practice(nn.Module):
    """What training learns of each item; the table keeps what comes of it."""

    design: Tensor
    attributes: Tensor

    def __init__(self, settings: LessonSettings, content: ContentRows, data: Dataset, folds: list[Fold]) -> None:
        super().__init__()
        self.settings = settings
        self._content = (content,)  # in a tuple, so that it is not taken for a part
        design = item_design(data.items.content.features, data.items.domain, len(data.schema.domains))
        self.register_buffer("design", design)  # (N, F + D)
        self.register_buffer("attributes", data.user_attributes)  # (U, A)
        half, counts = opinion_size(settings.embedding_size), item_counts(data)
        ratings = [torch.cat(part) for part in zip(*(ratings_of(fold) for fold in folds), strict=True)]
        opinions = co_opinion_vectors(ratings[0], ratings[1], ratings[2], data.n_items, half)
        start = torch.cat([co_rating_vectors(data, settings.embedding_size - half), opinions], dim=1)
        with torch.no_grad():
            content.weight.copy_(ridge(design, start, counts / (counts + REG_ITEM), REG_CONTENT).T)
            own = (start - content(design)) * (counts > 0)[:, None]
        self.embedding = nn.Parameter(own)  # (N, E)

    def rows(self, index: Tensor | EllipsisType = ..., keep: Tensor | None = None) -> Tensor:
        """Rows (n, E) of some items; `keep` (n, 1) is False where only the content is to speak."""
        own = self.embedding[index]
        rows: Tensor = (own if keep is None else keep * own) + self._content[0](self.design[index])
        return rows

    def lesson(self, episode: Episode, fold: Fold, generator: torch.Generator) -> Lesson:
        """An episode seen from the ground of its fold."""
        device = self.design.device
        support = episode.support.to(device).evidence(self.attributes[episode.tasks.to(device)])
        query = episode.query.to(device).evidence(support.attributes)
        with torch.no_grad():
            states = fold.ground.base.adapt(support, fold.table, 0)
            opinions = fold.ground.opinions(states, fold.table, support)
            targets = fold.ground.residuals(states, fold.table, query)
        seen = torch.cat([support.items, query.items], dim=1)  # (B, L + Q)
        index, place = torch.unique(seen, return_inverse=True)
        drawn = torch.rand(len(index), 1, generator=generator).to(device) >= self.settings.embedding_dropout
        found = nn.functional.embedding(place, self.rows(index, drawn))  # its gradient is faster than that of indexing
        n = support.items.shape[1]
        return Lesson(support, opinions, found[:, :n], found[:, n:], targets, query.weights)


def opinion_size(embedding_size: int) -> int:
    """Numbers of a row that start at opinions: its last ones."""
    return embedding_size // 2


def ratings_of(fold: Fold) -> tuple[Tensor, Tensor, Tensor]:
    """Users, items and residuals (M,) of a fold's interactions after its base has adapted to all of them."""
    found = []
    with torch.no_grad():
        for users in torch.split(torch.unique(fold.data.interactions.users), BATCH):
            evidence = fold.data.evidence(users).to(fold.ground.unit.device)
            states = fold.ground.base.adapt(evidence, fold.table, 0)
            residuals = fold.ground.residuals(states, fold.table, evidence)
            mask = evidence.mask.cpu()
            who = users[:, None].expand_as(mask)
            found.append((who[mask], evidence.items.cpu()[mask], residuals.cpu()[mask]))
    return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found]), torch.cat([f[2] for f in found])


def learn(
    recommender: Recommender,
    ground: Ground,
    content: ContentRows,
    data: Dataset,
    options: FitOptions,
    *,
    predict: Callable[[Lesson], Tensor],
    columns: Callable[[Tensor], Columns],
) -> Fitted:
    """Fit the ground, then the recommender on lessons, to the squared error of `predict(lesson)` (B, Q).

    `columns(rows)` are the item table's columns beside the base's.
    """
    settings: LessonSettings = recommender.config
    table = ground.fit(data, options)
    folds = ground.folds(data, table, options)
    practice = Practice(settings, content, data, folds).to(options.device)
    generator = torch.Generator().manual_seed(options.seed)
    courses = [
        Episodes(
            fold.data,
            max_support=settings.max_support,
            query_size=settings.query_size,
            batch_size=settings.batch_size,
            generator=generator,
        )
        for fold in folds
    ]

    def losses(epoch: int) -> Iterator[Tensor]:
        running = [course.epoch() for course in courses]
        for f in in_random_order([len(course) for course in courses], generator):
            lesson = practice.lesson(next(running[f]), folds[f], generator)
            error = (predict(lesson) - lesson.targets).square()
            yield (lesson.weights * error).sum() / lesson.weights.sum()

    def item_table() -> ItemTable:
        return replace(table, columns=columns(practice.rows()) | prefixed(table.columns))

    return train_rows(
        recommender, practice, content, losses, item_table, sum(len(course) for course in courses), options
    )


def train_rows(
    recommender: Recommender,
    practice: Practice,
    content: ContentRows,
    losses: Callable[[int], Iterator[Tensor]],
    table: Callable[[], ItemTable],
    steps: int,
    options: FitOptions,
    learning_rate: float | None = None,
) -> Fitted:
    """Minimise `losses(epoch)`, `steps` batches each: rows at the pace of a warm start, what else the recommender
    learns at `learning_rate`, by default that of the settings."""
    settings = practice.settings
    groups: list[dict[str, Any]] = [
        {"params": [practice.embedding], "lr": settings.warm_learning_rate, "weight_decay": settings.reg},
        {"params": content.parameters(), "lr": settings.warm_learning_rate},
        {"params": [w for w in recommender.parameters() if w.requires_grad and w is not content.weight]},
    ]
    return outer_loop(
        recommender,
        losses,
        table,
        groups,
        options,
        epochs=settings.epochs,
        steps=steps,
        patience=settings.patience,
        learning_rate=learning_rate or settings.learning_rate,
    )


def in_random_order(counts: list[int], generator: torch.Generator) -> list[int]:
    """Each number f `counts[f]` times, in random order."""
    order = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    shuffled: list[int] = order[torch.randperm(len(order), generator=generator)].tolist()
    return shuffled

"""The ground of few-shot recommenders: a base that predicts first, so that they learn only what it leaves unexplained.

    r_ui = base_ui + unit_d (deviation learnt in episodes)

A base that has learnt from the very users who practise explains them better than it will explain newcomers, and leaves
residuals to learn from that newcomers will not have. With several folds the users practise with bases that have learnt
from the other folds alone: cross-fitting (Chernozhukov et al., "Double/debiased machine learning", 2018).
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import Columns, Evidence, FitOptions, ItemTable, Recommender, RecommenderConfig
from models.recommenders.bayes import Bayes
from models.recommenders.bias import Bias
from models.training.biases import units

PREFIX = "base."
"""What the names of the base's columns begin with in an item table."""
LEVEL_SHRINKAGE = 5.0
"""Ratings' worth of belief that a user is as generous as others."""


class GroundSettings(RecommenderConfig):
    """Settings of the ground."""

    base: Literal["bias", "bayes"] = "bias"
    """What predicts first: biases, or the Bayesian factor model."""
    n_factors: int = Field(16, ge=0, le=64)
    """Factors of the base (`base` = bayes)."""
    n_folds: int = Field(1, ge=1)
    """Parts of the users that practise with a base that has learnt from the others; 1: the base that serves."""


class Ground(nn.Module):
    """The base and what it leaves unexplained."""

    unit: Tensor

    def __init__(self, settings: GroundSettings, schema: Schema) -> None:
        super().__init__()
        self.settings, self.schema = settings, schema
        self.base: Recommender = (
            Bias(Bias.Config(), schema)
            if settings.base == "bias"
            else Bayes(Bayes.Config(n_factors=settings.n_factors), schema)
        )
        self.register_buffer("unit", units(schema))  # (D,)

    @property
    def state_size(self) -> int:
        """S of the base."""
        return self.base.state_size

    def fit(self, data: Dataset, options: FitOptions) -> ItemTable:
        """Fit the base, for good; its item table."""
        table = self.base.fit(data, options).table
        self.base.eval().requires_grad_(False)
        return table

    def residuals(self, states: Tensor, table: ItemTable, evidence: Evidence) -> Tensor:
        """How far ratings lie from what the base says in these states, in units, (B, L); zero where padded.

        `table` is the base's own.
        """
        items = torch.where(evidence.mask, evidence.items, 0)
        index, place = torch.unique(items, return_inverse=True)
        predicted = self.base.means(states, table, index).gather(1, place)
        return ((evidence.values - predicted) / self.unit[table.domain[items]]).where(evidence.mask, 0)

    def opinions(self, states: Tensor, table: ItemTable, evidence: Evidence) -> Tensor:
        """What a user thinks of the items of the support, in units, (B, L, 2); zero where padded.

        First what the adapted base leaves unexplained; second how far the rating lies from what the base expects of
        anyone with the user's attributes, less the user's own level.
        """
        expected = self.base.adapt(evidence.emptied(), table, 0)
        surprise = self.residuals(expected, table, evidence)
        total = evidence.weights.sum(dim=1, keepdim=True) + LEVEL_SHRINKAGE
        level = (evidence.weights * surprise).sum(dim=1, keepdim=True) / total
        own = (surprise - level).where(evidence.mask, 0)
        return torch.stack([self.residuals(states, table, evidence), own], dim=-1)

    def folds(self, data: Dataset, table: ItemTable, options: FitOptions) -> list["Fold"]:
        """Users and the bases that they practise with; `table` is that of this ground."""
        n = self.settings.n_folds
        if n == 1:
            return [Fold(self, table, data)]
        generator = torch.Generator().manual_seed(options.seed)
        fold_of = torch.randperm(data.n_users, generator=generator) % n
        folds = []
        for f in range(n):
            inside = fold_of[data.interactions.users] == f
            ground = Ground(self.settings, self.schema).to(options.device)
            folds.append(Fold(ground, ground.fit(data.where(~inside), options), data.where(inside)))
        return folds


@dataclass(frozen=True)
class Fold:
    """Users who practise, and the base that they practise with."""

    ground: Ground
    table: ItemTable
    data: Dataset


def prefixed(columns: Columns) -> Columns:
    """The base's columns as they are called in an item table."""
    return {PREFIX + name: column for name, column in columns.items()}


def base_table(table: ItemTable) -> ItemTable:
    """The base's part of an item table."""
    columns = {name.removeprefix(PREFIX): c for name, c in table.columns.items() if name.startswith(PREFIX)}
    return replace(table, columns=columns)

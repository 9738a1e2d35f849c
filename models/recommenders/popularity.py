"""Popularity: the shrunken mean rating of an item, the same for everybody. Every table's first row.

    r_ui = mean_d + sum_u w_ui (r_ui - mean_d) / (n_i + reg),    n_i = sum_u w_ui

A click counts as the share of a rating that the domain gives it. The standard deviation is that of the ratings around
these means; an item nobody has rated has the domain's mean.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import (
    Columns,
    Evidence,
    FitOptions,
    FitReport,
    Fitted,
    ItemContent,
    ItemEvidence,
    ItemTable,
    Recommender,
    RecommenderConfig,
    Role,
    Scores,
)
from models.training.newcomers import learnt_bias
from models.training.statistics import domain_means, item_counts, shrunken_item_biases


class PopularityConfig(RecommenderConfig):
    """Settings of `Popularity`."""

    reg: float = Field(5.0, ge=0)
    """Ratings' worth of belief that an item is average."""


class Popularity(Recommender):
    """The shrunken item mean; users have no state but a constant."""

    name: ClassVar[str] = "popularity"
    role: ClassVar[Role] = "collaborative"
    Config = PopularityConfig
    config: PopularityConfig
    domain_mean: Tensor
    domain_std: Tensor

    def __init__(self, config: PopularityConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.register_buffer("domain_mean", torch.zeros(len(schema.domains)))  # (D,)
        self.register_buffer("domain_std", torch.ones(len(schema.domains)))  # (D,) of ratings around item means

    @property
    def state_size(self) -> int:
        return 1

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        return torch.zeros(evidence.batch_size, 1, device=table.domain.device)  # (B, 1)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        domain = table.domain[rows]  # (N,)
        mean = (self.domain_mean[domain] + table["bias"][rows]).expand(len(states), -1)  # (B, N)
        return Scores(mean, self.domain_std[domain].expand_as(mean))

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        nothing = self.domain_mean.new_zeros(len(content))
        return {"bias": nothing, "count": nothing}

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """The mean over what the fit saw and what came since."""
        at = rows[evidence.index]
        residual = evidence.values - self.domain_mean[table.domain[at]] - table["bias"][at]
        strength = table["count"][rows] + self.config.reg
        return {"bias": learnt_bias(table["bias"][rows], strength, evidence, residual)}

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        means = domain_means(data)
        counts = item_counts(data)
        bias = shrunken_item_biases(data, means, self.config.reg)
        seen = data.interactions
        domain = data.items.domain[seen.items]
        residual = (seen.values - means[domain] - bias[seen.items]).square() * seen.weights
        total = torch.zeros_like(means).index_add_(0, domain, residual)
        weight = torch.zeros_like(means).index_add_(0, domain, seen.weights)
        self.domain_mean.copy_(means)
        self.domain_std.copy_((total / weight.clamp(min=1)).sqrt().clamp(min=1e-3))
        table = ItemTable({"bias": bias, "count": counts}, data.items.domain, counts > 0)
        return Fitted(table.to(options.device), FitReport())

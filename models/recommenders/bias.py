"""Bias: how generous a person is, how good an item is. The row that most published cold-start systems fail to beat.

    r_ui = mean_d + unit_d (b_i + b_u) + e

Koren, "Factor in the Neighbors" (TKDD 2010), 2.1, with b_u found anew for each person in closed form: the posterior
mean of a normal with unit noise,

    b_u = (sum_j w_j (r_j - mean_dj - b_j) + reg_user * prior_u) / (sum_j w_j + reg_user)

so evidence may lie in any domain. An item's prior mean is what its content says (`models.training.biases`), which is
also all that is known of a new one.
"""

from typing import ClassVar

import torch
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
    Role,
    Scores,
)
from models.training.biases import BiasSettings, fit_biases, item_design, residuals, units, user_design
from models.training.statistics import item_counts


class BiasConfig(BiasSettings):
    """Settings of `Bias`: those of its biases."""


class Bias(Recommender):
    """Item and user biases; a user's state is the mean and the variance of theirs."""

    name: ClassVar[str] = "bias"
    role: ClassVar[Role] = "collaborative"
    Config = BiasConfig
    config: BiasConfig
    mean: Tensor
    unit: Tensor
    noise: Tensor
    content: Tensor
    attributes: Tensor

    def __init__(self, config: BiasConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        n_domains = len(schema.domains)
        self.register_buffer("mean", torch.zeros(n_domains))  # (D,)
        self.register_buffer("unit", units(schema))  # (D,) a step of a five-point scale
        self.register_buffer("noise", torch.ones(n_domains))  # (D,) variance of a rating, in units
        self.register_buffer("content", torch.zeros(schema.item_attributes.width + n_domains, 1))
        self.register_buffer("attributes", torch.zeros(schema.user_attributes.width + 1, 1))

    @property
    def state_size(self) -> int:
        return 2

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        """(B, 2): posterior mean of the user's bias, and its variance as a share of the noise's."""
        prior = (user_design(evidence.attributes) @ self.attributes)[:, 0]  # (B,)
        residual = residuals(evidence, table, self.mean, self.unit)  # (B, L)
        total = (evidence.weights * residual).sum(dim=1) + self.config.reg_user * prior
        precision = evidence.weights.sum(dim=1) + self.config.reg_user
        return torch.stack([total / precision, 1 / precision], dim=1)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        domain = table.domain[rows]  # (N,)
        unit, noise = self.unit[domain], self.noise[domain]
        mean = self.mean[domain] + unit * (table["bias"][rows] + states[:, :1])  # (B, N)
        posterior = noise * (states[:, 1:] + table["variance"][rows])  # (B, N)
        return Scores(mean, unit * (noise + posterior).sqrt(), unit * posterior.sqrt())

    def sample(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        """Joint draws: one generosity for all items of a user and draw, one quality for each item."""
        rows = slice(None) if positions is None else positions
        mean = self.score(states, table, positions).mean
        domain = table.domain[rows]
        user, item = (
            torch.randn(shape, generator=generator, device=generator.device).to(mean)
            for shape in ((n, len(states), 1), (n, *mean.shape))
        )
        deviation = states[:, 1:].sqrt() * user + table["variance"][rows].sqrt() * item  # (n, B, N)
        return mean + self.unit[domain] * self.noise[domain].sqrt() * deviation

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        """Biases as content has them, with the variance of the prior."""
        domains = torch.full((len(content),), domain, device=self.content.device)
        x = item_design(content.features.to(self.content), domains, len(self.mean))
        bias = (x @ self.content)[:, 0]
        return {"bias": bias, "variance": torch.full_like(bias, 1 / self.config.reg_item)}

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """Posterior mean and variance of b_i, which is also the mean over what the fit saw and what came since; who is
        not known exactly tells less."""
        at, (generosity, variance) = rows[evidence.index], evidence.states.unbind(1)  # (M,) each
        domain = table.domain[at]
        residual = (evidence.values - self.mean[domain]) / self.unit[domain] - generosity - table["bias"][at]
        trust = evidence.weights / (1 + evidence.weights * variance)  # in ratings by somebody known exactly
        before = 1 / table["variance"][rows]  # (n,) the same of the prior
        precision = before.index_add(0, evidence.index, trust)
        surprise = torch.zeros_like(before).index_add(0, evidence.index, trust * residual)
        return {"bias": table["bias"][rows] + surprise / precision, "variance": 1 / precision}

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        biases = fit_biases(data, self.config)
        self.mean.copy_(biases.mean)
        self.noise.copy_(biases.noise)
        self.content.copy_(biases.content)
        self.attributes.copy_(biases.attributes)
        counts = item_counts(data)
        columns = {"bias": biases.item, "variance": 1 / (counts + self.config.reg_item)}
        return Fitted(ItemTable(columns, data.items.domain, counts > 0).to(options.device), FitReport())

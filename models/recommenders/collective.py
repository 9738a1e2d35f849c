"""Collective matrix factorisation: one space of users, a space of items per domain.

    min  alpha sum_source w (r - P_u . Q_i)^2 + (1 - alpha) sum_target w (r - P_u . Q_i)^2
         + lambda_P |P|^2 + sum_d lambda_d |Q_d|^2

over ratings less biases, of which users have one for all domains too. Singh and Gordon, "Relational Learning via
Collective Matrix Factorization" (KDD 2008). A user's factors are folded in from whatever they did in either domain, so
a history in the source *is* what is known in the target. Everything else is that of `mf`, on ratings weighted by the
domain that they lie in; domains beside the two count as the source does.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import Evidence, FitOptions, Fitted, ItemTable, Role
from models.recommenders.mf import Mf, MfConfig
from models.training.domains import Direction, TransferSettings, domain_of
from models.training.factorisation import Factors, Problem, alternating_least_squares


class CollectiveConfig(MfConfig, TransferSettings):
    """Settings of `Collective`; `reg` is lambda_P. The other penalties of `mf` shrink all items alike."""

    alpha: float = Field(0.5, gt=0, lt=1)
    """Weight of the source's ratings; the target's is one minus it. At one half both count in full."""
    reg_source: float = Field(6.0, gt=0)
    """lambda of the source's items (`penalty` = frobenius)."""
    reg_target: float = Field(6.0, gt=0)
    """lambda of the target's items (`penalty` = frobenius)."""


class Collective(Mf):
    """Matrix factorisation of two domains at once; a user's state is their bias and factors, the same in both."""

    name: ClassVar[str] = "collective"
    role: ClassVar[Role] = "transfer"
    Config = CollectiveConfig
    config: CollectiveConfig
    worth: Tensor

    def __init__(self, config: CollectiveConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.direction = Direction.of(config, schema)
        worth = torch.full((len(schema.domains),), 2 * config.alpha)
        worth[self.direction.target] = 2 * (1 - config.alpha)
        self.register_buffer("worth", worth)  # (D,) of a rating in each domain
        self.item_penalty: Tensor | None = None  # (N,) of the items that are being fitted

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        domain = table.domain[torch.where(evidence.mask, evidence.items, 0)]
        return super().adapt(replace(evidence, weights=evidence.weights * self.worth[domain]), table, target)

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        penalty = torch.full((len(self.worth),), self.config.reg_source)
        penalty[self.direction.target] = self.config.reg_target
        self.item_penalty = penalty[data.items.domain].to(options.device)
        weights = data.interactions.weights * self.worth.cpu()[domain_of(data)]
        fitted = super().fit(replace(data, interactions=replace(data.interactions, weights=weights)), options)
        self.item_penalty = None
        return fitted

    def _sweeps(self, problem: Problem, seed: int) -> Iterator[Factors]:
        config = self.config
        if config.penalty != "frobenius":
            return super()._sweeps(problem, seed)
        return alternating_least_squares(
            problem,
            config.n_factors,
            config.reg,
            config.reg_user,
            config.reg_item,
            torch.Generator().manual_seed(seed),
            reg_factors=self.item_penalty,
        )

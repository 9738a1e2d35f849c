"""Bayesian transfer: what a history in the source tells is the prior of who somebody is in the target.

    source:  r_ui = mean_s + b_i + c w_u0 + v_i . w_u + e,    w_u ~ N(A a_u, I)                          `bayes`
    target:  r_ui = mean_t + b_i + c w'_u0 + v_i . w'_u + e,  w'_u ~ N(A' a_u + B z_u + d, I)            `bayes`
    z_u = (E[w_u | source], how they rate there)              standardised; 0 of people without a history there

so evidence in the target moves a user on from B z_u + d in closed form, and the standard deviation is exact. The unit
covariance is a choice of units: what the prior leaves open (Q) is in the loadings. B is learnt along with the target's
items by the variational EM of `bayes`, with a variance of its own for each part of z_u, so that what tells nothing is
shrunken away. Beside the posterior mean, z_u holds what a shared w_u cannot carry over: how spread somebody's ratings
are, how popular and how good what they choose is, how much they rate. `bayes` on both domains is the other Bayesian
transfer: one w_u for all of them.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import AttributeEncoder, AttributeField, Schema
from models.recommender import (
    Columns,
    Evidence,
    FitOptions,
    FitReport,
    Fitted,
    ItemContent,
    ItemEvidence,
    ItemTable,
    Scores,
)
from models.recommenders.bayes import Bayes
from models.training.biases import units
from models.training.domains import TransferSettings, evidence_in, only, users_in
from models.training.habits import HABITS, exposures, habits
from models.training.statistics import item_counts
from models.training.transfer import Transfer, named, part

SOURCE, TARGET = "source.", "target."
"""What the columns of the two factor models begin with in the item table."""
BATCH = 256


class BayesTransferConfig(TransferSettings):
    """Settings of `BayesTransfer`; those of `Bayes` hold in both domains."""

    n_factors: int = Field(8, ge=0, le=64)
    """K, taste factors beside the user's bias, in each domain."""
    iterations: int = Field(40, ge=1)
    """Rounds of variational EM in each domain."""
    use_habits: bool = True
    """Whether z_u says how somebody rates in the source, beside the posterior mean."""
    noise_prior: float | None = Field(50.0, gt=0)
    """Ratings' worth of belief that an item's ratings are as noisy as its domain's; None: one noise a domain."""
    choice_dispersion: float | None = Field(0.045, ge=0)
    """δ: n choices of what to rate tell as much as n / (1 + δ n) independent ones; None: choices tell nothing."""


class BayesTransfer(Transfer):
    """Two factor models, the second with what the first knows as attributes. A state is that of both."""

    name: ClassVar[str] = "bayes_transfer"
    Config = BayesTransferConfig
    config: BayesTransferConfig
    unit: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, config: BayesTransferConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        settings = Bayes.Config(**config.model_dump(include=set(Bayes.Config.model_fields)))
        size = 1 + config.n_factors + (HABITS if config.use_habits else 0)
        told = [AttributeField(name=f"source {i}", kind="numeric") for i in range(size)]
        attributes = AttributeEncoder(fields=[*schema.user_attributes.fields, *told])
        self.source = Bayes(settings, schema)
        self.target = Bayes(settings, schema.model_copy(update={"user_attributes": attributes}))
        self.register_buffer("unit", units(schema))  # (D,)
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    @property
    def state_size(self) -> int:
        return self.source.state_size + self.target.state_size

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        source, told = self._told(evidence, table)
        told = ((told - self.centre) / self.scale).where(self._history(evidence, table).mask.any(1, keepdim=True), 0)
        known = evidence_in(evidence, table, self.direction.target)
        known = replace(known, attributes=torch.cat([evidence.attributes, told], dim=1))
        return torch.cat([source, self.target.adapt(known, part(table, TARGET), self.direction.target)], dim=1)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        source, target = self._split(states)
        answers = self.target.score(target, part(table, TARGET), positions)
        there = self._in_target(table, positions)
        if bool(there.all()):
            return answers
        others = self.source.score(source, part(table, SOURCE), positions)
        assert answers.std is not None
        assert answers.taste_std is not None
        assert others.std is not None
        assert others.taste_std is not None
        return Scores(
            answers.mean.where(there, others.mean),
            answers.std.where(there, others.std),
            answers.taste_std.where(there, others.taste_std),
        )

    def means(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Tensor:
        source, target = self._split(states)
        answers, there = self.target.means(target, part(table, TARGET), positions), self._in_target(table, positions)
        if bool(there.all()):
            return answers
        return answers.where(there, self.source.means(source, part(table, SOURCE), positions))

    def sample(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        source, target = self._split(states)
        draws = self.target.sample(target, part(table, TARGET), n, generator, positions)
        others = self.source.sample(source, part(table, SOURCE), n, generator, positions)
        return draws.where(self._in_target(table, positions), others)

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        columns = named(self.source.embed_items(content, domain), SOURCE)
        columns |= named(self.target.embed_items(content, domain), TARGET)
        return columns | {"exposure": self.unit.new_zeros(len(content))}

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """What each factor model learns; of an item only the columns of its own domain are ever read."""
        source, target = self._split(evidence.states)
        learnt = self.source.learn_items(part(table, SOURCE), rows, replace(evidence, states=source))
        return named(learnt, SOURCE) | named(
            self.target.learn_items(part(table, TARGET), rows, replace(evidence, states=target)), TARGET
        )

    @torch.no_grad()
    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        return self._fit_target(data, *self._fit_source(data, options), options)

    def _fit_source(self, data: Dataset, options: FitOptions) -> tuple[ItemTable, Tensor]:
        """Learn the source: its table, and z (U, Z) of everybody before it is standardised."""
        there = self.source.fit(only(data, self.direction.source), options).table
        columns = named(there.columns, SOURCE) | {"exposure": exposures(data).to(options.device)}
        history = ItemTable(columns, there.domain, there.trained)
        users = torch.split(torch.arange(data.n_users), BATCH)
        told = [self._told(data.evidence(batch).to(options.device), history)[1].cpu() for batch in users]
        return there, torch.cat(told)

    def _fit_target(self, data: Dataset, there: ItemTable, told: Tensor, options: FitOptions) -> Fitted:
        """Learn the target with what the source tells of its people; `there` and `told` are from `_fit_source`."""
        known = users_in(data, self.direction.source)
        judged = known & users_in(data, self.direction.target)
        if int(judged.sum()) > 1:
            self.centre.copy_(told[judged].mean(0))
            self.scale.copy_(told[judged].std(0).clamp(min=1e-3))
        told = ((told - self.centre.cpu()) / self.scale.cpu()).where(known[:, None], 0)
        asked = replace(
            only(data, self.direction.target),
            schema=self.target.schema,
            user_attributes=torch.cat([data.user_attributes, told], dim=1),
        )
        here = self.target.fit(asked, options)
        columns = named(there.columns, SOURCE) | named(here.table.columns, TARGET)
        columns |= {"exposure": exposures(data).to(options.device)}
        table = ItemTable(columns, there.domain, (item_counts(data) > 0).to(options.device))
        return Fitted(table, FitReport(here.report.epochs, here.report.history))

    def _history(self, evidence: Evidence, table: ItemTable) -> Evidence:
        return evidence_in(evidence, table, self.direction.source)

    def _told(self, evidence: Evidence, table: ItemTable) -> tuple[Tensor, Tensor]:
        """The state in the source, and z (B, Z) before it is standardised."""
        known = self._history(evidence, table)
        state = self.source.adapt(known, part(table, SOURCE), self.direction.source)
        told = state[:, : 1 + self.config.n_factors]
        if not self.config.use_habits:
            return state, told
        unit = self.unit[self.direction.source]
        deviation = (known.values - self.source.domain_mean[self.direction.source]) / unit
        bias = table[SOURCE + "mean"][known.items][..., 0] / unit
        return state, torch.cat([told, habits(known, deviation, bias, table["exposure"][known.items])], dim=1)

    def _in_target(self, table: ItemTable, positions: Tensor | None) -> Tensor:
        """(N,) bool."""
        return table.domain[slice(None) if positions is None else positions] == self.direction.target

    def _split(self, states: Tensor) -> tuple[Tensor, Tensor]:
        source, target = states.tensor_split([self.source.state_size], dim=1)
        return source, target

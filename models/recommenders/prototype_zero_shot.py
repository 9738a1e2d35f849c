"""Prototype zero-shot: a newcomer is a mixture of the kinds of people that are known, by attributes alone if need be.

    r_ui = mean_d + unit_d (b_i + b_u + δ_ci + e),    e ~ N(0, noise_d),    b_u ~ N(a_u C, noise / reg_user)
    p(c | a_u) = softmax(a_u W)_c                     who somebody with these attributes is likely to resemble
    δ_ci ~ N(f_i B_c, noise / reg_item)               how far the people of a prototype differ on an item

Prototypes c are soft clusters of warm users. A rating is the mix of the prototypes' ratings, weighted by the posterior
over prototypes, which for a newcomer is the gate p(c | a_u) and sharpens as their ratings speak for one or another:

    p(c | u) ∝ p(c | a_u) N(y_u | δ_c, b_u integrated out)^T,    T = 1 / (1 + dispersion n_u)

T tempers the likelihood: people are not their prototypes, so that what n ratings leave unexplained is not n independent
surprises. Fitted by EM: posteriors of the warm users, then shrunken means of their ratings, B by ridge regression of
these on content, W by multinomial logistic regression: a mixture of experts (Jacobs et al., "Adaptive Mixtures of Local
Experts", 1991) with clusters of raters as in Hofmann, "Latent Semantic Models for Collaborative Filtering" (TOIS 2004).
"""

from typing import ClassVar, Literal

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
    Role,
    Scores,
)
from models.training.biases import BiasSettings, fit_biases, item_design, residuals, units, user_design
from models.training.factorisation import Problem
from models.training.newcomers import learnt_bias, surprises
from models.training.statistics import item_counts, ridge

GATE_STEPS = 20
"""Newton-like steps (L-BFGS) of the gate in a round of EM; it goes on from where the last round left it."""


class PrototypeZeroShotConfig(BiasSettings):
    """Settings of `PrototypeZeroShot`."""

    reg_content: float = Field(100.0, gt=0)
    """Ridge penalty of regressions on content, in items with as many ratings as the mean item."""
    content_weighting: Literal["items", "ratings"] = "ratings"
    attribute_prior: bool = True
    n_prototypes: int = Field(12, ge=1)
    """C, kinds of people."""
    reg_prototype: float = Field(20.0, gt=0)
    """Ratings' worth of belief that a prototype rates an item as its content says."""
    reg_gate: float = Field(0.001, gt=0)
    """Penalty on the squared entries of W, beside the mean log-likelihood of a user."""
    dispersion: float = Field(0.01, ge=0)
    """How fast further ratings lose weight as evidence of the prototype; n tell as much as 1 / dispersion at most."""
    iterations: int = Field(20, ge=1)
    """Rounds of EM."""


class PrototypeZeroShot(Recommender):
    """A mixture over prototypes. A state is the posterior and, under each prototype, the mean of the user's bias."""

    name: ClassVar[str] = "prototype_zero_shot"
    role: ClassVar[Role] = "content"
    Config = PrototypeZeroShotConfig
    config: PrototypeZeroShotConfig
    mean: Tensor
    unit: Tensor
    noise: Tensor
    quality: Tensor
    generosity: Tensor
    gate: Tensor
    departures: Tensor

    def __init__(self, config: PrototypeZeroShotConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        n_domains, n = len(schema.domains), config.n_prototypes
        n_features, n_attributes = schema.item_attributes.width + n_domains, schema.user_attributes.width + 1
        self.register_buffer("mean", torch.zeros(n_domains))  # (D,)
        self.register_buffer("unit", units(schema))  # (D,) a step of a five-point scale
        self.register_buffer("noise", torch.ones(n_domains))  # (D,) variance of a rating, in units
        self.register_buffer("quality", torch.zeros(n_features, 1))
        self.register_buffer("generosity", torch.zeros(n_attributes, 1))  # C
        self.register_buffer("gate", torch.zeros(n_attributes, n))  # W
        self.register_buffer("departures", torch.zeros(n_features, n))  # B

    @property
    def state_size(self) -> int:
        return 2 * self.config.n_prototypes + 1

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        """(B, 2 C + 1): posterior, mean of the bias under each prototype, its variance as a share of the noise's."""
        person = user_design(evidence.attributes)
        y = residuals(evidence, table, self.mean, self.unit)  # (B, L)
        left = y[:, :, None] - table["departure"][evidence.items]  # (B, L, C)
        weights, noise = evidence.weights[:, :, None], self.noise[table.domain[evidence.items]][:, :, None]
        n = evidence.weights.sum(dim=1, keepdim=True)  # (B, 1)
        squares = (weights * left.square() / noise).sum(dim=1)  # (B, C)
        sums = (weights * left).sum(dim=1)
        return self._posterior(person, n, sums, squares, self._mean_noise(evidence, table))

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        domain, n = table.domain[rows], self.config.n_prototypes
        share, bias, variance = states[:, :n], states[:, n : 2 * n], states[:, 2 * n :]
        departure = table["departure"][rows]  # (N, C)
        level = (share * bias).sum(dim=1, keepdim=True)  # (B, 1)
        deviation = share @ departure.T  # (B, N)
        # Var over prototypes of bias + departure, from its moments: nothing of size B x N x C is made.
        second = (share * bias.square()).sum(dim=1, keepdim=True) + 2 * (share * bias) @ departure.T
        between = (second + share @ departure.square().T - (level + deviation).square()).clamp(min=0)
        unit, noise = self.unit[domain], self.noise[domain]
        unknown = between + noise * (variance + 1 / (table["count"][rows] + self.config.reg_item))
        mean = self.mean[domain] + unit * (table["bias"][rows] + level + deviation)
        return Scores(mean, unit * (noise + unknown).sqrt(), unit * unknown.sqrt())

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        return self._rows(content, torch.full((len(content),), domain))

    def _rows(self, content: ItemContent, domain: Tensor) -> Columns:
        """What content says of items."""
        design = item_design(content.features.to(self.mean), domain.to(self.mean.device), len(self.mean))
        bias = (design @ self.quality)[:, 0]
        return {"departure": design @ self.departures, "bias": bias, "count": torch.zeros_like(bias)}

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """The bias, from what everything else leaves unexplained; content says all of the rest."""
        residual = surprises(self, table, rows, evidence) / self.unit[table.domain[rows[evidence.index]]]
        known = table["count"][rows]
        return {
            "bias": learnt_bias(table["bias"][rows], known + self.config.reg_item, evidence, residual),
            "count": known.index_add(0, evidence.index, evidence.weights),
        }

    def _posterior(self, person: Tensor, n: Tensor, sums: Tensor, squares: Tensor, noise: Tensor) -> Tensor:
        """States (B, 2 C + 1) from attributes, the evidence n (B, 1), and for each prototype the weighted sums of what
        it leaves unexplained (B, C) and of its squares in units of the noise (B, C)."""
        prior, reg = person @ self.generosity, self.config.reg_user  # (B, 1)
        bias = (sums + reg * prior) / (n + reg)
        # -2 log N(y | δ_c) but for what c does not change, b_u ~ N(prior, noise / reg) integrated out
        misfit = squares + (reg * prior.square() - (n + reg) * bias.square()) / noise
        likelihood = -0.5 * misfit / (1 + self.config.dispersion * n)
        share = torch.softmax(person @ self.gate + likelihood, dim=1)
        return torch.cat([share, bias, 1 / (n + reg)], dim=1)

    def _mean_noise(self, evidence: Evidence, table: ItemTable) -> Tensor:
        """The noise of a user's ratings, (B, 1): that of their domains, by how many lie in each."""
        noise = self.noise[table.domain[evidence.items]]
        total, n = (evidence.weights * noise).sum(dim=1), evidence.weights.sum(dim=1)
        return torch.where(n > 0, total / n.clamp(min=1e-9), self.noise.mean())[:, None]

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        biases = fit_biases(data, self.config)
        self.mean.copy_(biases.mean)
        self.noise.copy_(biases.noise)
        self.quality.copy_(biases.content)
        self.generosity.copy_(biases.attributes)
        device = self.mean.device
        problem, domain = Problem.of(data, biases).to(device), data.items.domain.to(device)
        person = user_design(data.user_attributes.to(device))  # (U, A + 1)
        design = item_design(data.items.content.features.to(device), domain, len(self.mean))  # (N, F + D)
        counts = item_counts(data).to(device)
        n = torch.zeros(data.n_users, device=device).index_add_(0, problem.users, problem.weights)
        y = problem.values - problem.item_bias[problem.items]
        noise = self.noise[domain][:, None]  # (N, 1)
        weights, pulls = problem.sparse(problem.weights), problem.sparse(problem.weights * y)
        own_noise = torch.sparse.mm(weights, noise) / n.clamp(min=1e-9)[:, None]
        own_noise = torch.where(n[:, None] > 0, own_noise, self.noise.mean())
        totals = torch.sparse.mm(pulls, torch.ones_like(noise))  # (U, 1) sum of w y
        generator = torch.Generator().manual_seed(options.seed)
        share = torch.randn(data.n_users, self.config.n_prototypes, generator=generator).softmax(dim=1).to(device)
        level = problem.user_bias[:, None].expand_as(share)
        departure = torch.zeros(data.n_items, self.config.n_prototypes, device=device)
        for iteration in range(self.config.iterations):
            departure = self._departures(weights, pulls, share, level, design, counts)
            self._learn_gate(person, share, n > 0)
            sums = totals - torch.sparse.mm(weights, departure)
            # What y² adds is the same for all prototypes.
            squares = torch.sparse.mm(weights, departure.square() / noise) - 2 * torch.sparse.mm(
                pulls, departure / noise
            )
            states = self._posterior(person, n[:, None], sums, squares, own_noise)
            share, level = states[:, : share.shape[1]], states[:, share.shape[1] : -1]
            options.progress("expectation maximisation", (iteration + 1) / self.config.iterations, {})
        columns = self._rows(data.items.content, data.items.domain)
        columns |= {"bias": biases.item.to(device).where(counts > 0, columns["bias"]), "count": counts}
        columns["departure"] = departure.where(counts[:, None] > 0, columns["departure"])
        return Fitted(ItemTable(columns, domain, counts > 0), FitReport(self.config.iterations))

    def _departures(
        self, weights: Tensor, pulls: Tensor, share: Tensor, level: Tensor, design: Tensor, counts: Tensor
    ) -> Tensor:
        """δ (N, C) given posteriors and biases (U, C) of the users: means of what biases leave, shrunken to content."""
        support = torch.sparse.mm(weights.t(), share)  # (N, C) ratings by each prototype
        total = torch.sparse.mm(pulls.t(), share) - torch.sparse.mm(weights.t(), share * level)
        # Weighted by the ratings of all, so that one factorisation serves all prototypes; hence the shrinkage here.
        mean = total / (support + 1)
        by_ratings = counts / counts[counts > 0].mean()
        self.departures.copy_(ridge(design, mean, by_ratings, self.config.reg_content))
        reg = self.config.reg_prototype
        shrunken: Tensor = (total + reg * (design @ self.departures)) / (support + reg)
        return shrunken

    def _learn_gate(self, person: Tensor, share: Tensor, known: Tensor) -> None:
        """W: multinomial logistic regression of the warm users' posteriors on attributes."""
        x, target = person[known], share[known]
        gate = self.gate.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([gate], max_iter=GATE_STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = -(target * torch.log_softmax(x @ gate, dim=1)).sum(dim=1).mean()
            value = value + self.config.reg_gate * gate.square().sum()
            torch.autograd.backward(value)
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        self.gate.copy_(gate.detach())

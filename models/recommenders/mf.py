"""Matrix factorisation with biases; people unseen in training are folded in by ridge regression.

    r_ui = mean_d + unit_d (b_i + b_u + p_u . q_i)
    (b_u, p_u) = argmin sum_j w_j (y_j - b_j - b_u - p_u . q_j)^2 + reg_user b_u^2 + reg |p_u|^2

Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems" (IEEE Computer 2009). `penalty`
chooses how the factors are kept small: `frobenius` (alternating least squares), `trace` (soft-thresholded singular
values) or `ktlf` (the penalty of Knowledge Transfer via Latent Factors); `models.training.factorisation` has them.
Items without ratings get their bias and, where `content_factors` says so, their factors from a regression on content.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
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
from models.training.biases import Biases, BiasSettings, fit_biases, item_design, residuals, units, user_design
from models.training.factorisation import (
    Factors,
    KtlfPenalty,
    Problem,
    alternating_least_squares,
    fold_in,
    ktlf_descent,
    soft_impute,
    with_constant,
)
from models.training.statistics import item_counts, ridge


class MfConfig(BiasSettings):
    """Settings of `Mf`."""

    n_factors: int = Field(8, ge=1)
    """K, width of user and item factors."""
    penalty: Literal["frobenius", "trace", "ktlf"] = "frobenius"
    """How the factors are kept small."""
    reg: float = Field(6.0, gt=0)
    """Penalty on squared factors, in squared steps of a five-point scale; also that of folding in."""
    epochs: int = Field(40, ge=1)
    """Sweeps over the data at most."""
    patience: int = Field(5, ge=1)
    """Sweeps without a better validation RMSE before the fit stops."""
    content_factors: bool = True
    """Whether items without ratings get factors from their content; otherwise zeros."""
    reg_content_factors: float = Field(20.0, gt=0)
    """Ridge penalty of the regression of item factors on content, in items."""
    learning_rate: float = Field(0.01, gt=0)
    """Adam's, for `ktlf`."""
    start_sweeps: int = Field(10, ge=1)
    """Sweeps of `trace` that `ktlf` starts from."""
    ktlf_trace_weight: float = Field(0.1, ge=0)
    """lambda of the KTLF penalty, per rating."""
    ktlf_norm_weight: float = Field(0.1, ge=0)
    """mu of the KTLF penalty, per rating."""
    ktlf_trace_target: float = Field(1.0, ge=0)
    """b of the KTLF penalty, as a share of the start's trace norm."""
    ktlf_user_target: float = Field(0.5, ge=0)
    """d of the KTLF penalty, as a share of twice the start's squared norms."""
    ktlf_item_target: float = Field(0.5, ge=0)
    """c of the KTLF penalty, as a share of twice the start's squared norms."""


class Mf(Recommender):
    """Matrix factorisation; a user's state is their bias and factors."""

    name: ClassVar[str] = "mf"
    role: ClassVar[Role] = "collaborative"
    Config = MfConfig
    config: MfConfig
    mean: Tensor
    unit: Tensor
    content: Tensor
    attributes: Tensor
    gram: Tensor

    def __init__(self, config: MfConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        n_domains = len(schema.domains)
        self.register_buffer("mean", torch.zeros(n_domains))  # (D,)
        self.register_buffer("unit", units(schema))  # (D,) a step of a five-point scale
        self.register_buffer("content", torch.zeros(schema.item_attributes.width + n_domains, 1 + config.n_factors))
        self.register_buffer("attributes", torch.zeros(schema.user_attributes.width + 1, 1))
        self.register_buffer("gram", torch.zeros(1 + config.n_factors, 1 + config.n_factors))  # E[x x'] of a rating

    @property
    def state_size(self) -> int:
        return 1 + self.config.n_factors

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        """(B, 1 + K): bias and factors, folded in."""
        prior = (user_design(evidence.attributes) @ self.attributes)[:, 0]  # (B,) of the bias
        y = residuals(evidence, table, self.mean, self.unit) - prior[:, None]  # (B, L)
        x = torch.cat([torch.ones_like(y)[:, :, None], table["factors"][evidence.items]], dim=2)  # (B, L, 1 + K)
        penalty = torch.full((self.state_size,), self.config.reg, device=y.device)
        penalty[0] = self.config.reg_user
        folded = fold_in(x, y, evidence.weights, penalty)
        return torch.cat([folded[:, :1] + prior[:, None], folded[:, 1:]], dim=1)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        domain = table.domain[rows]  # (N,)
        liking = table["bias"][rows] + states @ with_constant(table["factors"][rows]).T  # (B, N)
        return Scores(self.mean[domain] + self.unit[domain] * liking)

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        domains = torch.full((len(content),), domain, device=self.content.device)
        said = item_design(content.features.to(self.content), domains, len(self.mean)) @ self.content  # (n, 1 + K)
        return {"bias": said[:, 0], "factors": said[:, 1:], "count": said.new_zeros(len(said))}

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """The item's side of folding in: a ridge regression on (1, p_u) around the row as it was, which weighs as much
        as the typical ratings that it was learnt from."""
        at, index = rows[evidence.index], evidence.index
        x = with_constant(evidence.states[:, 1:])  # (M, 1 + K)
        row = torch.cat([table["bias"][rows, None], table["factors"][rows]], dim=1)  # (n, 1 + K)
        domain = table.domain[at]
        rating = (evidence.values - self.mean[domain]) / self.unit[domain] - evidence.states[:, 0]
        residual = evidence.weights * (rating - (x * row[index]).sum(1))
        penalty = torch.full_like(row[0], self.config.reg)
        penalty[0] = self.config.reg_item
        outer = evidence.weights[:, None, None] * x[:, :, None] * x[:, None, :]
        precision = (torch.diag(penalty) + table["count"][rows, None, None] * self.gram).index_add(0, index, outer)
        surprise = torch.zeros_like(row).index_add(0, index, residual[:, None] * x)
        row = row + torch.cholesky_solve(surprise[:, :, None], torch.linalg.cholesky(precision))[:, :, 0]
        return {"bias": row[:, 0], "factors": row[:, 1:]}

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        biases = fit_biases(data, self.config)
        self.mean.copy_(biases.mean)
        self.attributes.copy_(biases.attributes)
        best: _Sweep | None = None
        history: list[dict[str, float]] = []
        for epoch, factors in enumerate(self._sweeps(Problem.of(data, biases).to(options.device), options.seed), 1):
            table = self._install(factors, data, biases)
            metrics = options.validation.measure(self, table) if options.validation is not None else {}
            history.append(metrics)
            options.progress("factorise", epoch / self.config.epochs, metrics)
            sweep = _Sweep(epoch, metrics.get("rmse", -float(epoch)), table, self.content.clone(), self.gram.clone())
            if best is None or sweep.loss < best.loss:
                best = sweep
            if epoch >= self.config.epochs or epoch - best.epoch >= self.config.patience:
                break
        assert best is not None  # `_sweeps` never ends by itself
        self.content.copy_(best.content)
        self.gram.copy_(best.gram)
        return Fitted(best.table, FitReport(best.epoch, history))

    def _sweeps(self, problem: Problem, seed: int) -> Iterator[Factors]:
        config, generator = self.config, torch.Generator().manual_seed(seed)
        if config.penalty == "frobenius":
            return alternating_least_squares(
                problem, config.n_factors, config.reg, config.reg_user, config.reg_item, generator
            )
        traced = soft_impute(problem, config.n_factors, config.reg, generator)
        if config.penalty == "trace":
            return traced
        start = next(islice(traced, config.start_sweeps - 1, None))
        penalty = KtlfPenalty(
            config.ktlf_trace_weight,
            config.ktlf_norm_weight,
            config.ktlf_trace_target,
            config.ktlf_user_target,
            config.ktlf_item_target,
        )
        return ktlf_descent(problem, start, penalty, config.learning_rate)

    def _install(self, factors: Factors, data: Dataset, biases: Biases) -> ItemTable:
        """Regress the factors on content, and make the table: learnt rows, and content rows for untouched items."""
        device = self.content.device
        counts, domain = item_counts(data).to(device), data.items.domain.to(device)
        design = item_design(data.items.content.features.to(device), domain, len(self.mean))
        self.content.zero_()
        self.content[:, :1] = biases.content
        if self.config.content_factors:
            trust = counts / (counts + self.config.reg)
            self.content[:, 1:] = ridge(design, factors.items, trust, self.config.reg_content_factors)
        said, touched = design @ self.content, counts > 0
        x = with_constant(factors.users)
        popularity = torch.bincount(data.interactions.users, data.interactions.weights, data.n_users).to(x)
        self.gram.copy_((x.T * popularity) @ x / popularity.sum())
        columns = {
            "count": counts,
            "bias": factors.item_bias.where(touched, said[:, 0]),
            "factors": factors.items.where(touched[:, None], said[:, 1:]),
        }
        return ItemTable(columns, domain, touched)


@dataclass(frozen=True)
class _Sweep:
    """What one sweep left behind."""

    epoch: int
    loss: float
    table: ItemTable
    content: Tensor
    gram: Tensor

"""Instance transfer: source ratings count as much as they look like the target's, and as little as they mislead.

    min  alpha sum_source w_i (r - b_i - b_u - p_u . q_i)^2 + (1 - alpha) sum_target (r - b_i - b_u - p_u . q_i)^2 + ...
    w_i = (p_target(x_i) / p_source(x_i))^eta  beta^(e_i1 + e_i2 + ...)

one factorisation (`mf`) of both domains. The density ratio is that of a logistic regression that tells the domains'
ratings apart by what their items have in common, x_i: content, quality, how often they are rated (Bickel, Brueckner and
Scheffer, "Discriminative Learning Under Covariate Shift", JMLR 2009); eta flattens it (Shimodaira, 2000). After each
round a source item loses weight by its error e_i, from 0 to 1, with beta = 1 / (1 + sqrt(2 ln n / rounds)) as in Dai et
al., "Boosting for Transfer Learning" (TrAdaBoost, ICML 2007). Ratings are weighed item by item, because the error of
one rating is mostly noise; target ratings keep their weight for the same reason.
"""

import math
from copy import deepcopy
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import with_constant
from models.recommender import Columns, Evidence, FitOptions, FitReport, Fitted, ItemContent, ItemTable, Role
from models.recommenders.mf import Mf, MfConfig
from models.training.biases import Biases, fit_biases
from models.training.domains import Direction, TransferSettings
from models.training.factorisation import Factors
from models.training.habits import exposures
from models.training.statistics import item_counts
from models.training.validation import loss

BATCH = 256
"""Users whose errors are computed at a time."""


class InstanceTransferConfig(MfConfig, TransferSettings):
    """Settings of `InstanceTransfer`, beside those of `Mf`."""

    alpha: float = Field(0.5, gt=0, lt=1)
    """Weight of the source's ratings; the target's is one minus it. At one half both count in full."""
    reweight: bool = True
    """Whether source ratings are weighed by the density ratio; otherwise all alike."""
    flattening: float = Field(0.5, ge=0, le=1)
    """eta: 1 trusts the estimated ratio, 0 weighs all alike."""
    max_ratio: float = Field(10.0, gt=1)
    """Largest density ratio, and one over the smallest."""
    reg_ratio: float = Field(1e-3, gt=0)
    """Penalty on squared coefficients of the logistic regression, whose features have unit variance, per rating."""
    rounds: int = Field(3, ge=1)
    """Fits, each on weights that have learnt from the errors of the one before; 1: none does."""


class InstanceTransfer(Mf):
    """Factorisation of two domains on weighed ratings; a state is a user's bias and factors, the same in both."""

    name: ClassVar[str] = "instance_transfer"
    role: ClassVar[Role] = "transfer"
    Config = InstanceTransferConfig
    config: InstanceTransferConfig
    ratio: Tensor

    def __init__(self, config: InstanceTransferConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.direction = Direction.of(config, schema)
        self.register_buffer("ratio", torch.zeros(3 + schema.item_attributes.width))  # c of (1, x_i)
        self.worth = torch.ones(0)  # (N,) of the items that are being fitted

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        worth = table["worth"][torch.where(evidence.mask, evidence.items, 0)]
        return super().adapt(replace(evidence, weights=evidence.weights * worth), table, target)

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        columns = super().embed_items(content, domain)
        bias = columns["bias"]
        x = self._features(content.features.to(bias), bias, torch.zeros_like(bias))
        return columns | {"worth": self._worth(x, torch.full(bias.shape, domain, device=bias.device))}

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        config, domain = self.config, data.items.domain
        in_source = domain != self.direction.target
        x = self._features(data.items.content.features, fit_biases(data, config).item, exposures(data))
        self.ratio.zero_()
        if config.reweight:
            self.ratio.copy_(log_density_ratio(x, item_counts(data), ~in_source, config.reg_ratio))
        worth = self._worth(x.to(self.ratio), domain.to(self.ratio.device)).cpu()
        n_source = int(in_source[data.interactions.items].sum())
        beta = 1 / (1 + math.sqrt(2 * math.log(max(n_source, 1)) / config.rounds))
        best: tuple[float, dict[str, Tensor], Fitted] | None = None
        history: list[dict[str, float]] = []
        for number in range(config.rounds):
            self.worth = worth.to(options.device)
            weighed = replace(data.interactions, weights=data.interactions.weights * worth[data.interactions.items])
            fitted = super().fit(replace(data, interactions=weighed), options)
            metrics = fitted.report.history[fitted.report.epochs - 1]
            history.append(metrics)
            measured = loss(metrics)
            error = -float(number) if measured is None else measured
            if best is None or error < best[0]:
                best = (error, deepcopy(self.state_dict()), fitted)
            if number + 1 < config.rounds:
                worth = torch.where(in_source, worth * beta ** self._errors(data, fitted.table), worth)
        assert best is not None  # there is one round at least
        self.load_state_dict(best[1])
        self.worth = torch.ones(0)
        return Fitted(best[2].table, FitReport(best[2].report.epochs, history))

    def _install(self, factors: Factors, data: Dataset, biases: Biases) -> ItemTable:
        table = super()._install(factors, data, biases)
        return replace(table, columns=table.columns | {"worth": self.worth})

    def _features(self, content: Tensor, bias: Tensor, exposure: Tensor) -> Tensor:
        """x_i (n, F + 2)."""
        return torch.cat([content, bias[:, None], exposure[:, None]], dim=1)

    def _worth(self, x: Tensor, domain: Tensor) -> Tensor:
        """(n,) what a rating of an item is worth before any fit."""
        bound = math.log(self.config.max_ratio)
        likeness = (self.config.flattening * (with_constant(x) @ self.ratio).clamp(-bound, bound)).exp()
        alpha = self.config.alpha
        return torch.where(domain == self.direction.target, 2 * (1 - alpha), 2 * alpha * likeness)

    @torch.no_grad()
    def _errors(self, data: Dataset, table: ItemTable) -> Tensor:
        """(N,) mean absolute error of each item's ratings and of one without error, over the largest."""
        seen = data.interactions
        total = torch.zeros(data.n_items)
        for users in torch.split(torch.unique(seen.users), BATCH):
            evidence = data.evidence(users).to(table.domain.device)
            mean = self.score(self.adapt(evidence, table, self.direction.target), table).mean
            error = (evidence.values - mean.gather(1, evidence.items)).abs() / self.unit[table.domain[evidence.items]]
            total.index_add_(0, evidence.items.flatten().cpu(), (evidence.weights * error).flatten().cpu())
        errors = total / (item_counts(data) + 1)
        return errors / errors.max().clamp(min=1e-9)


def log_density_ratio(x: Tensor, counts: Tensor, in_target: Tensor, reg: float) -> Tensor:
    """c (1 + F,) with exp(c . (1, x)) ~ p_target(x) / p_source(x), from items x (N, F) with `counts` (N,) of ratings.

    Logistic regression in which both domains weigh the same, so that the odds are the ratio. Features are standardised
    and their coefficients penalised. Zeros where a domain has no ratings.
    """
    weights = torch.zeros_like(counts)
    for there in (in_target, ~in_target):
        total = (counts * there).sum()
        if total == 0:
            return x.new_zeros(1 + x.shape[1])
        weights = weights + there * counts / total / 2
    centre = (weights[:, None] * x).sum(0)
    spread = (weights[:, None] * (x - centre).square()).sum(0).sqrt().clamp(min=1e-3)
    regression = LogisticRegression(C=1 / reg, max_iter=1000)
    regression.fit(((x - centre) / spread).double().numpy(), in_target.numpy(), weights.double().numpy())
    slopes = torch.from_numpy(regression.coef_[0]).to(x) / spread
    return torch.cat([slopes.new_tensor(regression.intercept_) - (centre * slopes).sum(), slopes])

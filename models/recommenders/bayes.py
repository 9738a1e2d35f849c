"""Bayesian factor model: tastes and items are Gaussian beliefs, and a newcomer's is updated in closed form.

    r_ui = mean_d + b_i + c_d w_u0 + v_i . w_u + e_ui,    e_ui ~ N(0, s_i² / weight_ui)
    w_u ~ N(A a_u, I)                                     attributes say what to expect of a user
    (b_i, v_i) ~ N(Γ_d f_i, Λ_d)                          content says what to expect of an item

Fitted by variational EM (`models.training.factor_em`; Lim and Teh, KDD Cup 2007; the content and attribute regressions
are those of Agarwal and Chen, "Regression-based latent factor models", KDD 2009). Items keep their posterior
covariance S_i: a rating of an item that is hardly known tells little about the user, and its prediction is uncertain.
One w_u for all domains *is* the transfer between them; a single domain is the special case.
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
    ItemTable,
    Recommender,
    RecommenderConfig,
    Role,
    Scores,
)
from models.training.factor_em import FactorEM
from models.training.gaussian import (
    pack,
    pack_dual,
    pack_outer,
    packed_size,
    posterior,
    unpack,
    unpack_lower,
    with_intercept,
)
from models.training.statistics import domain_means, item_counts


class BayesConfig(RecommenderConfig):
    """Settings of `Bayes`."""

    n_factors: int = Field(16, ge=1, le=64)
    """K, taste factors beside the user's bias."""
    iterations: int = Field(40, ge=1)
    """Rounds of variational EM."""
    attribute_prior: bool = True
    """Whether a user's attributes move the prior mean of their taste."""
    content_prior: bool = True
    """Whether an item's content moves the prior mean of its bias and factors."""
    noise_prior: float = Field(100.0, gt=0)
    """Ratings' worth of belief that an item's ratings are as noisy as its domain's; infinite: one noise a domain."""


class Bayes(Recommender):
    """Gaussian beliefs about users and items; a state is the posterior mean and the root of its covariance."""

    name: ClassVar[str] = "bayes"
    role: ClassVar[Role] = "collaborative"
    Config = BayesConfig
    config: BayesConfig
    domain_mean: Tensor
    loading: Tensor
    domain_noise: Tensor
    attribute_weights: Tensor
    content_weights: Tensor
    content_covariance: Tensor
    item_spread: Tensor

    def __init__(self, config: BayesConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        n_domains, size = len(schema.domains), 1 + config.n_factors
        n_attributes = 1 + (schema.user_attributes.width if config.attribute_prior else 0)
        n_features = 1 + (schema.item_attributes.width if config.content_prior else 0)
        self.size = size  # P: bias and factors, of a user and of an item
        self.register_buffer("domain_mean", torch.zeros(n_domains))
        self.register_buffer("loading", torch.ones(n_domains))  # c
        self.register_buffer("domain_noise", torch.ones(n_domains))  # s², for items without a rating
        self.register_buffer("attribute_weights", torch.zeros(n_attributes, size))  # A'
        self.register_buffer("content_weights", torch.zeros(n_domains, n_features, size))  # Γ'
        self.register_buffer("content_covariance", torch.zeros(n_domains, n_features, n_features))  # in units of Λ
        self.register_buffer("item_spread", torch.eye(size).repeat(n_domains, 1, 1))  # Λ

    @property
    def state_size(self) -> int:
        return self.size + packed_size(self.size)

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        domain = table.domain[evidence.items]  # (B, L)
        mean, phi = table["mean"][evidence.items], self._loadings(table, evidence.items)  # (B, L, P)
        prior = self._prior_mean(evidence.attributes)  # (B, P)
        spread = self._item_variance(table["covariance"][evidence.items], prior)
        precision = evidence.weights / (table["noise"][evidence.items] + evidence.weights * spread)
        residual = evidence.values - self.domain_mean[domain] - mean[..., 0]
        weighted = phi * precision[..., None]
        information = torch.eye(self.size, device=phi.device) + weighted.mT @ phi
        shift = prior + (weighted * residual[..., None]).sum(1)
        mean, root = posterior(information, shift)
        return torch.cat([mean, pack(root)], dim=1)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        user, root = self._unpacked(states)
        phi = self._loadings(table, rows)  # (N, P)
        offset = self.domain_mean[table.domain[rows]] + table["mean"][rows, 0]
        mean = offset + user @ phi.T  # (B, N)
        covariance = root.mT @ root
        taste = pack_dual(covariance) @ pack_outer(phi).T  # φ' C φ
        moments = self._item_moments(user)
        moments[:, 1:, 1:] += covariance[:, 1:, 1:]
        taste = (taste + pack_dual(moments) @ table["covariance"][rows].T).clamp(min=0)  # + E[x' S x]
        return Scores(mean, (taste + table["noise"][rows]).sqrt(), taste.sqrt())

    def sample(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        rows = slice(None) if positions is None else positions
        user, root = self._unpacked(states)
        mean = table["mean"][rows]  # (N, P)
        factor = torch.linalg.cholesky(unpack(table["covariance"][rows], self.size))
        noise_u = torch.randn((n, *user.shape), generator=generator, device=generator.device).to(user)
        noise_i = torch.randn((n, *mean.shape), generator=generator, device=generator.device).to(mean)
        tastes = user + torch.einsum("bpq,nbp->nbq", root, noise_u)  # (n, B, P)
        drawn = mean + torch.einsum("ipq,niq->nip", factor, noise_i)  # (n, N, P): the same for all users of a draw
        domain = table.domain[rows]
        level = tastes[..., :1] * self.loading[domain]  # (n, B, N)
        return self.domain_mean[domain] + drawn[:, None, :, 0] + level + tastes[..., 1:] @ drawn[..., 1:].mT

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        features = content.features if self.config.content_prior else content.features[:, :0]
        design = with_intercept(features.to(self.domain_mean))  # (n, 1 + F)
        inflation = 1 + ((design @ self.content_covariance[domain]) * design).sum(1)  # (n,)
        return {
            "mean": design @ self.content_weights[domain],
            "covariance": inflation[:, None] * pack(self.item_spread[domain]),
            "noise": self.domain_noise[domain].expand(len(content)).clone(),
        }

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        means = domain_means(data)
        em = FactorEM(
            data,
            means,
            generator=torch.Generator().manual_seed(options.seed),
            **self.config.model_dump(exclude={"iterations"}),
        )
        history: list[dict[str, float]] = []
        for epoch in range(self.config.iterations):
            em.step()
            history.append({"noise": float(em.domain_noise.mean().sqrt())})
            options.progress("variational EM", (epoch + 1) / self.config.iterations, history[-1])
        self.domain_mean.copy_(means)
        self.loading.copy_(em.loading)
        self.domain_noise.copy_(em.domain_noise)
        self.attribute_weights.copy_(em.user_prior.weights)
        for d, prior in enumerate(em.item_priors):
            self.content_weights[d].copy_(prior.weights)
            self.content_covariance[d].copy_(prior.covariance)
            self.item_spread[d].copy_(prior.noise)
        trained = item_counts(data) > 0
        columns = {
            "mean": em.item_mean.float(),
            "covariance": pack(em.item_covariance).float(),
            "noise": em.noise.float(),
        }
        table = ItemTable(columns, data.items.domain, trained).to(options.device)
        for d in range(len(means)):
            fresh = (~trained & (data.items.domain == d)).nonzero().flatten()
            if len(fresh):
                table = table.with_rows(fresh.to(options.device), self.embed_items(data.items.content.rows(fresh), d))
        return Fitted(table, FitReport(self.config.iterations, history))

    def _prior_mean(self, attributes: Tensor) -> Tensor:
        known = attributes if self.config.attribute_prior else attributes[:, :0]
        return with_intercept(known) @ self.attribute_weights

    def _loadings(self, table: ItemTable, rows: Tensor | slice) -> Tensor:
        """φ = (c_d, v) of items (…, P): what a user's w is multiplied by."""
        return torch.cat([self.loading[table.domain[rows]][..., None], table["mean"][rows][..., 1:]], dim=-1)

    def _item_moments(self, user: Tensor) -> Tensor:
        """x x' (B, P, P) of x = (1, w_1, …, w_K), at a user's mean."""
        x = torch.cat([torch.ones_like(user[:, :1]), user[:, 1:]], dim=1)
        return x[:, :, None] * x[:, None, :]

    def _item_variance(self, covariance: Tensor, prior: Tensor) -> Tensor:
        """E[x' S x] (B, L) under the prior: what not knowing the item adds to a rating's noise."""
        moments = self._item_moments(prior) + torch.nn.functional.pad(
            torch.eye(self.size - 1, device=prior.device), (1, 0, 1, 0)
        )
        return (covariance @ pack_dual(moments)[..., None]).squeeze(-1)

    def _unpacked(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, P) and R (B, P, P), with covariance R' R."""
        return states[:, : self.size], unpack_lower(states[:, self.size :], self.size)

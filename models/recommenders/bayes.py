"""Bayesian factor model: tastes and items are Gaussian beliefs, and a newcomer's is updated in closed form.

    r_ui = mean_d + b_i + c_d w_u0 + v_i . w_u + e_ui,    e_ui ~ N(0, s_i² / weight_ui)
    w_u ~ N(A a_u, I)                                     attributes say what to expect of a user
    (b_i, v_i) ~ N(Γ_d f_i, Λ_d)                          content and popularity say what to expect of an item
                                                          (content alone where it is new: `models.training.new_items`)

Fitted by variational EM (`models.training.factor_em`; Lim and Teh, KDD Cup 2007; the content and attribute regressions
are those of Agarwal and Chen, "Regression-based latent factor models", KDD 2009). Items keep their posterior
covariance S_i: a rating of an item that is hardly known tells little about the user, and its prediction is uncertain.
One w_u for all domains *is* the transfer between them, c_d = c in steps of each domain's scale; a single domain is the
special case.

Ratings are not missing at random, and what was chosen counts as evidence too (`models.training.choice`): an item's
raters stand where z_i points, so that a support set tells of taste by its items alone, and a user who rates an item
is likelier to be one who likes it. `mean` is therefore what a user would give *if they rated the item*:

    mean_ui = mean_d + b_i + φ_i' m_u + λ φ_i' C_u z_i,    φ_i = (c_d, v_i),  λ the weight of one more choice.

Where i is new, who chooses what is good is believed to have done so again: b_i + γ q_u (`models.training.quality`), and
less so as it becomes known.
"""

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import one_hot, pad

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.exposure import Exposure
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
    entries,
)
from models.training.choice import fit_choices
from models.training.exposure import fit_exposure
from models.training.factor_em import FactorEM
from models.training.gaussian import (
    pack,
    pack_dual,
    pack_dual_outer,
    packed_size,
    posterior,
    unpack,
    unpack_lower,
    with_intercept,
)
from models.training.gaussian_single import Rows, User
from models.training.quality import Quality
from models.training.sentences import SentenceProjection
from models.training.statistics import domain_means, item_counts


class BayesConfig(RecommenderConfig):
    """Settings of `Bayes`."""

    n_factors: int = Field(16, ge=0, le=64)
    """K, taste factors beside the user's bias."""
    iterations: int = Field(40, ge=1)
    """Rounds of variational EM."""
    attribute_prior: bool = True
    """Whether a user's attributes move the prior mean of their taste."""
    content_prior: bool = True
    """Whether an item's content and popularity move the prior mean of its bias and factors."""
    sentence_size: int = Field(0, ge=0, le=384)
    """Directions of the sentence embeddings of items' texts that are content too; needs the extra `text`."""
    noise_prior: float | None = Field(50.0, gt=0)
    """Ratings' worth of belief that an item's ratings are as noisy as its domain's; None: one noise a domain."""
    choice_dispersion: float | None = Field(0.045, ge=0)
    """δ: n choices of what to rate tell as much as n / (1 + δ n) independent ones; None: choices tell nothing."""
    exposure_factors: int = Field(16, ge=0, le=64)
    """Habits in the model of who knows which item; questions to newcomers go by it, scores do not."""


class Bayes(Recommender):
    """Gaussian beliefs about users and items. A state is the posterior mean m_u, the root of its covariance C_u, and
    how much one more choice in each domain would tell."""

    name: ClassVar[str] = "bayes"
    role: ClassVar[Role] = "collaborative"
    Config = BayesConfig
    config: BayesConfig
    domain_mean: Tensor
    loading: Tensor
    domain_noise: Tensor
    attribute_weights: Tensor
    content_weights: Tensor
    new_weights: Tensor
    new_covariance: Tensor
    new_spread: Tensor
    choice_spread: Tensor
    choice_pull: Tensor
    typical_lift: Tensor

    def __init__(self, config: BayesConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        n_domains, size = len(schema.domains), 1 + config.n_factors
        n_attributes = 1 + (schema.user_attributes.width if config.attribute_prior else 0)
        # Of an item: intercept, attributes, sentences; how often it was rated besides.
        n_features = 1 + schema.item_attributes.width + config.sentence_size if config.content_prior else 1
        n_known = n_features + 1 if config.content_prior else 1
        self.size = size  # P: bias and factors, of a user and of an item
        self.sentences = SentenceProjection(config.sentence_size if config.content_prior else 0)
        self.register_buffer("domain_mean", torch.zeros(n_domains))
        self.register_buffer("loading", torch.ones(n_domains))  # c
        self.register_buffer("domain_noise", torch.ones(n_domains))  # s², for items without a rating
        self.register_buffer("attribute_weights", torch.zeros(n_attributes, size))  # A'
        self.register_buffer("content_weights", torch.zeros(n_domains, n_known, size))  # Γ'
        # What is expected of new items, without Γ's row of how often they were rated.
        self.register_buffer("new_weights", torch.zeros(n_domains, n_features, size))
        self.register_buffer("new_covariance", torch.zeros(n_domains, n_features, n_features))  # in units of Λ_00
        self.register_buffer("new_spread", torch.eye(size).repeat(n_domains, 1, 1))  # Λ
        self.register_buffer("choice_spread", torch.zeros(n_domains, size, size))  # C
        self.register_buffer("choice_pull", torch.zeros(n_domains, size))  # C μ
        self.register_buffer("typical_lift", torch.zeros(n_domains, packed_size(size)))  # of a newcomer
        self.quality = Quality(n_domains)

    @property
    def state_size(self) -> int:
        return self.size + packed_size(self.size) + 2 * len(self.schema.domains)

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        items = evidence.items  # (B, L)
        mean, phi = entries(table["mean"], items), self._loadings(table, items)  # (B, L, P)
        prior = self._prior_mean(evidence.attributes)  # (B, P)
        # The best linear estimate of w: an item that is not known exactly adds E[x' S x] to its rating's noise.
        doubt = self._item_variance(table["covariance"][items], prior)  # (B, L)
        weighted = phi * (evidence.weights / (table["noise"][items] + evidence.weights * doubt))[..., None]
        residual = evidence.values - self.domain_mean[table.domain[items]] - mean[..., 0]
        precision = torch.eye(self.size, device=phi.device) + weighted.mT @ phi
        shift = prior + (residual[:, None] @ weighted).squeeze(1)
        choice_precision, choice_shift, next_choice, quality = self._choices(evidence, table)
        user, root = posterior(precision + choice_precision, shift + choice_shift)
        return torch.cat([user, pack(root), next_choice, quality], dim=1)

    def means(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Tensor:
        user, root, *choices = self._unpacked(states)
        offset = self._offset(table, positions, root.mT @ root, *choices)
        return offset + user @ self._loadings(table, positions).T  # (B, N)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        user, root, *choices = self._unpacked(states)
        covariance = root.mT @ root
        phi = self._loadings(table, positions)  # (N, P)
        mean = self._offset(table, positions, covariance, *choices) + user @ phi.T  # (B, N)
        taste = self._taste_variance(user, root, covariance, phi, table, positions)
        return Scores(mean, (taste + entries(table["noise"], positions)).sqrt(), taste.sqrt())

    def taste_std(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Tensor:
        if _is_single(states):
            user_alone, rows = User.of(states[0].numpy(), self.size), self._rows_alone(table, positions)
            return torch.from_numpy(user_alone.taste_std(rows))[None]
        user, root, *_ = self._unpacked(states)
        phi = self._loadings(table, positions)  # (N, P)
        return self._taste_variance(user, root, root.mT @ root, phi, table, positions).sqrt()

    def deviations(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        if _is_single(states) and generator.device.type == "cpu":
            user_alone, rows = User.of(states[0].numpy(), self.size), self._rows_alone(table, positions)
            return torch.from_numpy(user_alone.deviations(n, rows, generator))[:, None]
        user, root, *_ = self._unpacked(states)
        noise = torch.randn((n, *user.shape), generator=generator, device=generator.device).to(user)
        moved = (noise[:, :, None] @ root).squeeze(2)  # (n, B, P), of the tastes
        # Under one taste what is not known of an item is one number, N(0, x' S x), independent of the other items'.
        moments = pack_dual_outer(_with_one(user + moved).flatten(0, 1))  # (n B, packed)
        doubt = (moments @ entries(table["covariance"], positions).T).clamp_(min=0).sqrt_()  # (n B, N)
        noise = torch.randn((n, len(user), doubt.shape[1]), generator=generator, device=generator.device).to(user)
        return (moved @ self._loadings(table, positions).T).addcmul_(doubt.view_as(noise), noise)  # (n, B, N)

    def taste_root(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        """R φ_i, for φ_i' w and φ_j' w vary together by φ_i' C φ_j; what is not known of an item hangs on nothing."""
        return self._loadings(table, positions) @ self._unpacked(states)[1].mT  # (B, N, P)

    def exposure(self, table: ItemTable, positions: Tensor | None = None) -> Exposure | None:
        column = table["exposure"]
        return Exposure.unpacked(column if positions is None else column[positions])

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        features = torch.cat([content.features.to(self.domain_mean), self.sentences(content.texts)], dim=1)
        design = with_intercept(features)[:, : self.new_weights.shape[1]]  # (n, 1 + F)
        covariance = pack(self.new_spread[domain]).repeat(len(features), 1)
        # What is not known of the weights matters for the bias; entry 0 of a packed matrix is the bias's variance.
        doubt = ((design @ self.new_covariance[domain]) * design).sum(1)  # (n,)
        covariance[:, 0] += doubt * self.new_spread[domain, 0, 0]
        return {
            "mean": design @ self.new_weights[domain],
            "covariance": covariance,
            "noise": self.domain_noise[domain].repeat(len(features)),
            "choice": features.new_zeros(len(features), self.size),
            "lift": self.typical_lift[domain].repeat(len(features), 1),
            "new": features.new_ones(len(features)),
            "exposure": features.new_zeros(len(features), 1 + self.config.exposure_factors),
        }

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """The posterior of (b_i, v_i): the item's side of `adapt`. Not knowing who rates adds φ' C φ to the noise."""
        at, index = rows[evidence.index], evidence.index  # (M,)
        user, root, next_choice, _ = self._unpacked(evidence.states)
        covariance = root.mT @ root
        phi = self._loadings(table, at)  # (M, P)
        prior = unpack(table["covariance"][rows], self.size)  # (n, P, P)
        doubt = (root @ phi.unsqueeze(-1)).square().sum((1, 2))  # φ' C φ
        doubt += (covariance[:, 1:, 1:] * prior[index, 1:, 1:]).sum((1, 2))  # tr(S C)
        x = _with_one(user)
        domain = table.domain[at]
        chosen = next_choice.gather(1, domain[:, None])[:, 0] * (pack_dual(covariance) * table["lift"][at]).sum(1)
        level = self.domain_mean[domain] + chosen + self.loading[domain] * user[:, 0]
        weighted = x * (evidence.weights / (table["noise"][at] + evidence.weights * doubt))[:, None]
        before = torch.linalg.inv(prior)
        precision = before.index_add(0, index, weighted[:, :, None] * x[:, None, :])
        shift = (before @ table["mean"][rows].unsqueeze(-1)).squeeze(-1)
        shift = shift.index_add(0, index, weighted * (evidence.values - level)[:, None])
        mean, root = posterior(precision, shift)
        covariance = pack(root.mT @ root)
        left = covariance[:, 0] / table["covariance"][rows, 0]  # of the variance of b_i
        return {"mean": mean, "covariance": covariance, "new": table["new"][rows] * left}

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        means, generator = domain_means(data), torch.Generator().manual_seed(options.seed)
        texts = self.sentences.learn(data.items.content.texts, item_counts(data) > 0)
        settings = self.config.model_dump(include={"n_factors", "attribute_prior", "content_prior", "noise_prior"})
        em = FactorEM(data, means, generator=generator, more_content=texts, **settings)
        history: list[dict[str, float]] = []
        for epoch in range(self.config.iterations):
            em.step()
            history.append({"noise": float(em.domain_noise.mean().sqrt())})
            options.progress("variational EM", (epoch + 1) / self.config.iterations, history[-1])
        choices = fit_choices(data, em.user_mean, em.user_covariance)
        self.domain_mean.copy_(means)
        self.loading.copy_(em.loading)
        self.domain_noise.copy_(em.domain_noise)
        self.attribute_weights.copy_(em.user_prior.weights)
        self.choice_spread.copy_(choices.spread)
        self.choice_pull.copy_(choices.pull)
        phi = torch.cat([em.loading[data.items.domain, None], em.item_mean[:, 1:]], dim=1)  # (N, P)
        lift = phi[:, :, None] * choices.vectors[:, None, :]
        lift = pack((lift + lift.mT) / 2)  # packed, (N, Q): its inner product with C_u is φ' C_u z
        counts = item_counts(data)
        for d in range(len(means)):
            self.content_weights[d].copy_(em.item_priors[d].weights)
            expected = em.new_items(d)
            self.new_weights[d].copy_(expected.weights)
            self.new_covariance[d].copy_(expected.covariance)
            self.new_spread[d].copy_(expected.spread)
            popularity = (counts * (data.items.domain == d)).double()
            self.typical_lift[d].copy_(popularity @ lift / popularity.sum().clamp(min=1))
        if self.config.choice_dispersion is not None:
            told = [self.embed_items(data.items.content, d)["mean"][:, 0].cpu() for d in range(len(means))]
            self.quality.fit(data, em.item_mean[:, 0], torch.stack(told).gather(0, data.items.domain[None])[0])
        columns = {
            "mean": em.item_mean,
            "covariance": pack(em.item_covariance),
            "noise": em.noise,
            "choice": choices.vectors,
            "lift": lift,
            "new": torch.zeros(data.n_items),  # share of what is not known of a new item's bias
            "exposure": fit_exposure(data, self.config.exposure_factors, options.seed).packed(),
        }
        columns = {name: column.float() for name, column in columns.items()}
        table = ItemTable(columns, data.items.domain, counts > 0).to(options.device)
        for d in range(len(means)):
            fresh = ((counts == 0) & (data.items.domain == d)).nonzero().flatten()
            if len(fresh):
                table = table.with_rows(fresh.to(options.device), self.embed_items(data.items.content.rows(fresh), d))
        return Fitted(table, FitReport(self.config.iterations, history))

    def _prior_mean(self, attributes: Tensor) -> Tensor:
        """A a_u (B, P)."""
        return with_intercept(attributes if self.config.attribute_prior else attributes[:, :0]) @ self.attribute_weights

    def _loadings(self, table: ItemTable, items: Tensor | None) -> Tensor:
        """φ = (c_d, v) of items (…, P): what a user's w is multiplied by."""
        loadings = entries(table["mean"], items).clone()
        loadings[..., 0] = entries(self.loading, entries(table.domain, items))
        return loadings

    def _rows_alone(self, table: ItemTable, positions: Tensor | None) -> Rows:
        """The same for numpy."""
        at = np.arange(len(table)) if positions is None else positions.numpy()
        loadings = table["mean"].numpy().take(at, 0)
        loadings[:, 0] = self.loading.numpy().take(table.domain.numpy().take(at))
        return Rows(loadings, table["covariance"].numpy().take(at, 0))

    def _offset(
        self, table: ItemTable, positions: Tensor | None, covariance: Tensor, next_choice: Tensor, quality: Tensor
    ) -> Tensor:
        """mean_d + b_i + λ φ_i' C_u z_i (B, N), of new items γ q_u too: all of the mean but the user's taste."""
        domain = entries(table.domain, positions)
        chosen = pack_dual(covariance) @ entries(table["lift"], positions).T
        chosen *= next_choice.index_select(1, domain)
        chosen.addcmul_(quality.index_select(1, domain), entries(table["new"], positions))
        return chosen.add_(entries(self.domain_mean, domain)).add_(entries(table["mean"][:, 0], positions))

    def _taste_variance(
        self,
        user: Tensor,
        root: Tensor,
        covariance: Tensor,
        phi: Tensor,
        table: ItemTable,
        positions: Tensor | None,
    ) -> Tensor:
        """Var of φ'w + x'θ (B, N) for independent w and θ = (b, v): |R φ|² + E[x' S x]."""
        inner = covariance.clone()
        inner[:, 0] = inner[:, :, 0] = 0
        projected = (root.reshape(-1, self.size) @ phi.T).square_().reshape(*root.shape[:2], -1)  # (B, P, N), one GEMM
        moments = pack_dual_outer(_with_one(user)) + pack_dual(inner)
        known_badly = moments @ entries(table["covariance"], positions).T
        return projected.sum(1).add_(known_badly).clamp_(min=0)

    def _choices(self, evidence: Evidence, table: ItemTable) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What having chosen these items says of w: precision (B, P, P) and precision times mean (B, P); what one
        more choice in each domain would add, as a share of a first one, λ (B, D); and γ q (B, D)."""
        dispersion, n_domains = self.config.choice_dispersion, len(self.domain_mean)
        if dispersion is None:
            nothing = self.choice_pull.new_zeros(evidence.batch_size, 1)
            neither = nothing.expand(-1, n_domains)
            return nothing[..., None], nothing, neither, neither
        items, domain = evidence.items, table.domain[evidence.items]
        counted = evidence.weights * table.trained[items]  # of a newcomer nobody knows yet who chooses it
        member = one_hot(domain, n_domains) * counted[..., None]  # (B, L, D)
        counts = member.sum(1)  # (B, D)
        discount = 1 / (1 + dispersion * counts)
        each = member @ discount[..., None]  # (B, L, 1)
        precision = torch.einsum("bd,dpq->bpq", counts * discount, self.choice_spread)
        shift = (counts * discount) @ self.choice_pull + (each.mT @ table["choice"][items]).squeeze(1)
        more = discount / (1 + dispersion * (counts + 1))  # d/dn of n / (1 + δ n), as a difference
        return precision, shift, more, self.quality.of(member, domain, table["mean"][items, 0])

    def _item_variance(self, covariance: Tensor, prior: Tensor) -> Tensor:
        """E[x' S x] (B, L) under the prior of w: what not knowing an item adds to the noise of its rating."""
        spread = pack_dual(pad(torch.eye(self.size - 1, device=prior.device), (1, 0, 1, 0)))
        return (covariance @ (pack_dual_outer(_with_one(prior)) + spread)[..., None]).squeeze(-1)

    def _unpacked(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """m (B, P), R (B, P, P) with C = R' R, λ (B, D) and γ q (B, D)."""
        end, n_domains = self.size + packed_size(self.size), len(self.schema.domains)
        choices = states[:, end : end + 2 * n_domains]
        root = unpack_lower(states[:, self.size : end], self.size)
        return states[:, : self.size], root, choices[:, :n_domains], choices[:, n_domains:]


def _is_single(states: Tensor) -> bool:
    """Whether numpy is the faster one."""
    return (
        len(states) == 1 and states.device.type == "cpu" and states.dtype == torch.float32 and not states.requires_grad
    )


def _with_one(tastes: Tensor) -> Tensor:
    """x = (1, w_1, …, w_K) (…, P) of tastes w: what (b, v) of an item is multiplied by."""
    x = tastes.clone()
    x[..., 0] = 1
    return x

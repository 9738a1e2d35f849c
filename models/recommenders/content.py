"""Content bootstrap: what is known of the items and the person alone answers for items that nobody has touched.

    r_ui = mean_d + unit_d (b_i + b_u + g_u . f_i + strength_u (intercept + slope sim(profile_u, f_i)))

f_i are the item's attributes and its text (hashed TF-IDF, projected); b_i its ratings shrunken towards what content
says of its quality; g_u = y_u G the tastes that the person's attributes speak for, with G of low rank and fitted by EM
on the training users' ridge regressions; strength_u = n_u / (n_u + reg_user) the trust in their own evidence. The
profile is made of the ratings less everything else, so that what is disliked pushes away:

    cosine, euclidean    sum_j w_j y_j f_j / sum_j w_j |y_j|                 sim = cos(p, f),  1 / (1 + |p - f|)
    ridge                argmin_p sum_j w_j (y_j - p . f_j)^2 + reg |p|^2    sim = p . f

With `encoders` f_i goes on with the factors that they foretell from content, and an item that nobody has rated has the
bias that they foretell.

Slope and intercept are fitted on training users, half of whose ratings answer for the other half. Pazzani and Billsus,
"Content-Based Recommendation Systems" (2007).
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

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
from models.training.encoders import EncoderSettings, ItemEncoder
from models.training.factorisation import Problem, fold_in
from models.training.newcomers import learnt_bias, surprises
from models.training.statistics import item_counts, ridge
from models.training.text import TextProjection

CALIBRATION_USERS = 1000
"""Training users, at most, that slope and intercept are fitted on."""
TASTE_SWEEPS = 10
"""Steps of EM for the tastes that attributes speak for."""


class ContentConfig(EncoderSettings, BiasSettings):
    """Settings of `Content`."""

    attribute_size: int = Field(64, ge=0)
    """Columns that attributes are projected to, along their principal axes; fewer attributes keep all they have."""
    text_size: int = Field(32, ge=0)
    """Columns that texts are projected to; 0 ignores texts."""
    text_weight: float = Field(0.5, gt=0)
    """Length of a typical text row beside that of a typical attribute row."""
    n_hashes: int = Field(4096, ge=16)
    """Buckets that words are hashed to."""
    similarity: Literal["ridge", "cosine", "euclidean"] = "ridge"
    """How profile and item are compared."""
    reg: float = Field(10.0, gt=0)
    """Ridge penalty of a person's profile, in ratings of an item with a typical row."""
    attribute_prior: bool = True
    attribute_rank: int = Field(8, ge=0)
    """Rank of the map from attributes to tastes; 0 leaves attributes out of tastes."""


class Content(Recommender):
    """Content-based scores; a user's state is their bias, tastes by attributes, strength and profile."""

    name: ClassVar[str] = "content"
    role: ClassVar[Role] = "content"
    Config = ContentConfig
    config: ContentConfig
    mean: Tensor
    unit: Tensor
    quality: Tensor
    attributes: Tensor
    tastes: Tensor
    centre: Tensor
    projection: Tensor
    text_centre: Tensor
    text_scale: Tensor
    foretold_scale: Tensor
    calibration: Tensor

    def __init__(self, config: ContentConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        n_domains, n_columns = len(schema.domains), schema.item_attributes.width
        n_attributes = min(n_columns, config.attribute_size)
        n_foretold = config.n_factors if config.encoders else 0
        self.n_features = n_attributes + config.text_size + n_foretold  # E
        self.encoder = ItemEncoder(config, schema) if config.encoders else None
        self.text = TextProjection(config.text_size, config.n_hashes)
        self.register_buffer("mean", torch.zeros(n_domains))  # (D,)
        self.register_buffer("unit", units(schema))  # (D,) a step of a five-point scale
        self.register_buffer("quality", torch.zeros(n_columns + n_domains, 1))
        self.register_buffer("attributes", torch.zeros(schema.user_attributes.width + 1, 1))
        self.register_buffer("tastes", torch.zeros(schema.user_attributes.width + 1, self.n_features))  # G
        self.register_buffer("centre", torch.zeros(n_columns))
        self.register_buffer("projection", torch.zeros(n_columns, n_attributes))
        self.register_buffer("text_centre", torch.zeros(config.text_size))
        self.register_buffer("text_scale", torch.ones(()))
        if config.encoders:
            self.register_buffer("foretold_scale", torch.ones(()))
        self.register_buffer("calibration", torch.tensor([0.0, 1.0]))  # intercept, slope

    @property
    def state_size(self) -> int:
        return 2 + 2 * self.n_features

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        """(B, 2 + 2 E): bias, strength, tastes by attributes, profile."""
        person = user_design(evidence.attributes)
        prior, taste = (person @ self.attributes)[:, 0], person @ self.tastes  # (B,), (B, E)
        features = table["features"][evidence.items]  # (B, L, E)
        weights = evidence.weights
        y = residuals(evidence, table, self.mean, self.unit) - (features @ taste[:, :, None])[:, :, 0]  # (B, L)
        n = weights.sum(dim=1)
        bias = ((weights * y).sum(dim=1) + self.config.reg_user * prior) / (n + self.config.reg_user)
        y = (y - bias[:, None]).where(evidence.mask, 0)
        if self.config.similarity == "ridge":
            profile = fold_in(features, y, weights, torch.full((self.n_features,), self.config.reg, device=y.device))
        else:
            pull = weights * y
            profile = (pull[:, None] @ features)[:, 0] / pull.abs().sum(dim=1, keepdim=True).clamp(min=1e-6)
        strength = n / (n + self.config.reg_user)
        return torch.cat([bias[:, None], strength[:, None], taste, profile], dim=1)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        domain, features = table.domain[rows], table["features"][rows]
        bias, strength, taste, profile = torch.split(states, [1, 1, self.n_features, self.n_features], dim=1)
        own = strength * (self.calibration[0] + self.calibration[1] * self._similarity(profile, features))  # (B, N)
        return Scores(self.mean[domain] + self.unit[domain] * (table["bias"][rows] + bias + taste @ features.T + own))

    def _similarity(self, profile: Tensor, features: Tensor) -> Tensor:
        """(B, N) likeness of profiles (B, E) and items (N, E)."""
        if self.config.similarity == "ridge":
            return profile @ features.T
        if self.config.similarity == "cosine":
            return normalize(profile, dim=1) @ normalize(features, dim=1).T
        # The faster way by inner products loses digits, and how many depends on the size of the batch.
        return 1 / (1 + torch.cdist(profile, features, compute_mode="donot_use_mm_for_euclid_dist"))

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        domains = torch.full((len(content),), domain, device=self.mean.device)
        return self._rows(content, domains, self.encoder(content, domains) if self.encoder else None)

    def _rows(self, content: ItemContent, domain: Tensor, foretold: Tensor | None) -> Columns:
        """What content says of items: features and quality. `foretold` (n, 1 + K) is what the encoders say."""
        columns = content.features.to(self.centre)
        attributes = (columns - self.centre) @ self.projection
        text = (self.text(content.texts) - self.text_centre) * self.text_scale
        if foretold is None:
            features = torch.cat([attributes, text], dim=1)
            quality = (item_design(columns, domain, len(self.mean)) @ self.quality)[:, 0]
        else:
            features = torch.cat([attributes, text, foretold[:, 1:] * self.foretold_scale], dim=1)
            quality = foretold[:, 0]
        return {
            "features": features,
            "bias": quality,
            "count": torch.zeros_like(quality),
        }

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """The bias, from what everything else leaves unexplained; content says all of the rest."""
        residual = surprises(self, table, rows, evidence) / self.unit[table.domain[rows[evidence.index]]]
        strength = table["count"][rows] + self.config.reg_item
        return {"bias": learnt_bias(table["bias"][rows], strength, evidence, residual)}

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        biases = fit_biases(data, self.config)
        self.mean.copy_(biases.mean)
        self.quality.copy_(biases.content)
        self.attributes.copy_(biases.attributes)
        self._learn_features(data.items.content, options.seed)
        domain, counts = data.items.domain.to(self.mean.device), item_counts(data).to(self.mean.device)
        trained = counts > 0
        problem = Problem.of(data, biases).to(options.device)
        foretold = None
        if self.encoder is not None:
            foretold = self.encoder.learn(data.items.content, domain, problem, options)
            # Foretold factors meet tastes of unit variance: with this scale `reg` is their penalty too.
            self.foretold_scale.copy_((self.config.reg / biases.noise.mean()).sqrt())
        rows = self._rows(data.items.content, domain, foretold)
        rows["bias"] = biases.item.to(rows["bias"]).where(trained, rows["bias"])
        rows["count"] = counts
        table = ItemTable(rows, domain, trained)
        options.progress("tastes", 0.3, {})
        self.tastes.copy_(self._learn_tastes(data, problem, table["features"]))
        options.progress("calibrate", 0.8, {})
        self.calibration.copy_(self._calibrate(data, table, options.seed))
        return Fitted(table, FitReport())

    def _learn_features(self, content: ItemContent, seed: int) -> None:
        """Principal axes of the attributes and directions of the texts, both with typical rows of length one."""
        columns = content.features.to(self.centre)
        self.centre.copy_(columns.mean(dim=0))
        axes = torch.linalg.svd(columns - self.centre, full_matrices=False).Vh.T  # (F, min(N, F))
        self.projection.zero_()
        kept = min(axes.shape[1], self.projection.shape[1])
        self.projection[:, :kept] = axes[:, :kept]
        self.projection.mul_(_typical_scale((columns - self.centre) @ self.projection))
        self.text.learn(content.texts, seed)
        text = self.text(content.texts)
        self.text_centre.copy_(text.mean(dim=0))
        self.text_scale.copy_(self.config.text_weight * _typical_scale(text - self.text_centre))

    def _learn_tastes(self, data: Dataset, problem: Problem, features: Tensor) -> Tensor:
        """G (A + 1, E): EM for p_u ~ N(y_u G, noise / reg), of which only the means matter here."""
        person = user_design(data.user_attributes.to(features))  # (U, A + 1)
        tastes = features.new_zeros(person.shape[1], self.n_features)
        if self.config.attribute_rank == 0 or self.n_features == 0:
            return tastes
        weights = problem.sparse(problem.weights)
        outer = (features[:, :, None] * features[:, None, :]).flatten(1)  # (N, E E)
        gram = torch.sparse.mm(weights, outer).view(-1, self.n_features, self.n_features)
        target = torch.sparse.mm(problem.sparse(problem.weights * problem.residual()), features)  # (U, E)
        factor = torch.linalg.cholesky(gram + self.config.reg * torch.eye(self.n_features, device=gram.device))
        known = (torch.bincount(problem.users, minlength=len(person)) > 0).to(features)
        for _ in range(TASTE_SWEEPS):
            prior = person @ tastes  # (U, E)
            surprise = target[:, :, None] - gram @ prior[:, :, None]
            posterior = prior + torch.cholesky_solve(surprise, factor)[:, :, 0]
            tastes = ridge(person, posterior, known, self.config.reg_attributes)
        left, singular, right = torch.linalg.svd(tastes, full_matrices=False)
        rank = self.config.attribute_rank
        lowered: Tensor = left[:, :rank] * singular[:rank] @ right[:rank]
        return lowered

    def _calibrate(self, data: Dataset, table: ItemTable, seed: int) -> Tensor:
        """Intercept and slope of the own part, by least squares on ratings that a user's other ratings answer for."""
        generator = torch.Generator().manual_seed(seed)
        active = (data.offsets.diff() >= 2).nonzero()[:, 0]
        users = active[torch.randperm(len(active), generator=generator)[:CALIBRATION_USERS]]
        normal, target = torch.zeros(2, 2, dtype=torch.double), torch.zeros(2, dtype=torch.double)
        for batch in torch.split(users, 100):
            whole = data.evidence(batch)
            asked = (torch.rand(whole.items.shape, generator=generator) < 0.5) & whole.mask
            whole, asked = whole.to(table.domain.device), asked.to(table.domain.device)
            support = Evidence(**{**vars(whole), "weights": whole.weights.masked_fill(asked, 0)})
            states = self.adapt(support, table, 0)
            bias, strength, taste, profile = torch.split(states, [1, 1, self.n_features, self.n_features], dim=1)
            similarity = self._similarity(profile, table["features"]).gather(1, whole.items)
            x = (strength[:, :, None] * torch.stack([torch.ones_like(similarity), similarity], dim=2))[asked].double()
            y = residuals(whole, table, self.mean, self.unit) - bias
            y = (y - (taste @ table["features"].T).gather(1, whole.items))[asked].double()
            weighted = x * whole.weights[asked].double()[:, None]
            normal += (weighted.T @ x).cpu()
            target += (weighted.T @ y).cpu()
        if self.config.similarity != "euclidean":  # the others are centred: no likeness, no opinion
            return torch.tensor([0.0, float(target[1] / (normal[1, 1] + 1.0))])
        fitted: Tensor = torch.linalg.solve(normal + torch.eye(2), target)
        return fitted.float()


def _typical_scale(rows: Tensor) -> Tensor:
    """What brings the root mean square length of rows to one; one where all are zero."""
    length = rows.square().sum(dim=1).mean().sqrt()
    return torch.where(length > 1e-6, 1 / length.clamp(min=1e-6), 1.0)

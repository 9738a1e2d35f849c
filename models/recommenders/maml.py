"""MAML: a network whose weights become a user's own in a few steps on what the user has rated.

Finn et al., "Model-Agnostic Meta-Learning" (ICML 2017), for cold-start recommendation as in Lee et al., "MeLU" (KDD
2019). A task is a user; the inner loop adapts to the support, the outer one learns where the inner one starts:

    r_ui = mean_d + unit_d (b_i + f_theta(a_u, x_i))
    theta_u = inner loop on the support from theta (models.training.inner_loop)
    min over theta of the squared error of the query under theta_u, averaged over users and support sizes

x_i is a learnt embedding plus a projection of the item's content; in training the embedding is left out at random, so
that an item without one gets a sensible row. Which items a user chose to rate shifts where their inner loop starts, as
in SVD++ (Koren, KDD 2008). What adapts (`adapt`) and how (`solver`):

    head       f = theta_u . phi(x_i), an inner product; by gradient steps or in closed form (`ridge`)
    predictor  f = MLP_theta_u([tower(a_u), tower(x_i)]), gradient steps on the MLP
    all        the towers too (MAML as published; gradients by torch.func)

A state is the adapted weights, flat: for `predictor` and `all` a network of the user's own.
"""

import math
from collections.abc import Iterator
from types import EllipsisType
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import MLP, reset_parameters, with_constant
from models.recommender import (
    Columns,
    Evidence,
    FitOptions,
    Fitted,
    ItemContent,
    ItemTable,
    Recommender,
    Role,
    Scores,
)
from models.training.biases import Biases, BiasSettings, fit_biases, item_design, residuals, units
from models.training.episodes import Episode, Episodes
from models.training.inner_loop import Support
from models.training.learners import Everything, FastWeights, Head, Learner, Predictor, RidgeHead
from models.training.outer_loop import outer_loop
from models.training.statistics import item_counts

SCORING_BLOCK = 1 << 20
"""Hidden activations that one block of users may take when scored: they should stay in the processor's cache."""


class MamlConfig(BiasSettings):
    """Settings of `Maml`; `attribute_prior` concerns the biases only, which users have none of here."""

    adapt: Literal["head", "predictor", "all"] = "head"
    """Which weights become a user's own."""
    solver: Literal["ridge", "gradient"] = "ridge"
    """How the head adapts: in closed form or by gradient steps. The other modes always take steps."""
    embedding_size: int = Field(32, ge=1)
    """Width of what the towers give."""
    input_size: int = Field(64, ge=1)
    """Width of an item's input to its tower."""
    tower_sizes: tuple[int, ...] = (64,)
    """Hidden widths of both towers."""
    predictor_sizes: tuple[int, ...] = (64, 64)
    """Hidden widths of the predictor (`predictor`, `all`)."""
    steps: int = Field(5, ge=0)
    """Inner gradient steps."""
    inner_learning_rate: float = Field(0.1, gt=0)
    """Inner rate; where it starts with `meta_sgd`."""
    inner_reg: float = Field(3.0, ge=0)
    """Ratings' worth of belief in the starting weights (gradient steps; the ridge head learns its own)."""
    first_order: bool = False
    """Take inner gradients for constants in the outer loop (FOMAML)."""
    meta_sgd: bool = False
    """Learn an inner rate for each weight (Meta-SGD)."""
    multi_step_loss: bool = False
    """Let the outer loss see the weights after every inner step, less and less as training goes on (MAML++)."""
    uncertainty: bool = True
    """Keep the ridge head's posterior covariance in the state, so that scores have a std."""
    implicit: bool = True
    """Whether the choice of items that a user rated shifts where their inner loop starts."""
    embedding_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of items whose learnt embedding is left out of a training batch."""
    max_support: int = Field(100, ge=1)
    """Largest support of a training episode; sizes are log-uniform."""
    query_size: int = Field(100, ge=1)
    """Largest query of a training episode."""
    epochs: int = Field(40, ge=1)
    """Passes over the users, at most."""
    patience: int = Field(6, ge=1)
    """Epochs without a better validation error before training ends."""
    batch_size: int = Field(64, ge=1)
    """Tasks a step."""
    learning_rate: float = Field(3e-3, gt=0)
    """Of Adam, for everything but the item embeddings' decay; annealed by a cosine."""
    reg: float = Field(1e-5, ge=0)
    """Weight decay of item embeddings."""

    @model_validator(mode="after")
    def _solver_fits(self) -> "MamlConfig":
        if self.solver == "ridge" and (self.meta_sgd or self.multi_step_loss) and self.adapt == "head":
            raise ValueError("the closed form takes no steps: meta_sgd and multi_step_loss need solver = gradient")
        return self


class ItemRows(nn.Module):
    """What training learns of each item, and what it knows beforehand; the table keeps what comes of it."""

    prior_bias: Tensor
    design: Tensor
    trained: Tensor
    domain: Tensor

    def __init__(self, biases: Biases, design: Tensor, trained: Tensor, domain: Tensor, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.bias = nn.Parameter(biases.item.clone())  # (N,)
        self.embedding = nn.Parameter(0.1 * torch.randn(len(design), sizes[0]))  # (N, I)
        self.choice = nn.Parameter(torch.zeros(len(design), sizes[1]))  # (N, U)
        self.register_buffer("prior_bias", (design @ biases.content)[:, 0])  # (N,)
        self.register_buffer("design", design)  # (N, F + D)
        self.register_buffer("trained", trained)  # (N,)
        self.register_buffer("domain", domain)  # (N,)


class Maml(Recommender):
    """A network that adapts to a user by an inner loop; what adapts is a setting."""

    name: ClassVar[str] = "maml"
    role: ClassVar[Role] = "adaptive"
    Config = MamlConfig
    config: MamlConfig
    mean: Tensor
    unit: Tensor
    noise: Tensor
    content_bias: Tensor

    def __init__(self, config: MamlConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        n_domains = len(schema.domains)
        self.register_buffer("mean", torch.zeros(n_domains))  # (D,)
        self.register_buffer("unit", units(schema))  # (D,)
        self.register_buffer("noise", torch.ones(n_domains))  # (D,) variance of a rating, in units
        width = schema.item_attributes.width + n_domains
        self.register_buffer("content_bias", torch.zeros(width, 1))
        self.learner = _learner(config, schema.user_attributes.width + 1)
        self.content_input = nn.Linear(width, config.input_size, bias=False)
        self.content_choice = nn.Linear(width, self.learner.user_size, bias=False) if config.implicit else None

    @property
    def state_size(self) -> int:
        return sum(math.prod(shape) for shape in self.learner.shapes)

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        """(B, S) adapted weights; they hold for all domains."""
        targets = residuals(evidence, table, self.mean, self.unit)
        choice = table["choice"][evidence.items] if self.config.implicit else None
        return self.learner.pack(self._adapt(evidence, targets, table["row"][evidence.items], choice)[-1])

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        features, domain = table["row"][rows], table.domain[rows]
        unit = self.unit[domain]
        fast = self.learner.unpack(states)
        mean = torch.addcmul(self.mean[domain] + unit * table["bias"][rows], self._predict(fast, features), unit)
        if not self._has_posterior:
            return Scores(mean)
        assert isinstance(self.learner, RidgeHead)
        noise = self.noise[domain]
        taste = noise * self.learner.variance(fast, features)
        return Scores(mean, unit * (noise + taste).sqrt(), unit * taste.sqrt())

    def sample(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        """Joint draws of the head from its posterior, where there is one; else the mean."""
        if not self._has_posterior:
            return super().sample(states, table, n, generator, positions)
        rows = slice(None) if positions is None else positions
        features, domain = table["row"][rows], table.domain[rows]
        mean = self.score(states, table, positions).mean
        root = torch.linalg.cholesky_ex(self.learner.unpack(states)[1]).L  # (B, R, R)
        noise = torch.randn((n, *root.shape[:2]), generator=generator, device=generator.device).to(mean)
        deviation: Tensor = (root @ noise.unsqueeze(-1)).squeeze(-1) @ features.mT  # (n, B, N)
        return mean + self.unit[domain] * self.noise[domain].sqrt() * deviation

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        domains = torch.full((len(content),), domain, device=self.unit.device)
        x = item_design(content.features.to(self.unit), domains, len(self.unit))
        columns = {"bias": (x @ self.content_bias)[:, 0], "row": self.learner.embed(self.content_input(x))}
        if self.content_choice is not None:
            columns["choice"] = self.content_choice(x)
        return columns

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            reset_parameters(self)
            return self._fit(data, options)

    @property
    def _has_posterior(self) -> bool:
        return isinstance(self.learner, RidgeHead) and self.learner.uncertainty

    def _adapt(self, evidence: Evidence, targets: Tensor, rows: Tensor, choice: Tensor | None) -> list[FastWeights]:
        """Fast weights after each inner step; `rows` (B, L, R), `choice` (B, L, U): the support items'."""
        shift = targets.new_zeros(len(targets), self.learner.user_size)
        if choice is not None:
            weight = evidence.weights.unsqueeze(1)  # (B, 1, L)
            shift = (weight @ choice).squeeze(1) / (1 + evidence.weights.sum(dim=1, keepdim=True)).sqrt()
        support = Support(rows, targets, evidence.weights)
        return self.learner.adapt(support, with_constant(evidence.attributes), shift)

    def _predict(self, fast: FastWeights, rows: Tensor) -> Tensor:
        """Predictions (B, N) in blocks of users whose activations fit the cache."""
        if isinstance(self.learner, Head):
            return self.learner.predict(fast, rows)
        widest = max(*self.config.tower_sizes, *self.config.predictor_sizes, 1)
        block = max(1, SCORING_BLOCK // (widest * max(1, len(rows))))
        parts = zip(*(torch.split(part, block) for part in fast), strict=True)
        return torch.cat([self.learner.predict(list(part), rows) for part in parts])

    def _fit(self, data: Dataset, options: FitOptions) -> Fitted:
        config = self.config
        biases = fit_biases(data, config)
        self.mean.copy_(biases.mean)
        self.noise.copy_(biases.noise)
        self.content_bias.copy_(biases.content)
        design = item_design(data.items.content.features, data.items.domain, len(self.mean))
        sizes = (config.input_size, self.learner.user_size)
        items = ItemRows(biases, design, item_counts(data) > 0, data.items.domain, sizes).to(options.device)
        generator = torch.Generator().manual_seed(options.seed)
        episodes = Episodes(
            data,
            max_support=config.max_support,
            query_size=config.query_size,
            batch_size=config.batch_size,
            generator=generator,
        )

        def losses(epoch: int) -> Iterator[Tensor]:
            for episode in episodes.epoch():
                yield self._loss(episode, items, epoch / config.epochs, generator)

        return outer_loop(
            self,
            losses,
            lambda: ItemTable(self._columns(items, ..., items.trained[:, None]), items.domain, items.trained),
            [
                {"params": [items.embedding, items.choice], "weight_decay": config.reg},
                {"params": [items.bias, *self.parameters()]},
            ],
            options,
            epochs=config.epochs,
            steps=len(episodes),
            patience=config.patience,
            learning_rate=config.learning_rate,
        )

    def _columns(self, items: ItemRows, index: Tensor | EllipsisType, keep: Tensor) -> Columns:
        """Rows of some training items; `keep` (n, 1) is False where only the content is to speak."""
        x = items.design[index]
        columns = {
            "bias": torch.where(keep[:, 0], items.bias[index], items.prior_bias[index]),
            "row": self.learner.embed(keep * items.embedding[index] + self.content_input(x)),
        }
        if self.content_choice is not None:
            columns["choice"] = keep * items.choice[index] + self.content_choice(x)
        return columns

    def _loss(self, episode: Episode, items: ItemRows, done: float, generator: torch.Generator) -> Tensor:
        """Squared error of the queries after adaptation, in units of a five-point scale."""
        support, query = episode.support.to(self.unit.device), episode.query.to(self.unit.device)
        seen = torch.cat([support.items, query.items], dim=1)  # (B, K + Q)
        index, place = torch.unique(seen, return_inverse=True)
        drawn = torch.rand(len(index), 1, generator=generator).to(seen.device) >= self.config.embedding_dropout
        columns = self._columns(items, index, drawn & items.trained[index, None])
        n, domain = support.items.shape[1], items.domain[seen]
        targets = (torch.cat([support.values, query.values], dim=1) - self.mean[domain]) / self.unit[domain]
        targets = targets - columns["bias"][place]
        rows = nn.functional.embedding(place, columns["row"])  # its gradient is faster than that of indexing
        choice = nn.functional.embedding(place[:, :n], columns["choice"]) if "choice" in columns else None
        trajectory = self._adapt(support, targets[:, :n], rows[:, :n], choice)
        weights = _step_weights(len(trajectory), done) if self.config.multi_step_loss else [1.0]
        loss = targets.new_zeros(())
        for fast, weight in zip(trajectory[-len(weights) :], weights, strict=True):
            error = self.learner.predict(fast, rows[:, n:]) - targets[:, n:]
            loss = loss + weight * (query.weights * error.square()).sum() / query.weights.sum()
        return loss


def _learner(config: MamlConfig, n_attributes: int) -> Learner:
    item_tower = MLP([config.input_size, *config.tower_sizes, config.embedding_size])
    if config.adapt == "head":
        user_tower = MLP([n_attributes, *config.tower_sizes, config.embedding_size + 1])
        if config.solver == "ridge":
            return RidgeHead(user_tower, item_tower, uncertainty=config.uncertainty)
        return Head(
            user_tower,
            item_tower,
            steps=config.steps,
            rate=config.inner_learning_rate,
            meta_sgd=config.meta_sgd,
            reg=config.inner_reg,
            first_order=config.first_order,
        )
    mode = Predictor if config.adapt == "predictor" else Everything
    return mode(
        MLP([n_attributes, *config.tower_sizes, config.embedding_size]),
        item_tower,
        MLP([2 * config.embedding_size, *config.predictor_sizes, 1]),
        steps=config.steps,
        rate=config.inner_learning_rate,
        meta_sgd=config.meta_sgd,
        reg=config.inner_reg,
        first_order=config.first_order,
    )


def _step_weights(n: int, done: float) -> list[float]:
    """Weights of the losses after 0, 1, … inner steps: equal at first, the last step's alone in the end (MAML++)."""
    early = (1 - done) / n
    return [early] * (n - 1) + [1 - (n - 1) * early]

"""Tasks that are users: the inner loop makes weights a user's own on the items that the user has rated.

    r_ui = mean_d + unit_d (b_i + f_theta_u(a_u, x_i)),    theta_u adapted to the residuals of the user's ratings

An item's input x_i is a learnt embedding plus a projection of its content; in training the embedding is left out at
random, so that an item without one gets a sensible row. Which items a user chose to rate shifts where their inner loop
starts, as in SVD++ (Koren, KDD 2008): by sum_j w_j q_j / (1 + delta sum_j w_j), with a discount delta, learnt, as
choices repeat each other. Ratings count by the trust in what is known of their item.
"""

import math
from collections.abc import Callable
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import MLP, with_constant
from models.recommender import Columns, Evidence, FitOptions, ItemEvidence, ItemTable, Scores
from models.training.biases import Biases, item_design, residuals, units
from models.training.episodes import Episode
from models.training.factor_start import FactorStart, factor_start
from models.training.heads import Head, RidgeHead
from models.training.inner_loop import Support
from models.training.learners import Everything, FastWeights, Learner, Predictor
from models.training.newcomers import learnt_bias
from models.training.statistics import item_counts

if TYPE_CHECKING:
    from models.recommenders.maml import MamlConfig

FIRST_DISCOUNT = 0.05
"""delta before training."""
SCORING_BLOCK = 1 << 18
"""Hidden activations that one block of users may take when scored: they should stay in the processor's cache."""


class UserTasks(nn.Module):
    """The network, and how users adapt it."""

    mean: Tensor
    unit: Tensor
    noise: Tensor
    content_bias: Tensor

    def __init__(self, config: "MamlConfig", schema: Schema) -> None:
        super().__init__()
        self.config = config
        n_domains = len(schema.domains)
        self.register_buffer("mean", torch.zeros(n_domains))  # (D,)
        self.register_buffer("unit", units(schema))  # (D,)
        self.register_buffer("noise", torch.ones(n_domains))  # (D,) variance of a rating, in units
        width = schema.item_attributes.width + n_domains
        self.register_buffer("content_bias", torch.zeros(width, 1))
        self.log_discount = nn.Parameter(torch.full((1,), math.log(FIRST_DISCOUNT)))
        self.content_log_trust = nn.Parameter(torch.zeros(1))
        self.learner = user_learner(config, schema.user_attributes.width + 1)
        self.content_input = nn.Linear(width, config.input_size, bias=False)
        self.content_choice = nn.Linear(width, self.learner.user_size, bias=False) if config.implicit else None

    @property
    def state_size(self) -> int:
        """S, the numbers of the adapted weights."""
        return sum(math.prod(shape) for shape in self.learner.shapes)

    @property
    def has_posterior(self) -> bool:
        """Whether states hold a covariance."""
        return isinstance(self.learner, RidgeHead) and self.learner.uncertainty

    def adapt(self, evidence: Evidence, table: ItemTable) -> Tensor:
        """(B, S) adapted weights."""
        targets = residuals(evidence, table, self.mean, self.unit)
        columns = {name: table[name][evidence.items] for name in table.columns if name not in ("bias", "count")}
        return self.learner.pack(self.inner_loop(evidence, targets, columns)[-1])

    def means(self, states: Tensor, table: ItemTable, rows: Tensor | slice) -> Tensor:
        """Expected ratings (B, N) of the items at `rows`."""
        features, domain = table["row"][rows], table.domain[rows]
        unit, fast = self.unit[domain], self.learner.unpack(states)
        learner, config = self.learner, self.config
        if isinstance(learner, Head):
            predicted = learner.predict(fast, features)
        else:
            widest = max(*config.tower_sizes, *config.predictor_sizes, config.embedding_size)
            predicted = in_blocks(lambda part: learner.predict(part, features), fast, widest * len(features))
        return torch.addcmul(self.mean[domain] + unit * table["bias"][rows], predicted, unit)

    def score(self, states: Tensor, table: ItemTable, rows: Tensor | slice) -> Scores:
        """Scores of the items at `rows`."""
        mean, learner = self.means(states, table, rows), self.learner
        if not isinstance(learner, RidgeHead) or not learner.uncertainty:
            return Scores(mean)
        features, domain = table["row"][rows], table.domain[rows]
        unit, fast = self.unit[domain], learner.unpack(states)
        variance = in_blocks(lambda part: learner.variance(part[0], features), fast[1:], features.numel())
        taste, noise = self.noise[domain] * variance, self.noise[domain] / table["trust"][rows]
        return Scores(mean, unit * (noise + taste).sqrt(), unit * taste.sqrt())

    def sample(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, rows: Tensor | slice
    ) -> Tensor:
        """(n, B, N) draws of the head from its posterior."""
        features, domain = table["row"][rows], table.domain[rows]
        root = torch.linalg.cholesky_ex(self.learner.unpack(states)[1]).L  # (B, R, R)
        noise = torch.randn((n, *root.shape[:2]), generator=generator, device=generator.device).to(root)
        deviation: Tensor = (root @ noise.unsqueeze(-1)).squeeze(-1) @ features.mT  # (n, B, N)
        return self.score(states, table, rows).mean + self.unit[domain] * self.noise[domain].sqrt() * deviation

    def embed_items(self, design: Tensor) -> Columns:
        """Columns of items from their content's design (n, F + D) alone."""
        columns = {
            "bias": (design @ self.content_bias)[:, 0],
            "row": self.learner.embed(self.content_input(design)),
            "trust": self.content_log_trust.exp().expand(len(design)),
            "count": design.new_zeros(len(design)),
        }
        if self.content_choice is not None:
            columns["choice"] = self.content_choice(design)
        return columns

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """The bias, from what everything else leaves unexplained."""
        at = rows[evidence.index]
        expected = self.means(evidence.states, table, rows).gather(1, evidence.index[:, None])[:, 0]
        residual = (evidence.values - expected) / self.unit[table.domain[at]]
        strength = table["count"][rows] + self.config.reg_item
        return {"bias": learnt_bias(table["bias"][rows], strength, evidence, residual)}

    def inner_loop(self, evidence: Evidence, targets: Tensor, columns: Columns) -> list[FastWeights]:
        """Fast weights after each inner step; `columns` (B, L, …) are those of the support's items."""
        shift = targets.new_zeros(len(targets), self.learner.user_size)
        if "choice" in columns:
            weight = evidence.weights.unsqueeze(1)  # (B, 1, L)
            shift = (weight @ columns["choice"]).squeeze(1) / (1 + self.log_discount.exp() * weight.sum(dim=2))
        support = Support(columns["row"], targets, evidence.weights * columns["trust"])
        return self.learner.adapt(support, with_constant(evidence.attributes), shift)

    def practise(self, data: Dataset, biases: Biases, options: FitOptions) -> "UserPractice":
        """What training on a data set needs, and learns besides this module."""
        self.mean.copy_(biases.mean)
        self.noise.copy_(biases.noise)
        self.content_bias.copy_(biases.content)
        practice = UserPractice(self, data, biases)
        if self.config.warm_start:
            start = factor_start(
                data, practice.design, min(self.config.embedding_size, self.config.input_size), options
            )
            practice.begin_at(start)
            self._begin_at(start)
        return practice.to(options.device)

    def warm_parameters(self) -> list[Tensor]:
        """What a warm start sets."""
        warm: list[Tensor] = [self.content_log_trust, self.content_input.weight]
        if self._passes_through:
            warm += [weight for name, weight in self.learner.named_parameters() if name != "rate"]
        return warm

    @property
    def _passes_through(self) -> bool:
        """Whether the head's features can be the factors themselves."""
        return isinstance(self.learner, Head) and not self.config.tower_sizes

    @torch.no_grad()
    def _begin_at(self, start: FactorStart) -> None:
        """Let linear towers pass the factor model's beliefs through; others begin at random."""
        self.noise.copy_(start.noise)
        self.content_log_trust.fill_(start.content_log_trust)
        n_factors = start.factors.shape[1]
        self.content_input.weight.zero_()[:n_factors] = start.content_factors.T
        if not self._passes_through:
            return
        assert isinstance(self.learner, Head)
        item, user = self.learner.item_tower.linears()[0], self.learner.user_tower.linears()[0]
        nn.init.eye_(item.weight)
        nn.init.zeros_(item.bias)
        nn.init.zeros_(user.bias)
        user.weight.zero_()[: 1 + n_factors] = start.prior.T
        self.learner.constant.fill_(start.constant)


def in_blocks(compute: Callable[[FastWeights], Tensor], fast: FastWeights, activations: int) -> Tensor:
    """`compute(fast)` in blocks of users whose activations, so many each, fit the cache."""
    block = max(1, SCORING_BLOCK // max(1, activations))
    parts = zip(*(torch.split(part, block) for part in fast), strict=True)
    return torch.cat([compute(list(part)) for part in parts])


class UserPractice(nn.Module):
    """What training learns of each item, and what it knows beforehand; the table keeps what comes of it."""

    prior_bias: Tensor
    count: Tensor
    design: Tensor
    trained: Tensor
    domain: Tensor
    attributes: Tensor

    def __init__(self, tasks: UserTasks, data: Dataset, biases: Biases) -> None:
        super().__init__()
        self._tasks = (tasks,)  # in a tuple, so that it is not taken for a part
        n_items, n_domains = data.n_items, len(data.schema.domains)
        design = item_design(data.items.content.features, data.items.domain, n_domains)
        self.bias = nn.Parameter(biases.item.clone())  # (N,)
        self.embedding = nn.Parameter(0.1 * torch.randn(n_items, tasks.config.input_size))  # (N, I)
        self.choice = nn.Parameter(torch.zeros(n_items, tasks.learner.user_size))  # (N, U)
        self.log_trust = nn.Parameter(torch.zeros(n_items))  # (N,)
        self.register_buffer("prior_bias", (design @ biases.content)[:, 0])  # (N,)
        self.register_buffer("design", design)  # (N, F + D)
        self.register_buffer("count", item_counts(data))  # (N,)
        self.register_buffer("trained", self.count > 0)  # (N,)
        self.register_buffer("domain", data.items.domain)  # (N,)
        self.register_buffer("attributes", data.user_attributes)  # (U, A)

    @torch.no_grad()
    def begin_at(self, start: FactorStart) -> None:
        """Take over what the factor model believes of the items."""
        n_factors = start.factors.shape[1]
        self.bias.copy_(start.bias)
        self.embedding[:, :n_factors] = start.factors - self.design @ start.content_factors
        self.log_trust.copy_(start.log_trust)

    def groups(self) -> list[dict[str, Any]]:
        """Optimiser groups of the weights of this and of the network."""
        tasks, config = self._tasks[0], self._tasks[0].config
        warm = [self.bias, self.log_trust, *tasks.warm_parameters()] if config.warm_start else []
        handled = {id(parameter) for parameter in [*warm, self.embedding, self.choice]}
        cold = [p for p in [*self.parameters(), *tasks.parameters()] if id(p) not in handled]
        warm_rate = config.warm_learning_rate if config.warm_start else config.learning_rate
        return [
            {"params": [self.embedding], "lr": warm_rate, "weight_decay": config.reg},
            {"params": [self.choice], "lr": config.learning_rate, "weight_decay": config.reg},
            {"params": warm, "lr": warm_rate},
            {"params": cold, "lr": config.learning_rate},
        ]

    def table(self) -> ItemTable:
        """The item table as it stands."""
        columns = self._columns(..., self.trained[:, None])
        return ItemTable({**columns, "count": self.count}, self.domain, self.trained)

    def loss(self, episode: Episode, done: float, generator: torch.Generator) -> Tensor:
        """Squared error of the queries after adaptation, in units; `done` is the share of training gone by."""
        tasks, config = self._tasks[0], self._tasks[0].config
        support, query = episode.support.to(self.domain.device), episode.query.to(self.domain.device)
        seen = torch.cat([support.items, query.items], dim=1)  # (B, K + Q)
        index, place = torch.unique(seen, return_inverse=True)
        drawn = torch.rand(len(index), 1, generator=generator).to(seen.device) >= config.embedding_dropout
        columns = self._columns(index, drawn & self.trained[index, None])
        n, domain = support.items.shape[1], self.domain[seen]
        targets = (torch.cat([support.values, query.values], dim=1) - tasks.mean[domain]) / tasks.unit[domain]
        targets = targets - columns["bias"][place]
        rows = nn.functional.embedding(place, columns["row"])  # its gradient is faster than that of indexing
        known = {"row": rows[:, :n], "trust": columns["trust"][place[:, :n]]}
        if "choice" in columns:
            known["choice"] = nn.functional.embedding(place[:, :n], columns["choice"])
        evidence = support.evidence(self.attributes[episode.tasks.to(seen.device)])
        trajectory = tasks.inner_loop(evidence, targets[:, :n], known)
        return query_loss(
            [tasks.learner.predict(fast, rows[:, n:]) for fast in _judged(trajectory, config.multi_step_loss)],
            targets[:, n:],
            query.weights,
            done,
        )

    def _columns(self, index: Tensor | EllipsisType, keep: Tensor) -> Columns:
        """Columns of some items; `keep` (n, 1) is False where only the content is to speak."""
        tasks, design = self._tasks[0], self.design[index]
        columns = {
            "bias": torch.where(keep[:, 0], self.bias[index], self.prior_bias[index]),
            "row": tasks.learner.embed(keep * self.embedding[index] + tasks.content_input(design)),
            "trust": torch.where(keep[:, 0], self.log_trust[index], tasks.content_log_trust).exp(),
        }
        if tasks.content_choice is not None:
            columns["choice"] = keep * self.choice[index] + tasks.content_choice(design)
        return columns


def _judged(trajectory: list[FastWeights], multi_step: bool) -> list[FastWeights]:
    return trajectory if multi_step else trajectory[-1:]


def query_loss(predictions: list[Tensor], targets: Tensor, weights: Tensor, done: float) -> Tensor:
    """Weighted squared error of the predictions (B, Q) after each inner step that is judged.

    All steps count the same at first, and only the last one at the end of training, when `done` is 1 (MAML++; Antoniou
    et al., ICLR 2019).
    """
    early = (1 - done) / len(predictions)
    shares = [early] * (len(predictions) - 1) + [1 - (len(predictions) - 1) * early]
    errors = [(weights * (predicted - targets).square()).sum() / weights.sum() for predicted in predictions]
    return torch.stack([share * error for share, error in zip(shares, errors, strict=True)]).sum()


def user_learner(config: "MamlConfig", n_attributes: int) -> Learner:
    """The base learner that a configuration asks for."""
    item_tower = MLP([config.input_size, *config.tower_sizes, config.embedding_size])
    if config.adapt == "head":
        return head(config, MLP([n_attributes, *config.tower_sizes, config.embedding_size + 1]), item_tower)
    mode = Predictor if config.adapt == "predictor" else Everything
    return mode(
        MLP([n_attributes, *config.tower_sizes, config.embedding_size]),
        item_tower,
        MLP([2 * config.embedding_size, *config.predictor_sizes, 1]),
        steps=config.steps,
        rate=config.inner_rate,
        meta_sgd=config.meta_sgd,
        reg=config.inner_reg,
        first_order=config.first_order,
    )


def head(config: "MamlConfig", task_tower: MLP, row_tower: MLP) -> Head:
    """The head that a configuration asks for."""
    if config.solver == "ridge":
        return RidgeHead(task_tower, row_tower, uncertainty=config.uncertainty and config.task == "user")
    return Head(
        task_tower,
        row_tower,
        steps=config.steps,
        rate=config.inner_rate,
        meta_sgd=config.meta_sgd,
        reg=config.inner_reg,
        first_order=config.first_order,
    )

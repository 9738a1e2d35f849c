"""MAML: a network whose weights become a user's own in a few steps on what the user has rated.

Finn et al., "Model-Agnostic Meta-Learning" (ICML 2017), for cold-start recommendation as in Lee et al., "MeLU" (KDD
2019). A task is a user (`models.training.user_tasks`) or an item (`models.training.item_tasks`); the inner loop adapts
to the task's support, the outer one learns where the inner one starts:

    theta_t = inner loop on the support of task t from theta        (models.training.inner_loop)
    min over theta of the squared error of the queries under theta_t, averaged over tasks and support sizes

For users, r_ui = mean_d + unit_d (b_i + f_theta_u(a_u, x_i)). What adapts (`adapt`) and how (`solver`):

    head       f = theta_u . phi(x_i), an inner product; by gradient steps or in closed form (`ridge`)
    predictor  f = MLP_theta_u([tower(a_u), tower(x_i)]), gradient steps on the MLP
    all        the towers too (MAML as published; gradients by torch.func)

A state is the adapted weights, flat: for `predictor` and `all` a network of the user's own.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import reset_parameters
from models.recommender import (
    Columns,
    Evidence,
    FitOptions,
    Fitted,
    ItemContent,
    ItemEvidence,
    ItemTable,
    Recommender,
    Role,
    Scores,
)
from models.training.biases import BiasSettings, fit_biases, item_design
from models.training.episodes import Episodes
from models.training.item_tasks import ItemTasks
from models.training.outer_loop import outer_loop
from models.training.user_tasks import UserTasks


class MamlConfig(BiasSettings):
    """Settings of `Maml`; `attribute_prior` concerns the biases only, which users have none of here."""

    task: Literal["user", "item"] = "user"
    """What adapts in a few steps: a user to the items they rated, or an item to the users who rated it."""
    adapt: Literal["head", "predictor", "all"] = "head"
    """Which weights become a user's own."""
    solver: Literal["ridge", "gradient"] = "ridge"
    """How the head adapts: in closed form or by gradient steps. The other modes always take steps."""
    embedding_size: int = Field(32, ge=1)
    """Width of what the towers give."""
    input_size: int = Field(32, ge=1)
    """Width of an item's input to its tower."""
    tower_sizes: tuple[int, ...] = ()
    """Hidden widths of both towers; none: they are linear."""
    predictor_sizes: tuple[int, ...] = (64, 64)
    """Hidden widths of the predictor (`predictor`, `all`)."""
    steps: int = Field(5, ge=0)
    """Inner gradient steps."""
    inner_learning_rate: float | None = Field(None, gt=0)
    """Inner rate; where it starts with `meta_sgd`. None: 1 for heads, 0.1 for networks."""
    inner_reg: float = Field(3.0, ge=0)
    """Ratings' worth of belief in the starting weights (gradient steps; the ridge head learns its own)."""
    first_order: bool = False
    """Take inner gradients for constants in the outer loop (FOMAML)."""
    meta_sgd: bool = False
    """Learn an inner rate for each weight (Meta-SGD)."""
    multi_step_loss: bool = False
    """Let the outer loss see the weights after every inner step, less and less as training goes on (MAML++)."""
    uncertainty: bool = True
    """Keep the ridge head's posterior covariance in a user's state, so that scores have a std."""
    implicit: bool = True
    """Whether the choice of items that a user rated shifts where their inner loop starts (`task` = user)."""
    embedding_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of items met without their embedding in training; with `task` = item, of users without their ratings."""
    warm_start: bool = True
    """Begin at the beliefs of the Bayesian factor model instead of at random (`task` = user)."""
    max_support: int = Field(200, ge=1)
    """Largest support of a training episode; sizes are log-uniform."""
    query_size: int = Field(200, ge=1)
    """Largest query of a training episode."""
    epochs: int = Field(10, ge=1)
    """Passes over the tasks, at most."""
    patience: int = Field(3, ge=1)
    """Epochs without a better validation error before training ends."""
    batch_size: int = Field(64, ge=1)
    """Tasks a step."""
    learning_rate: float = Field(3e-3, gt=0)
    """Of Adam, for what starts at random."""
    warm_learning_rate: float = Field(2e-4, gt=0)
    """The same for what starts at the factor model's beliefs: item embeddings and biases, linear towers."""
    reg: float = Field(1e-5, ge=0)
    """Weight decay of what is learnt of each item."""

    @property
    def inner_rate(self) -> float:
        """The inner rate, or the one that suits what adapts."""
        return self.inner_learning_rate or (1.0 if self.adapt == "head" else 0.1)

    @model_validator(mode="after")
    def _settings_fit(self) -> "MamlConfig":
        if self.task == "item" and self.adapt != "head":
            raise ValueError("items adapt their head: a network for each item would not fit an item table")
        if self.solver == "ridge" and (self.meta_sgd or self.multi_step_loss) and self.adapt == "head":
            raise ValueError("the closed form takes no steps: meta_sgd and multi_step_loss need solver = gradient")
        return self


class Maml(Recommender):
    """Weights that adapt in an inner loop; whose, and which ones, are settings."""

    name: ClassVar[str] = "maml"
    role: ClassVar[Role] = "adaptive"
    Config = MamlConfig
    config: MamlConfig

    def __init__(self, config: MamlConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.tasks = UserTasks(config, schema) if config.task == "user" else ItemTasks(config, schema)

    @property
    def state_size(self) -> int:
        return self.tasks.state_size

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        """(B, S) states; they hold for all domains."""
        return self.tasks.adapt(evidence, table)

    def means(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Tensor:
        return self.tasks.means(states, table, slice(None) if positions is None else positions)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        return self.tasks.score(states, table, slice(None) if positions is None else positions)

    def sample(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        """Joint draws of a user's head from its posterior, where there is one; else the mean."""
        if not isinstance(self.tasks, UserTasks) or not self.tasks.has_posterior:
            mean = self.means(states, table, positions)
            return mean.expand(n, *mean.shape)
        return self.tasks.sample(states, table, n, generator, slice(None) if positions is None else positions)

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        domains = torch.full((len(content),), domain, device=self.tasks.mean.device)
        features = content.features.to(self.tasks.mean)
        return self.tasks.embed_items(item_design(features, domains, len(self.schema.domains)))

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """With `task` = user the bias. With `task` = item nothing: heads are taught with factors that have seen the
        item's own ratings, which those of a new item have not, so adapting one to a few ratings makes it worse."""
        return self.tasks.learn_items(table, rows, evidence) if isinstance(self.tasks, UserTasks) else {}

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)  # initial weights are drawn from torch's own generator
            reset_parameters(self)
            practice = self.tasks.practise(data, fit_biases(data, config), options)
        episodes = Episodes(
            data,
            by=config.task,
            max_support=config.max_support,
            query_size=config.query_size,
            batch_size=config.batch_size,
            generator=torch.Generator().manual_seed(options.seed),
        )

        def losses(epoch: int) -> Iterator[Tensor]:
            for episode in episodes.epoch():
                yield practice.loss(episode, epoch / config.epochs, episodes.generator)

        return outer_loop(
            self,
            losses,
            practice.table,
            practice.groups(),
            options,
            epochs=config.epochs,
            steps=len(episodes),
            patience=config.patience,
            learning_rate=config.learning_rate,
        )

"""MECOS: the order in which things happened tells where a person starts, and a few steps on them where they end.

After Zheng et al., "Cold-start Sequential Recommendation via Meta Learner" (AAAI 2021): a sequence encoder trained
episodically on tasks of little support; here with the inner loop of MAML (Finn et al., ICML 2017) in place of a
matching network, so that what a person's own support says of them can be followed as far as there is of it.

    h_0 … h_n = self-attention(LSTM(attributes, s_1 … s_n))         one s_j an interaction  (models.training.sequence)
    theta_u   = inner gradient steps on the support, from h_n
    f(u, i)   = theta_u . phi(x_i)

What f predicts is the `objective`:

    rating      r_ui = base_ui + unit_d f(u, i), on the ground of a base; the inner loss is the squared error of the
                support                                                              (models.training.sequence_ratings)
    next_item   p(the next item is i) = softmax_i(b_i + f(u, i)); the inner loss is the surprise at the items of the
                support                                                                     (models.training.next_items)

A state is theta_u (behind the base's state, for ratings): a catalogue is scored by one matrix product. No steps is the
ablation: the sequence alone.
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
    Fitted,
    ItemContent,
    ItemEvidence,
    ItemTable,
    Recommender,
    Role,
    Scores,
)
from models.training.lessons import LessonSettings
from models.training.next_items import NextItems
from models.training.sequence_ratings import SequenceRatings


class MecosConfig(LessonSettings):
    """Settings of `Mecos`. `max_support` is also how much of a history is read as a sequence: the newest of it."""

    objective: Literal["rating", "next_item"] = "rating"
    """What is predicted: ratings, or what comes next (a preference)."""
    base: Literal["bias", "bayes"] = "bayes"
    """What predicts first (`rating`)."""
    n_folds: int = Field(2, ge=1)
    """Parts of the users that practise with a base that has learnt from the others; 1: the base that serves."""
    warm_learning_rate: float = Field(1e-4, gt=0)
    """Of Adam, for item rows; `learning_rate` is for the network."""
    hidden_size: int = Field(64, ge=1)
    """Width of the LSTM and of the attention over it."""
    steps: int = Field(3, ge=0)
    """Inner gradient steps; none: the sequence alone speaks."""
    inner_learning_rate: float = Field(1.0, gt=0)
    """Inner rates before training, which learns one for each entry of theta (Meta-SGD)."""
    inner_reg: float = Field(100.0, ge=0)
    """Interactions' worth of belief in where the inner loop starts."""
    n_targets: int = Field(16, ge=1)
    """Interactions of a window of a history that are predicted, each from all before it (`next_item`)."""


class Mecos(Recommender):
    """Sequences and inner loops; `objective` says what for."""

    name: ClassVar[str] = "mecos"
    role: ClassVar[Role] = "adaptive"
    Config = MecosConfig
    config: MecosConfig

    def __init__(self, config: MecosConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.tasks: Recommender = (
            SequenceRatings(config, schema) if config.objective == "rating" else NextItems(config, schema)
        )
        self.kind = self.tasks.kind
        if self.kind == "preference":
            self.role = "ranking"  # type: ignore[misc]  # of this configuration

    @property
    def state_size(self) -> int:
        return self.tasks.state_size

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        return self.tasks.adapt(evidence, table, target)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        return self.tasks.score(states, table, positions)

    def means(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Tensor:
        return self.tasks.means(states, table, positions)

    def sample(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        return self.tasks.sample(states, table, n, generator, positions)

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        return self.tasks.embed_items(content, domain)

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        return self.tasks.learn_items(table, rows, evidence)

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        return self.tasks.fit(data, options)

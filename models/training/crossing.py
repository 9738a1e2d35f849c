"""Crossings: networks for two domains on a ground, that know a user by what they did in either.

A user has no parameters of their own: what is known of them is a profile in each domain (`models.training.profiles`),
so somebody who was never met in training has one too. Networks that read profiles say how far from the base an item
lies, and are trained on episodes in which a part of what somebody did in either domain is known, the rest asked,

    L = alpha L_source + (1 - alpha) L_target

with everything or nothing of the source and little or nothing of the target known often: being cold is practised.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import Correction, reset_parameters, with_constant
from models.recommender import Columns, Evidence, FitOptions, Fitted, ItemContent, ItemTable
from models.training.biases import item_design
from models.training.domains import TransferSettings
from models.training.episodes import Episode
from models.training.ground import Fold, Ground, base_table, prefixed
from models.training.grounded import OnGround
from models.training.habits import exposures
from models.training.lessons import BATCH, ContentRows, LessonSettings, Practice, in_random_order, train_rows
from models.training.profiles import History, profile_size
from models.training.statistics import domain_means
from models.training.transfer import Transfer
from models.training.transfer_episodes import TransferEpisodes

PAIRS = 1 << 19
"""Users times items that are scored at a time: a network's layers for all of them must fit into memory."""


class CrossingSettings(LessonSettings, TransferSettings):
    """Settings of a crossing."""

    base: Literal["bias", "bayes"] = "bayes"
    """What predicts first: biases alone, unless `n_factors` says otherwise."""
    n_factors: int = Field(0, ge=0, le=64)
    """Factors of the base (`base` = bayes)."""
    embedding_size: int = Field(32, ge=2)
    """E, width of item rows."""
    user_size: int = Field(8, ge=1)
    """Width of what is made of a user."""
    hidden_size: int = Field(8, ge=1)
    """Width of the networks' hidden layers."""
    alpha: float = Field(0.3, ge=0, le=1)
    """Weight of the source's loss; the target's is one minus it."""
    max_support: int = Field(100, ge=1)
    """Interactions that are known in each domain of a training episode, at most."""
    query_size: int = Field(50, ge=1)
    """Interactions that are asked in each domain of a training episode, at most."""
    epochs: int = Field(20, ge=1)
    """Passes over the users, at most."""
    patience: int = Field(8, ge=1)
    """Epochs without a better validation error before training ends."""
    batch_size: int = Field(32, ge=1)
    """Users a step."""
    learning_rate: float = Field(2e-3, gt=0)
    """Of Adam, for the network."""


@dataclass(frozen=True)
class Meeting:
    """B users of an episode and what they are asked, Q ratings each."""

    history: History
    rows: Tensor
    """(B, Q, E)."""
    in_target: Tensor
    """(B, Q) bool."""
    values: Tensor
    """(B, Q) what the base leaves unexplained, in steps of a five-point scale."""
    weights: Tensor
    """(B, Q), 0 where padded."""


class UserTower(nn.Module):
    """u (B, U) = x_us W_s + x_ut W_t + C a_u: one embedding of a user, of what they did in both domains."""

    def __init__(self, config: CrossingSettings, schema: Schema) -> None:
        super().__init__()
        size = profile_size(config.embedding_size)
        self.source = nn.Linear(size, config.user_size, bias=False)
        self.target = nn.Linear(size, config.user_size, bias=False)
        self.attributes = nn.Linear(1 + schema.user_attributes.width, config.user_size, bias=False)

    def forward(self, profiles: Tensor, attributes: Tensor) -> Tensor:
        source, target = profiles.unbind(1)
        user: Tensor = self.source(source) + self.target(target) + self.attributes(with_constant(attributes))
        return user


class Crossing(OnGround, Transfer):
    """A network between two domains. A state is the base's and what `embed_users` makes of the profiles."""

    config: CrossingSettings
    mean: Tensor
    scale: Tensor

    def __init__(self, config: CrossingSettings, schema: Schema) -> None:
        super().__init__(config, schema)
        self.content = ContentRows(schema, config.embedding_size)
        self.register_buffer("mean", torch.zeros(len(schema.domains)))  # (D,)
        self.register_buffer("scale", torch.ones(2, profile_size(config.embedding_size)))  # of profiles

    @abstractmethod
    def embed_users(self, profiles: Tensor, attributes: Tensor) -> Tensor:
        """(B, U) from profiles (B, 2, P), each column divided by its size in training."""

    @abstractmethod
    def predict(self, users: Tensor, rows: Tensor, in_target: Tensor) -> Tensor:
        """How far from the base items are put, in units, (B, Q): rows (Q, E) or (B, Q, E), in_target (Q,) or (B, Q)."""

    def penalty(self, users: Tensor, meeting: Meeting) -> Tensor:
        """What is to be kept small beside the error; nothing here."""
        return users.new_zeros(())

    @property
    def alpha(self) -> float:
        """Weight of the source's loss."""
        return self.config.alpha

    @property
    def state_size(self) -> int:
        return self.ground.state_size + self.user_size

    @property
    def user_size(self) -> int:
        """U."""
        return self.config.user_size

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        ground, items = base_table(table), torch.where(evidence.mask, evidence.items, 0)
        base = self.ground.base.adapt(evidence, ground, target)
        history = self.history(self.ground, ground, base, evidence, table["row"][items], table["exposure"][items])
        return torch.cat([base, self.users(history)], dim=1)

    def deviation(self, states: Tensor, table: ItemTable, rows: Tensor | slice) -> Tensor:
        found, in_target = table["row"][rows], table.domain[rows] == self.direction.target
        size = max(1, PAIRS // max(1, len(found)))
        return torch.cat([self.predict(users, found, in_target) for users in torch.split(states, size)])

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        domains = torch.full((len(content),), domain, device=self.mean.device)
        rows = self.content(item_design(content.features.to(self.mean), domains, len(self.mean)))
        columns = {"row": rows, "exposure": rows.new_zeros(len(rows))}
        return columns | prefixed(self.ground.base.embed_items(content, domain))

    def users(self, history: History) -> Tensor:
        """(B, U)."""
        return self.embed_users(history.profiles() / self.scale, history.evidence.attributes)

    def history(
        self, ground: Ground, table: ItemTable, states: Tensor, evidence: Evidence, rows: Tensor, exposure: Tensor
    ) -> History:
        """Evidence as it looks from a ground, with the table and states of its base."""
        domain = table.domain[torch.where(evidence.mask, evidence.items, 0)]  # (B, L)
        deviation = ((evidence.values - self.mean[domain]) / ground.unit[domain]).where(evidence.mask, 0)
        anyone = ground.base.adapt(evidence.emptied(), table, self.direction.target)
        surprise = ground.residuals(anyone, table, evidence)
        residual = ground.residuals(states, table, evidence)
        there = domain == self.direction.target
        return History(evidence, rows, there, deviation, surprise, residual, exposure)

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)  # initial weights are drawn from torch's own generator
            for part in self.children():
                if part is not self.ground:
                    reset_parameters(part)
            for part in self.modules():
                if isinstance(part, Correction):
                    part.start()
        return self.take(Course(self, data, options), data, options)

    def take(self, course: "Course", data: Dataset, options: FitOptions) -> Fitted:
        """Train on both domains at once."""
        return course.run(options, self.alpha)


class Course:
    """A crossing with what it is trained on."""

    def __init__(self, crossing: Crossing, data: Dataset, options: FitOptions) -> None:
        self.crossing, self.config, self.target = crossing, crossing.config, crossing.direction.target
        self.table = crossing.ground.fit(data, options)
        self.folds = crossing.ground.folds(data, self.table, options)
        self.practice = Practice(self.config, crossing.content, data, self.folds).to(options.device)
        self.exposure = exposures(data).to(options.device)
        self.generator = torch.Generator().manual_seed(options.seed)
        crossing.mean.copy_(domain_means(data))
        crossing.scale.copy_(self._scale(data))

    def run(
        self,
        options: FitOptions,
        alpha: float,
        *,
        learning_rate: float | None = None,
        chosen: Callable[[Dataset], Dataset] = lambda data: data,
    ) -> Fitted:
        """Train what requires gradients on episodes of the `chosen` data; the weights of the epoch kept stay."""
        courses = [
            TransferEpisodes(
                chosen(fold.data),
                self.target,
                max_support=self.config.max_support,
                query_size=self.config.query_size,
                batch_size=self.config.batch_size,
                generator=self.generator,
            )
            for fold in self.folds
        ]

        def losses(epoch: int) -> Iterator[Tensor]:
            running = [course.epoch() for course in courses]
            for f in in_random_order([len(course) for course in courses], self.generator):
                yield self.loss(self.meeting(next(running[f]), self.folds[f]), alpha)

        steps = sum(len(course) for course in courses)
        content = self.crossing.content
        return train_rows(self.crossing, self.practice, content, losses, self.item_table, steps, options, learning_rate)

    def item_table(self) -> ItemTable:
        """The table as the weights stand."""
        columns = {"row": self.practice.rows(), "exposure": self.exposure} | prefixed(self.table.columns)
        return replace(self.table, columns=columns)

    def meeting(self, episode: Episode, fold: Fold) -> Meeting:
        """An episode seen from the ground of its fold."""
        device = self.exposure.device
        support = episode.support.to(device).evidence(self.practice.attributes[episode.tasks.to(device)])
        query = episode.query.to(device).evidence(support.attributes)
        index, place = torch.unique(torch.cat([support.items, query.items], dim=1), return_inverse=True)
        drawn = torch.rand(len(index), 1, generator=self.generator).to(device) >= self.config.embedding_dropout
        rows = nn.functional.embedding(place, self.practice.rows(index, drawn))  # (B, L + Q, E)
        n = support.items.shape[1]
        with torch.no_grad():
            states = fold.ground.base.adapt(support, fold.table, self.target)
            values = fold.ground.residuals(states, fold.table, query)
            exposure = self.exposure[support.items]
        history = self.crossing.history(fold.ground, fold.table, states, support, rows[:, :n], exposure)
        return Meeting(history, rows[:, n:], fold.table.domain[query.items] == self.target, values, query.weights)

    def loss(self, meeting: Meeting, alpha: float) -> Tensor:
        """alpha L_source + (1 - alpha) L_target, and the penalty."""
        users = self.crossing.users(meeting.history)
        error = (self.crossing.predict(users, meeting.rows, meeting.in_target) - meeting.values).square()
        total = self.crossing.penalty(users, meeting)
        for there, share in ((False, alpha), (True, 1 - alpha)):
            weights = meeting.weights * (meeting.in_target == there)
            total = total + share * (weights * error).sum() / weights.sum().clamp(min=1e-9)
        return total

    @torch.no_grad()
    def _scale(self, data: Dataset) -> Tensor:
        """(2, P) root mean square of each number of a profile over the users, all they did known."""
        found: list[Tensor] = []
        table = self.item_table()
        for users in torch.split(torch.unique(data.interactions.users), BATCH):
            evidence = data.evidence(users).to(self.exposure.device)
            states = self.folds[0].ground.base.adapt(evidence, self.table, self.target)
            rows, exposure = table["row"][evidence.items], self.exposure[evidence.items]
            ground = self.crossing.ground
            found.append(self.crossing.history(ground, self.table, states, evidence, rows, exposure).profiles())
        return torch.cat(found).square().mean(0).sqrt().clamp(min=1e-3)

"""What recommenders that stand on a ground share: a state begins with the base's, a score is the base's, moved."""

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import (
    Columns,
    FitOptions,
    Fitted,
    ItemContent,
    ItemEvidence,
    ItemTable,
    Recommender,
    Scores,
)
from models.training.biases import item_design
from models.training.ground import Ground, GroundSettings, base_table, prefixed
from models.training.lessons import ContentRows, Lesson, LessonSettings, learn


class OnGround(Recommender):
    """A recommender that says how far from its base's means to go; standard deviations are the base's."""

    config: GroundSettings

    def __init__(self, config: GroundSettings, schema: Schema) -> None:
        super().__init__(config, schema)
        self.ground = Ground(config, schema)

    @abstractmethod
    def deviation(self, states: Tensor, table: ItemTable, rows: Tensor | slice) -> Tensor:
        """How far from the base the items at `rows` are put, in units, (B, N); states without the base's part."""

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        base, moves = self._parts(states, table, positions)
        scores = self.ground.base.score(base, base_table(table), positions)
        return replace(scores, mean=scores.mean + moves)

    def means(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Tensor:
        base, moves = self._parts(states, table, positions)
        return self.ground.base.means(base, base_table(table), positions) + moves

    def sample(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        """The base's draws, moved."""
        base, moves = self._parts(states, table, positions)
        return self.ground.base.sample(base, base_table(table), n, generator, positions) + moves

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """What the base learns from the ratings less the moves; the row that lessons taught stays as it is."""
        base, moves = self._parts(evidence.states, table, rows)
        left = evidence.values - moves.gather(1, evidence.index[:, None])[:, 0]
        return prefixed(
            self.ground.base.learn_items(base_table(table), rows, replace(evidence, states=base, values=left))
        )

    def _parts(self, states: Tensor, table: ItemTable, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """States of the base, and moves (B, N) on the domains' scales."""
        rows = slice(None) if positions is None else positions
        base, own = states.tensor_split([self.ground.state_size], dim=1)
        return base, self.ground.unit[table.domain[rows]] * self.deviation(own, table, rows)


class Grounded(OnGround):
    """A recommender that learns in lessons how far from its base's means to go."""

    config: LessonSettings

    def __init__(self, config: LessonSettings, schema: Schema) -> None:
        super().__init__(config, schema)
        self.content = ContentRows(schema, config.embedding_size)

    @abstractmethod
    def columns(self, rows: Tensor) -> Columns:
        """Columns beside the base's of n items, from their rows (n, E)."""

    @abstractmethod
    def predict(self, lesson: Lesson) -> Tensor:
        """How far from the base a lesson's queries are put, in units, (B, Q)."""

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        domains = torch.full((len(content),), domain, device=self.ground.unit.device)
        rows = self.content(item_design(content.features.to(self.ground.unit), domains, len(self.schema.domains)))
        return self.columns(rows) | prefixed(self.ground.base.embed_items(content, domain))

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)  # initial weights are drawn from torch's own generator
            self.reset_parameters()
        return learn(self, self.ground, self.content, data, options, predict=self.predict, columns=self.columns)

    @abstractmethod
    def reset_parameters(self) -> None:
        """Begin anew."""

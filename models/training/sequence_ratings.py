"""Ratings from sequences: the `rating` objective of MECOS, on the ground of a base (`models.training.ground`).

    s_j     = [x_j, e_j x_j, e_j, o_j, w_j]
    theta_u = h_n + steps down sum_j w_j (e_j - theta . phi(x_j))^2 / (n + reg)
    r_ui    = base_ui + unit_d theta_u . phi(x_i)

x_j is an item's row, e_j what the base leaves unexplained of a rating, o_j the same before the base knew the user, w_j
the weight. The inner loop is linear least squares stopped early. phi starts at the half of a row that is made of
opinions (`models.training.lessons`), on a scale at which the steps say what the covariance of opinions would.
"""

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from models.datasets.schema import Schema
from models.recommender import Columns, Evidence, ItemTable, Role
from models.training.ground import base_table
from models.training.grounded import Grounded
from models.training.inner_loop import Support, descend_linear
from models.training.lessons import Lesson, opinion_size
from models.training.newest import newest
from models.training.sequence import SequenceEncoder, after

if TYPE_CHECKING:
    from models.recommenders.mecos import MecosConfig


class SequenceRatings(Grounded):
    """A state is the base's and theta_u."""

    name: ClassVar[str] = "mecos"
    role: ClassVar[Role] = "adaptive"
    config: "MecosConfig"

    def __init__(self, config: "MecosConfig", schema: Schema) -> None:
        super().__init__(config, schema)
        size = config.embedding_size
        self.encoder = SequenceEncoder(schema.user_attributes.width, 2 * size + 3, config.hidden_size, size)
        self.feature = nn.Linear(size, size, bias=False)  # phi
        self.log_rate = nn.Parameter(torch.empty(size))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        config, opinions = self.config, opinion_size(self.config.embedding_size)
        self.encoder.reset_parameters()
        nn.init.constant_(self.log_rate, config.inner_learning_rate).log_()
        # One step of rate 1 moves by 2 / reg times the sum of e phi; `steps` of them by so many times that.
        scale = math.sqrt((config.inner_reg + 1) / (2 * max(1, config.steps)))
        nn.init.zeros_(self.feature.weight)[-opinions:, -opinions:] = scale * torch.eye(opinions)

    @property
    def state_size(self) -> int:
        return self.ground.state_size + self.config.embedding_size

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        ground = base_table(table)
        base = self.ground.base.adapt(evidence, ground, target)
        opinions = self.ground.opinions(base, ground, evidence)
        items = torch.where(evidence.mask, evidence.items, 0)
        kept = newest(evidence.mask, self.config.max_support)
        theta = self.theta(
            evidence.attributes,
            table["row"][items.gather(1, kept)],
            table["feature"][items.gather(1, kept)],
            opinions.gather(1, kept.unsqueeze(-1).expand(-1, -1, 2)),
            evidence.weights.gather(1, kept),
        )
        return torch.cat([base, theta], dim=1)

    def theta(self, attributes: Tensor, rows: Tensor, features: Tensor, opinions: Tensor, weights: Tensor) -> Tensor:
        """theta_u (B, E): attributes (B, A); of a support in order, rows and features (B, L, E), opinions (B, L, 2) and
        weights (B, L), 0 behind its end."""
        config = self.config
        inputs = torch.cat([rows, rows * opinions[..., :1], opinions, weights.unsqueeze(-1)], dim=-1)
        start = after(self.encoder(attributes, inputs), (weights > 0).sum(dim=1))
        support = Support(features, opinions[..., 0], weights)
        return descend_linear(start, support, self.log_rate.exp(), config.steps, config.inner_reg)[-1]

    def deviation(self, states: Tensor, table: ItemTable, rows: Tensor | slice) -> Tensor:
        return states @ table["feature"][rows].mT

    def columns(self, rows: Tensor) -> Columns:
        return {"row": rows, "feature": self.feature(rows)}

    def predict(self, lesson: Lesson) -> Tensor:
        order = in_order(lesson.support)
        rows, opinions = (
            part.gather(1, order.unsqueeze(-1).expand(-1, -1, part.shape[2]))
            for part in (lesson.support_rows, lesson.opinions)
        )
        weights = lesson.support.weights.gather(1, order)
        theta = self.theta(lesson.support.attributes, rows, self.feature(rows), opinions, weights)
        moves: Tensor = (self.feature(lesson.query_rows) @ theta.unsqueeze(-1)).squeeze(-1)
        return moves


def in_order(support: Evidence) -> Tensor:
    """(B, L) positions of an episode's support from the oldest on, unknown times first, padding last."""
    times = support.times.nan_to_num(nan=-torch.inf).masked_fill(~support.mask, torch.inf)
    return torch.argsort(times, dim=1, stable=True)

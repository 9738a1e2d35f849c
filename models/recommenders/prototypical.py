"""Prototypical: a user is where the items they like lie, and where those lie that they dislike.

Snell et al., "Prototypical Networks for Few-shot Learning" (NeurIPS 2017), carried to ratings, on the ground of a base
that knows biases (`models.training.ground`). With x_j an item's row, e_j what the user thinks of it beyond expectation:

    p± = (kappa c±(a_u) + n sum_j softmax_j(log w_j ± e_j / T) x_j) / (kappa + n),    n = sum_j w_j
    r_ui = base_ui + unit_d s tanh((|x_i - p-|² - |x_i - p+|²) / 2)

As in the paper the class probabilities are the softmax of squared distances to the prototypes; a rating is its
expectation, s the distance between the ratings of what is liked and disliked, and tanh(x / 2) the difference of the two
probabilities. Prototypes begin at c±, which attributes tell of (the zero-shot prototypes of the paper's section 2.7),
worth kappa ratings.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from models.datasets.schema import Schema
from models.layers import with_constant
from models.recommender import Columns, Evidence, ItemTable, Role
from models.training.ground import base_table
from models.training.grounded import Grounded
from models.training.lessons import Lesson, LessonSettings

FIRST_SPREAD, FIRST_TEMPERATURE, FIRST_BELIEF = 1.0, 1.0, 5.0
"""s, T and kappa before training."""


class PrototypicalConfig(LessonSettings):
    """Settings of `Prototypical`."""


class Prototypes(nn.Module):
    """Where a user's likes and dislikes lie, and what follows for other items."""

    def __init__(self, config: PrototypicalConfig, n_attributes: int) -> None:
        super().__init__()
        size = config.embedding_size
        self.liked = nn.Linear(1 + n_attributes, size, bias=False)  # c+
        self.disliked = nn.Linear(1 + n_attributes, size, bias=False)  # c-
        self.metric = nn.Linear(size, size, bias=False)
        self.log_temperature = nn.Parameter(torch.empty(1))
        self.log_belief = nn.Parameter(torch.empty(1))
        self.spread = nn.Parameter(torch.empty(1))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin in the space of the rows, without beliefs about likes and dislikes."""
        nn.init.zeros_(self.liked.weight)
        nn.init.zeros_(self.disliked.weight)
        nn.init.eye_(self.metric.weight)
        nn.init.constant_(self.log_temperature, FIRST_TEMPERATURE).log_()
        nn.init.constant_(self.log_belief, FIRST_BELIEF).log_()
        nn.init.constant_(self.spread, FIRST_SPREAD)

    def place(self, evidence: Evidence, points: Tensor, opinions: Tensor) -> Tensor:
        """p+ and p- side by side (B, 2 E), from the support's points (B, L, E) and opinions (B, L)."""
        attributes, n = with_constant(evidence.attributes), evidence.weights.sum(dim=1, keepdim=True)
        weights = evidence.weights.clamp(min=torch.finfo(points.dtype).tiny).log()
        belief, temperature = self.log_belief.exp(), self.log_temperature.exp()
        sides = []
        for sign, prior in ((1, self.liked), (-1, self.disliked)):
            share = torch.softmax(weights + sign * opinions / temperature, dim=1) * evidence.mask  # (B, L)
            mean = (share[:, None] @ points).squeeze(1)
            sides.append((belief * prior(attributes) + n * mean) / (belief + n))
        return torch.cat(sides, dim=1)

    def deviation(self, prototypes: Tensor, points: Tensor) -> Tensor:
        """How far from the base items are put, in units, (B, Q), from their points (Q, E) or (B, Q, E)."""
        liked, disliked = prototypes.chunk(2, dim=1)  # (B, E)
        # |x - p-|² - |x - p+|² without the x²
        toward = ((liked - disliked).unsqueeze(1) @ points.mT).squeeze(1)  # (B, Q)
        offset = (disliked.square() - liked.square()).sum(dim=1, keepdim=True)
        return self.spread * torch.tanh(toward + offset / 2)


class Prototypical(Grounded):
    """Prototypes of likes and dislikes. A state is the base's and the two prototypes."""

    name: ClassVar[str] = "prototypical"
    role: ClassVar[Role] = "adaptive"
    Config = PrototypicalConfig
    config: PrototypicalConfig

    def __init__(self, config: PrototypicalConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.prototypes = Prototypes(config, schema.user_attributes.width)

    @property
    def state_size(self) -> int:
        return self.ground.state_size + 2 * self.config.embedding_size

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        ground, items = base_table(table), torch.where(evidence.mask, evidence.items, 0)
        base = self.ground.base.adapt(evidence, ground, target)
        opinions = self.ground.opinions(base, ground, evidence)[..., 1]
        return torch.cat([base, self.prototypes.place(evidence, table["point"][items], opinions)], dim=1)

    def deviation(self, states: Tensor, table: ItemTable, rows: Tensor | slice) -> Tensor:
        return self.prototypes.deviation(states, table["point"][rows])

    def columns(self, rows: Tensor) -> Columns:
        return {"point": self.prototypes.metric(rows)}

    def predict(self, lesson: Lesson) -> Tensor:
        points = self.prototypes.metric(lesson.support_rows)
        prototypes = self.prototypes.place(lesson.support, points, lesson.opinions[..., 1])
        return self.prototypes.deviation(prototypes, self.prototypes.metric(lesson.query_rows))

    def reset_parameters(self) -> None:
        self.prototypes.reset_parameters()

"""Two towers: people and items of both catalogues are points of one space, whichever domain they come from.

    p_d   = s_d sum_{j in d} w_j e_j x_j / (n_d + s_d)             opinions of what was rated in d
    q_d   = sum_{j in d} w_j x_j / (n_d + s_d)                     what was rated at all
    z_u   = sum_d A_d p_d + MLP(p, q, habits, attributes)          user tower; A_d is the domain-adaptation layer
    v_i   = x_i + MLP(x_i)                                         item tower
    r_ui  = base_ui + unit_d (z_u . v_i + ...)                     inner product
    L     = alpha L_source + (1 - alpha) L_target + lambda D(z | source, z | target)

Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations" (RecSys 2019), of towers. D
is how far people known by their source history lie from people known by the target: the maximum mean discrepancy under
several kernels (Long et al., "Learning transferable features with deep adaptation networks", ICML 2015), or what a
discriminator behind a reversed gradient makes of it (Ganin et al., JMLR 2016). x_j, an item's row, starts at a
factorisation of opinions, and the towers are trained on the source alone before both domains are.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.datasets.schema import Schema
from models.layers import MLP
from models.training.alignment import domain_loss, mmd
from models.training.grounded_transfer import (
    GroundedTransfer,
    GroundedTransferSettings,
    Known,
    Stage,
    TransferLesson,
)
from models.training.habits import HABITS
from models.training.lessons import opinion_size


class TwoTowerConfig(GroundedTransferSettings):
    """Settings of `TwoTower`."""

    hidden_size: int = Field(64, ge=1)
    """Width of the hidden layers of both towers."""
    alignment: Literal["mmd", "adversarial", "none"] = "mmd"
    """What makes people known by the source and people known by the target alike."""
    alignment_weight: float = Field(0.01, ge=0)
    """lambda."""
    pretraining: int = Field(3, ge=0)
    """Epochs on the source alone, before both domains are learnt."""
    shrinkage: float = Field(25.0, gt=0)
    """s_d to begin with: ratings' worth of belief that somebody has the tastes of everybody."""


class UserTower(nn.Module):
    """z_u from what is known of a person in each domain."""

    def __init__(self, config: TwoTowerConfig, n_attributes: int) -> None:
        super().__init__()
        size = config.embedding_size
        self.config = config
        self.adapters = nn.ModuleList(nn.Linear(size, size, bias=False) for _ in range(2))  # A_source, A_target
        self.log_shrinkage = nn.Parameter(torch.empty(2))
        self.mlp = MLP([4 * size + 2 * HABITS + n_attributes, config.hidden_size, size])

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with the opinions as they are, wherever they were found."""
        half = opinion_size(self.config.embedding_size)
        for adapter in self.adapters:
            assert isinstance(adapter, nn.Linear)
            nn.init.zeros_(adapter.weight)[-half:, -half:] = torch.eye(half)
        nn.init.constant_(self.log_shrinkage, self.config.shrinkage).log_()
        nn.init.zeros_(self.mlp.linears()[-1].weight)
        nn.init.zeros_(self.mlp.linears()[-1].bias)

    def forward(self, known: Known) -> Tensor:
        """(B, E)."""
        points, rated = [], []
        for known_there, shrinkage in zip(
            (known.within(target=False), known.within(target=True)), self.log_shrinkage.exp(), strict=True
        ):
            points.append(shrinkage * known_there.pooled(known.opinions.unsqueeze(-1) * known.rows, shrinkage))
            rated.append(known_there.pooled(known.rows, shrinkage))
        adapted = torch.stack([adapter(point) for adapter, point in zip(self.adapters, points, strict=True)])
        read = [*points, *rated, known.habits[:, 1:].flatten(1), known.evidence.attributes]
        z: Tensor = adapted.sum(0) + self.mlp(torch.cat(read, dim=1))
        return z


class TwoTower(GroundedTransfer):
    """An inner product of a user tower and an item tower, aligned between domains."""

    name: ClassVar[str] = "two_tower"
    Config = TwoTowerConfig
    config: TwoTowerConfig

    def __init__(self, config: TwoTowerConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        size = config.embedding_size
        self.user_tower = UserTower(config, schema.user_attributes.width)
        self.item_tower = MLP([size, config.hidden_size, size])
        self.discriminator = MLP([size, config.hidden_size, 1])

    @property
    def taste_size(self) -> int:
        return self.config.embedding_size

    @torch.no_grad()
    def begin(self) -> None:
        self.user_tower.reset_parameters()
        nn.init.zeros_(self.item_tower.linears()[-1].weight)
        nn.init.zeros_(self.item_tower.linears()[-1].bias)

    def encode(self, known: Known) -> Tensor:
        tastes: Tensor = self.user_tower(known)
        return tastes

    def place(self, rows: Tensor, read: Tensor) -> Tensor:
        moved: Tensor = self.item_tower(rows)
        return rows + moved

    def align(self, lesson: TransferLesson, tastes: Tensor, items: Tensor, done: float) -> Tensor:
        if self.config.alignment == "none":
            return tastes.new_zeros(())
        source, target = (
            self.encode(known)[known.weights.sum(1) > 0]
            for known in (lesson.known.within(target=False), lesson.known.within(target=True))
        )
        if self.config.alignment == "mmd":
            return self.config.alignment_weight * mmd(source, target)
        return self.config.alignment_weight * domain_loss(self.discriminator, source, target, done)

    def stages(self) -> list[Stage]:
        return [Stage(1.0, self.config.pretraining, is_answer=False), *super().stages()]

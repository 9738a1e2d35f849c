"""Transfer without anybody or anything in both domains: how people differ is alike, whoever they are.

    p_u = s sum_j w_j e_j (x_j + D_d x_j) / (n + s)           domain adapter D_d of what was rated in d
    z_u = p_u + MLP(p_u, habits, attributes)                  feature encoder, the same for both domains
    v_i = x_i + MLP(x_i)
    r_ui = base_ui + unit_d (z_u . v_i + m_u . (1, quality_i, exposure_i))
    L   = alpha L_source + (1 - alpha) L_target + lambda D(z | source, z | target) + mu L_distillation

No step needs to know that two people are one. What is learnt of a person is told by features that every catalogue has:
how they rate, how good and how well known what they choose is, what content their opinions hang on; so what a history
of this kind meant in the source, where histories are plentiful, is what it means in the target. Three things see to it
that it does: D (`alignment`: the multi-kernel maximum mean discrepancy of Long et al., ICML 2015, or the adversary of
Ganin et al., JMLR 2016) keeps people of both domains on one distribution; weights are shared but for D_d; and a model
that was trained on the source alone teaches, with its answers for people of the target, whom it takes for people of the
source (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015): less and less as the training goes on.
"""

from copy import deepcopy
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


class NoOverlapConfig(GroundedTransferSettings):
    """Settings of `NoOverlap`."""

    hidden_size: int = Field(64, ge=1)
    """Width of the hidden layers."""
    alignment: Literal["mmd", "adversarial", "none"] = "mmd"
    """What keeps people of both domains on one distribution."""
    alignment_weight: float = Field(0.01, ge=0)
    """lambda."""
    pretraining: int = Field(4, ge=0)
    """Epochs of the source model, which teaches; 0: nobody does."""
    distillation_weight: float = Field(0.3, ge=0)
    """mu to begin with; 0 at the end."""
    shrinkage: float = Field(25.0, gt=0)
    """s to begin with: ratings' worth of belief that somebody has the tastes of everybody."""


class FeatureEncoder(nn.Module):
    """z_u from what is known, with an adapter for each domain before the part that is shared."""

    def __init__(self, config: NoOverlapConfig, n_attributes: int) -> None:
        super().__init__()
        size = config.embedding_size
        self.config = config
        self.adapters = nn.ModuleList(nn.Linear(size, size, bias=False) for _ in range(2))  # D_source, D_target
        self.log_shrinkage = nn.Parameter(torch.empty(1))
        self.mlp = MLP([size + HABITS + n_attributes, config.hidden_size, size])

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with the opinions as they are."""
        for adapter in self.adapters:
            assert isinstance(adapter, nn.Linear)
            nn.init.zeros_(adapter.weight)
        nn.init.constant_(self.log_shrinkage, self.config.shrinkage).log_()
        nn.init.zeros_(self.mlp.linears()[-1].weight)
        nn.init.zeros_(self.mlp.linears()[-1].bias)

    def forward(self, known: Known) -> Tensor:
        """(B, E)."""
        shrinkage = self.log_shrinkage.exp()
        points = known.opinions.unsqueeze(-1) * known.rows  # (B, L, E)
        source, target = (
            known.pooled(points * (known.in_target == there).unsqueeze(-1), shrinkage) for there in (False, True)
        )
        p = shrinkage * (source + self.adapters[0](source) + target + self.adapters[1](target))
        z: Tensor = p + self.mlp(torch.cat([p, known.habits[:, 0], known.evidence.attributes], dim=1))
        return z


class NoOverlap(GroundedTransfer):
    """A feature encoder shared by two domains, aligned and taught by the source's own model."""

    name: ClassVar[str] = "no_overlap"
    Config = NoOverlapConfig
    config: NoOverlapConfig
    manners_are_shared: ClassVar[bool] = True

    def __init__(self, config: NoOverlapConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        size = config.embedding_size
        self.encoder = FeatureEncoder(config, schema.user_attributes.width)
        self.items = MLP([size, config.hidden_size, size])
        self.discriminator = MLP([size, config.hidden_size, 1])
        self._teacher: tuple[NoOverlap, ...] = ()  # in a tuple, so that it is not taken for a part

    @property
    def taste_size(self) -> int:
        return self.config.embedding_size

    @torch.no_grad()
    def begin(self) -> None:
        self.encoder.reset_parameters()
        nn.init.zeros_(self.items.linears()[-1].weight)
        nn.init.zeros_(self.items.linears()[-1].bias)

    def encode(self, known: Known) -> Tensor:
        tastes: Tensor = self.encoder(known)
        return tastes

    def place(self, rows: Tensor, read: Tensor) -> Tensor:
        moved: Tensor = self.items(rows)
        return rows + moved

    def answers(self, known: Known, lesson: TransferLesson) -> Tensor:
        """(B, n) beyond the base, in units."""
        said = torch.cat([self.manners(known), self.encode(known)], dim=1)
        return said @ torch.cat([lesson.facts, self.place(lesson.rows, lesson.read)], dim=1).mT

    def align(self, lesson: TransferLesson, tastes: Tensor, items: Tensor, done: float) -> Tensor:
        loss = self.config.distillation_weight * (1 - done) * self._distillation(lesson, tastes, items)
        if self.config.alignment == "none":
            return loss
        source, target = (
            self.encode(known)[known.weights.sum(1) > 0]
            for known in (lesson.known.within(target=False), lesson.known.within(target=True))
        )
        if self.config.alignment == "mmd":
            return loss + self.config.alignment_weight * mmd(source, target)
        return loss + self.config.alignment_weight * domain_loss(self.discriminator, source, target, done)

    def _distillation(self, lesson: TransferLesson, tastes: Tensor, items: Tensor) -> Tensor:
        """How far the answers lie from the teacher's, over what is asked."""
        if not self._teacher:
            return tastes.new_zeros(())
        (teacher,) = self._teacher
        with torch.no_grad():
            here, there = teacher.answers(lesson.known, lesson), teacher.answers(lesson.known.turned(), lesson)
            of_source, of_target = here.gather(1, lesson.query), there.gather(1, lesson.query)
            taught = of_target.where(lesson.in_target, of_source)
        said = torch.cat([self.manners(lesson.known), tastes], dim=1) @ torch.cat([lesson.facts, items], dim=1).mT
        apart = (said.gather(1, lesson.query) - taught).square()
        return (lesson.weights * apart).sum() / lesson.weights.sum().clamp(min=1e-9)

    def stages(self) -> list[Stage]:
        return [Stage(1.0, self.config.pretraining, is_answer=False), *super().stages()]

    def start(self, stage: int) -> None:
        """The source model of the first stage teaches in the second."""
        self._teacher = ()
        if stage == 1 and self.config.pretraining and self.config.distillation_weight:
            self._teacher = (deepcopy(self).eval().requires_grad_(False),)

"""Metric: how items relate is learnt from everybody, and then, in a few steps, from what one person rated.

Relation networks (Sung et al., "Learning to Compare", CVPR 2018) compare a query with each example of a support by a
learnt network in place of a fixed distance; as in Vartak et al., "A Meta-Learning Perspective on Cold-Start
Recommendations for Items" (NeurIPS 2017), examples speak by what was thought of them and the last layer becomes the
task's own. On the ground of a base (`models.training.ground`), with e_j what the base leaves unexplained of a rating:

    phi_u(i) = theta_u . z_i(S_u),    z_i(S) = kappa / (kappa + n) sum_j w_j e_j g(x_i, x_j),    n = sum_j w_j
    g(x_i, x_j) = [f_i * f_j, max(0, q_1i . k_1j + c_1), ..., max(0, q_Hi . k_Hj + c_H)]
    r_ui = base_ui + unit_d phi_u(i)

Products of features f weigh what two items share: theta on them is a metric that is diagonal and may be negative. The
rectified part is a neural tensor layer (Socher et al., "Reasoning With Neural Tensor Networks", NeurIPS 2013), zero but
for items that are alike enough. theta_u starts at theta and takes gradient steps on the user's support, where each item
is predicted from the others,

    L(theta) = sum_j w_j (e_j - theta . z_j(S_u without j))^2 / (n + reg)

so what counts as alike is the user's own: one goes by directors, another by genres. Unlike `matching` relations compete
for nothing (there is no softmax), and unlike `prototypical` there is no point that stands for the user.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from models.datasets.schema import Schema
from models.recommender import Columns, Evidence, ItemTable, Role
from models.training.ground import base_table
from models.training.grounded import Grounded
from models.training.inner_loop import Support, descend_linear
from models.training.lessons import Lesson, LessonSettings, opinion_size
from models.training.newest import newest

FIRST_BELIEF, FIRST_THRESHOLD = 100.0, -0.5
"""kappa and c before training."""
SCORING_BLOCK = 1 << 20
"""Relations computed at a time: they should stay in the processor's cache."""


class MetricConfig(LessonSettings):
    """Settings of `Metric`. `max_support` is also what a state keeps: the newest interactions, to be compared with; the
    products of features see all."""

    base: Literal["bias", "bayes"] = "bayes"
    """What predicts first."""
    n_folds: int = Field(2, ge=1)
    """Parts of the users that practise with a base that has learnt from the others; 1: the base that serves."""
    warm_learning_rate: float = Field(3e-5, gt=0)
    """Of Adam, for item rows; the entries of f are small, and large steps would undo them."""
    n_relations: int = Field(4, ge=1)
    """H, rectified relations."""
    relation_size: int = Field(16, ge=1)
    """Width of q and k of each."""
    steps: int = Field(1, ge=0)
    """Gradient steps on the support; none: the metric is everybody's."""
    inner_learning_rate: float = Field(0.03, gt=0)
    """Inner rates before training, which learns one for each entry of theta (Meta-SGD)."""
    inner_reg: float = Field(10.0, ge=0)
    """Ratings' worth of belief in everybody's metric."""


class Relations(nn.Module):
    """What two items have to do with each other, and the metric over it. Z = F + H entries of z."""

    def __init__(self, config: MetricConfig) -> None:
        super().__init__()
        self.config = config
        self.signed_size = opinion_size(config.embedding_size)  # F
        self.shape = (config.n_relations, config.relation_size)
        width, size = config.n_relations * config.relation_size, config.embedding_size
        self.query = nn.Linear(size, width, bias=False)
        self.key = nn.Linear(size, width, bias=False)
        self.threshold = nn.Parameter(torch.empty(config.n_relations))  # c
        self.metric = nn.Parameter(torch.empty(self.signed_size + config.n_relations))  # theta
        self.log_rate = nn.Parameter(torch.empty(self.signed_size + config.n_relations))
        self.log_belief = nn.Parameter(torch.empty(1))  # of kappa

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with the covariance of opinions, f_i . f_j, and relations of like with like that count for nothing."""
        nn.init.normal_(self.key.weight)
        self.query.weight.copy_(self.key.weight)
        nn.init.constant_(self.threshold, FIRST_THRESHOLD)
        nn.init.zeros_(self.metric)[: self.signed_size] = 1.0
        nn.init.constant_(self.log_rate, self.config.inner_learning_rate).log_()
        nn.init.constant_(self.log_belief, FIRST_BELIEF).log_()

    def signed(self, rows: Tensor) -> Tensor:
        """f (…, F): the part of rows (…, E) that starts at opinions."""
        return rows[..., -self.signed_size :]

    def voices(self, opinions: Tensor, weights: Tensor) -> Tensor:
        """kappa / (kappa + n) w_j e_j (B, L): with what sign and how loud each rating speaks."""
        belief = self.log_belief.exp()
        voices: Tensor = weights * opinions * (belief / (belief + weights.sum(dim=1, keepdim=True)))
        return voices

    def related(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Rectified relations (B, H, Q, L) of queries (B or 1, Q, H d) with keys (B, L, H d)."""
        q = queries.view(*queries.shape[:2], *self.shape).transpose(1, 2)  # (B or 1, H, Q, d)
        k = keys.view(*keys.shape[:2], *self.shape).permute(0, 2, 3, 1)  # (B, H, d, L)
        return torch.relu(q @ k / self.shape[1] + self.threshold[:, None, None])

    def own_metric(self, signed: Tensor, queries: Tensor, keys: Tensor, opinions: Tensor, weights: Tensor) -> Tensor:
        """theta_u (B, Z), from the support's f (B, L, F), queries and keys (B, L, H d), e and weights (B, L)."""
        voices = self.voices(opinions, weights)
        spoken = voices.unsqueeze(-1) * signed  # (B, L, F)
        products = signed * (spoken.sum(dim=1, keepdim=True) - spoken)
        others = 1 - torch.eye(voices.shape[1], device=voices.device, dtype=voices.dtype)
        relations = ((self.related(queries, keys) * others) @ voices[:, None, :, None]).squeeze(-1)  # (B, H, L)
        support = Support(torch.cat([products, relations.mT], dim=2), opinions, weights)

        start = self.metric.expand(len(voices), -1)
        return descend_linear(start, support, self.log_rate.exp(), self.config.steps, self.config.inner_reg)[-1]

    def direction(self, metric: Tensor, signed: Tensor, opinions: Tensor, weights: Tensor) -> Tensor:
        """(B, F): its inner product with f_i is the part of phi_u(i) that is made of products."""
        pull = (self.voices(opinions, weights).unsqueeze(1) @ signed).squeeze(1)
        return metric[:, : self.signed_size] * pull

    def local(self, weights: Tensor, queries: Tensor, keys: Tensor, voices: Tensor) -> Tensor:
        """The part of phi_u that is made of rectified relations, (B, Q), from their weights (B, H)."""
        relations = (self.related(queries, keys) @ voices[:, None, :, None]).squeeze(-1)  # (B, H, Q)
        local: Tensor = (weights.unsqueeze(1) @ relations).squeeze(1)
        return local


def last_voice(voices: Tensor) -> int:
    """How far the voices (B, L) of a batch reach: behind the last that is not zero nothing is heard."""
    place = torch.arange(1, voices.shape[1] + 1, device=voices.device)
    return int(((voices != 0) * place).max()) if voices.numel() else 0


class Metric(Grounded):
    """A metric of the user's own. A state is the base's, its direction, its weights of the rectified relations, and the
    newest of the support: rows of the item table and voices."""

    name: ClassVar[str] = "metric"
    role: ClassVar[Role] = "adaptive"
    Config = MetricConfig
    config: MetricConfig

    def __init__(self, config: MetricConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.relations = Relations(config)

    @property
    def state_size(self) -> int:
        return self.ground.state_size + sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        """Of the parts of a state behind the base's: direction, weights, items, voices."""
        return [self.relations.signed_size, self.config.n_relations, *[self.config.max_support] * 2]

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        relations, size = self.relations, self.config.max_support
        ground, items = base_table(table), torch.where(evidence.mask, evidence.items, 0)
        base = self.ground.base.adapt(evidence, ground, target)
        opinions = self.ground.residuals(base, ground, evidence)  # (B, L)
        kept = newest(evidence.mask, size)
        near, said, weights = items.gather(1, kept), opinions.gather(1, kept), evidence.weights.gather(1, kept)
        signed = table["signed"]
        metric = relations.own_metric(signed[near], table["query"][near], table["key"][near], said, weights)
        direction = relations.direction(metric, signed[items], opinions, evidence.weights)
        # Row numbers fit a float32 up to 16 million items.
        support = [near.to(opinions), relations.voices(said, weights)]
        padded = [pad(part, (0, size - kept.shape[1])) for part in support]
        return torch.cat([base, direction, metric[:, relations.signed_size :], *padded], dim=1)

    def deviation(self, states: Tensor, table: ItemTable, rows: Tensor | slice) -> Tensor:
        direction, weights, items, voices = torch.split(states, self._sizes, dim=1)
        products = direction @ table["signed"][rows].mT
        length = last_voice(voices)
        if length == 0:
            return products
        keys, queries = table["key"][items[:, :length].long()], table["query"][rows].unsqueeze(0)
        block = max(1, SCORING_BLOCK // (self.config.n_relations * length * max(1, queries.shape[1])))
        parts = zip(*(torch.split(part, block) for part in (weights, keys, voices[:, :length])), strict=True)
        return products + torch.cat([self.relations.local(own, queries, k, v) for own, k, v in parts])

    def columns(self, rows: Tensor) -> Columns:
        relations = self.relations
        return {"query": relations.query(rows), "key": relations.key(rows), "signed": relations.signed(rows)}

    def predict(self, lesson: Lesson) -> Tensor:
        relations, rows, said = self.relations, lesson.support_rows, lesson.opinions[..., 0]
        weights, keys, signed = lesson.support.weights, relations.key(rows), relations.signed(rows)
        metric = relations.own_metric(signed, relations.query(rows), keys, said, weights)
        direction = relations.direction(metric, signed, said, weights)
        products = (relations.signed(lesson.query_rows) @ direction.unsqueeze(-1)).squeeze(-1)
        queries, voices = relations.query(lesson.query_rows), relations.voices(said, weights)
        return products + relations.local(metric[:, relations.signed_size :], queries, keys, voices)

    def reset_parameters(self) -> None:
        self.relations.reset_parameters()

"""Matching: the items asked about look at the items rated, and take over what was thought of the similar ones.

Vinyals et al., "Matching Networks for One Shot Learning" (NeurIPS 2016), carried to ratings, on the ground of a base
that knows biases, or biases and factors (`models.training.ground`):

    r_ui = base_ui + unit_d (sum_h sum_j a_hij g_h(e_j) + sum_j w_j (f_i . f_j) e_j)
    a_hij = w_j exp(s_hij) / (exp(z_h) + sum_j w_j exp(s_hij))
    s_hij = (q_hi + q_hu) . (k_hj + k_h(e_j)) / sqrt(size of a head)

The sum over heads h is the neighbourhood model of Koren, "Factor in the Neighbors" (TKDD 2010), with similarity by
attention in place of a weight for each pair of items. z_h is the slot of "nothing similar", whose value is zero: little
support, or support unlike the item, moves little. g_h is linear in the residual and in what else a rating says. Queries
q and keys k are read from item rows, so that new items have both; q_hu is what a user's attributes and opinions e_j
make them look for. The last term is a head without a softmax, so that its weights may be negative: linear attention
(Katharopoulos et al., "Transformers are RNNs", ICML 2020), which needs no more of the support than a sum. f begins at
the shrunken covariance of residuals.

Where the base is Gaussian, the residuals of its own support are what the posterior under a further covariance would
multiply with that covariance, to first order (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006,
2.25): attention is that covariance, local where factors are global.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from models.datasets.schema import Schema
from models.layers import with_constant
from models.recommender import Columns, Evidence, ItemTable, Role
from models.training.ground import base_table
from models.training.grounded import Grounded
from models.training.lessons import Lesson, LessonSettings, opinion_size

FIRST_NOTHING, FIRST_GAIN = 5.0, 0.1
"""z and the weight of residuals before training: 50 items as like as can be weigh e^4 against e^5 each."""
SCORING_BLOCK = 1 << 20
"""Attention weights computed at a time: they should stay in the processor's cache."""


class MatchingConfig(LessonSettings):
    """Settings of `Matching`. `max_support` is also what a state keeps: the newest interactions, to be matched with;
    the base and the signed head see all."""

    base: Literal["bias", "bayes"] = "bayes"
    """What predicts first: with factors below, attention is left what is local."""
    n_folds: int = Field(2, ge=1)
    """Parts of the users that practise with a base that has learnt from the others; 1: the base that serves."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Adam, for the network."""
    warm_learning_rate: float = Field(3e-5, gt=0)
    """The same for item rows; the entries of f are small, and large steps would undo them."""
    n_heads: int = Field(4, ge=1)
    """H, ways of being similar."""
    head_size: int = Field(16, ge=1)
    """Width of a head's queries and keys."""


class Attention(nn.Module):
    """Heads by which items look at a user's support; widths of all heads side by side are H d."""

    def __init__(self, config: MatchingConfig, n_attributes: int) -> None:
        super().__init__()
        self.shape = (config.n_heads, config.head_size)
        self.width = config.n_heads * config.head_size
        self.query = nn.Linear(config.embedding_size, self.width, bias=False)
        self.key = nn.Linear(config.embedding_size, self.width, bias=False)
        self.attributes = nn.Linear(1 + n_attributes, self.width, bias=False)
        self.taste = nn.Linear(config.embedding_size, self.width, bias=False)
        self.opinion = nn.Linear(3, self.width, bias=False)
        self.value = nn.Linear(4, config.n_heads, bias=False)
        self.nothing = nn.Parameter(torch.empty(config.n_heads))
        self.signed_size = opinion_size(config.embedding_size)
        self.signed_gain = nn.Parameter(torch.empty(1))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with like looking for like, blind to users and opinions, and most of the attention on nothing."""
        nn.init.normal_(self.key.weight)
        self.query.weight.copy_(self.key.weight)
        for layer in (self.attributes, self.taste, self.opinion, self.value):
            nn.init.zeros_(layer.weight)
        self.value.weight[:, 0] = FIRST_GAIN
        nn.init.constant_(self.nothing, FIRST_NOTHING)
        nn.init.ones_(self.signed_gain)

    def signed(self, rows: Tensor) -> Tensor:
        """f (…, F): the part of rows (…, E) that starts at opinions."""
        return self.signed_gain * rows[..., -self.signed_size :]

    def looking_for(self, evidence: Evidence, rows: Tensor, opinions: Tensor) -> Tensor:
        """The user's part of the queries (B, H d), from attributes and the rows (B, L, E) of what they liked."""
        weighted = evidence.weights * opinions[..., 1]  # (B, L)
        taste = (weighted[:, None] @ rows).squeeze(1) / (1 + evidence.weights.sum(dim=1, keepdim=True))
        looking: Tensor = self.attributes(with_constant(evidence.attributes)) + self.taste(taste)
        return looking

    def pull(self, evidence: Evidence, signed: Tensor, opinions: Tensor) -> Tensor:
        """sum_j w_j e_j f_j (B, F), from f (B, L, F) of the support."""
        pull: Tensor = ((evidence.weights * opinions[..., 0])[:, None] @ signed).squeeze(1)
        return pull

    def deviation(self, queries: Tensor, user: Tensor, keys: Tensor, opinions: Tensor, weights: Tensor) -> Tensor:
        """How far from the base items are put, in units, (B, Q).

        queries (B or 1, Q, H d), the user's part of them (B, H d), and of the support: items' keys (B, L, H d),
        opinions (B, L, 2), weights (B, L).
        """
        after, own = opinions[..., :1], opinions[..., 1:]
        keys = keys + self.opinion(torch.cat([opinions, own.abs()], dim=-1))
        k = keys.view(*keys.shape[:2], *self.shape).permute(0, 2, 3, 1)  # (B, H, d, L)
        scale = 1 / math.sqrt(self.shape[1])
        q = scale * queries.view(*queries.shape[:2], *self.shape).transpose(1, 2)  # (B or 1, H, Q, d)
        u = scale * user.view(-1, *self.shape).unsqueeze(2)  # (B, H, 1, d)
        bias = u @ k + weights.log()[:, None, None]  # (B, H, 1, L), -inf where padded
        nothing = self.nothing[:, None, None].expand(*bias.shape[:3], 1)
        attention = (q @ pad(k, (1, 0)) + torch.cat([nothing, bias], dim=-1)).softmax(dim=-1)  # (B, H, Q, 1 + L)
        values = self.value(torch.cat([after, own, own.square() - 1, torch.ones_like(own)], dim=-1))  # (B, L, H)
        deviation: Tensor = (attention @ pad(values.mT, (1, 0)).unsqueeze(-1)).squeeze(-1).sum(dim=1)
        return deviation


class Matching(Grounded):
    """Attention over the support. A state is the base's, the user's part of the queries, what pulls the signed head,
    and the support itself: rows of the item table, opinions, weights."""

    name: ClassVar[str] = "matching"
    role: ClassVar[Role] = "adaptive"
    Config = MatchingConfig
    config: MatchingConfig

    def __init__(self, config: MatchingConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.attention = Attention(config, schema.user_attributes.width)

    @property
    def state_size(self) -> int:
        return self.ground.state_size + sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        """Of the parts of a state behind the base's: user, pull, items, both opinions, weights."""
        return [self.attention.width, self.attention.signed_size, *[self.config.max_support] * 4]

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        ground, items = base_table(table), torch.where(evidence.mask, evidence.items, 0)
        base = self.ground.base.adapt(evidence, ground, target)
        opinions = self.ground.opinions(base, ground, evidence)
        user = self.attention.looking_for(evidence, table["row"][items], opinions)
        pull = self.attention.pull(evidence, table["signed"][items], opinions)
        # Row numbers fit a float32 up to 16 million items.
        support = torch.stack([items.to(opinions), *opinions.unbind(-1), evidence.weights], dim=1)  # (B, 4, L)
        age = torch.arange(items.shape[1], device=items.device).where(evidence.mask, -1)
        newest = age.topk(min(self.config.max_support, items.shape[1]), dim=1).indices
        kept = support.gather(2, newest[:, None].expand(-1, 4, -1))
        kept = pad(kept, (0, self.config.max_support - newest.shape[1]))
        return torch.cat([base, user, pull, kept.flatten(1)], dim=1)

    def deviation(self, states: Tensor, table: ItemTable, rows: Tensor | slice) -> Tensor:
        user, pull, items, after, own, weights = torch.split(states, self._sizes, dim=1)
        deviation = pull @ table["signed"][rows].mT
        length = int((weights > 0).sum(dim=1).max()) if len(weights) else 0  # the newest stand first
        if length == 0:
            return deviation
        keys, queries = table["key"][items[:, :length].long()], table["query"][rows].unsqueeze(0)
        opinions, weights = torch.stack([after, own], dim=-1)[:, :length], weights[:, :length]
        block = max(1, SCORING_BLOCK // (self.config.n_heads * length * max(1, queries.shape[1])))
        parts = zip(*(torch.split(part, block) for part in (user, keys, opinions, weights)), strict=True)
        return deviation + torch.cat([self.attention.deviation(queries, *part) for part in parts])

    def columns(self, rows: Tensor) -> Columns:
        attention = self.attention
        return {
            "row": rows,
            "query": attention.query(rows),
            "key": attention.key(rows),
            "signed": attention.signed(rows),
        }

    def predict(self, lesson: Lesson) -> Tensor:
        attention, evidence = self.attention, lesson.support
        pull = attention.pull(evidence, attention.signed(lesson.support_rows), lesson.opinions)
        linear: Tensor = (attention.signed(lesson.query_rows) @ pull.unsqueeze(-1)).squeeze(-1)
        return linear + attention.deviation(
            attention.query(lesson.query_rows),
            attention.looking_for(evidence, lesson.support_rows, lesson.opinions),
            attention.key(lesson.support_rows),
            lesson.opinions,
            evidence.weights,
        )

    def reset_parameters(self) -> None:
        self.attention.reset_parameters()

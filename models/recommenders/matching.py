"""Matching: the items asked about look at the items rated, and take over what was thought of the similar ones.

Vinyals et al., "Matching Networks for One Shot Learning" (NeurIPS 2016), carried to ratings, on the ground of a base
that knows biases, or biases and factors (`models.training.ground`):

    r_ui = base_ui + unit_d sum_h sum_j a_hij g_h(e_j)
    a_hij = w_j exp(s_hij) / (exp(z_h) + sum_j w_j exp(s_hij))
    s_hij = (q_hi + q_hu) . (k_hj + k_h(e_j)) / sqrt(size of a head)

The sum over heads h is the neighbourhood model of Koren, "Factor in the Neighbors" (TKDD 2010), with similarity by
attention in place of a weight for each pair of items. z_h is the slot of "nothing similar", whose value is zero: little
support, or support unlike the item, moves little. Queries q and keys k are read from item rows, so that new items have
both; q_hu is what a user's attributes and opinions e_j make them look for.

Where the base is Gaussian, the residuals of its own support are what the posterior under a further covariance would
multiply with that covariance, to first order (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006,
2.25): attention is that covariance, local where factors are global.
"""

import math
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import with_constant
from models.recommender import Columns, Evidence, FitOptions, Fitted, ItemContent, ItemTable, Recommender, Role, Scores
from models.training.biases import item_design
from models.training.ground import Ground, base_table, prefixed
from models.training.lessons import ContentRows, Lesson, LessonSettings, learn

FIRST_NOTHING, FIRST_GAIN = 5.0, 0.5
"""z and the weight of residuals before training: 50 items as like as can be weigh e^4 against e^5 each."""
SCORING_BLOCK = 1 << 20
"""Attention weights computed at a time: they should stay in the processor's cache."""


class MatchingConfig(LessonSettings):
    """Settings of `Matching`. `max_support` is also what a state keeps: the newest interactions, to be matched with;
    the base sees all."""

    base: Literal["bias", "bayes"] = "bayes"
    n_folds: int = Field(2, ge=1)
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

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with like looking for like, blind to users and opinions, and most of the attention on nothing."""
        nn.init.normal_(self.key.weight)
        self.query.weight.copy_(self.key.weight)
        for layer in (self.attributes, self.taste, self.opinion, self.value):
            nn.init.zeros_(layer.weight)
        self.value.weight[:, 0] = FIRST_GAIN
        nn.init.constant_(self.nothing, FIRST_NOTHING)

    def looking_for(self, evidence: Evidence, rows: Tensor, opinions: Tensor) -> Tensor:
        """The user's part of the queries (B, H d), from attributes and the rows (B, L, E) of what they liked."""
        weighted = evidence.weights * opinions[..., 1]  # (B, L)
        taste = (weighted[:, None] @ rows).squeeze(1) / (1 + evidence.weights.sum(dim=1, keepdim=True))
        looking: Tensor = self.attributes(with_constant(evidence.attributes)) + self.taste(taste)
        return looking

    def deviation(self, queries: Tensor, user: Tensor, keys: Tensor, opinions: Tensor, weights: Tensor) -> Tensor:
        """How far from the base items are put, in units, (B, Q).

        queries (B or 1, Q, H d), the user's part of them (B, H d), and of the support: items' keys (B, L, H d),
        opinions (B, L, 2), weights (B, L).
        """
        after, own = opinions[..., :1], opinions[..., 1:]
        keys = keys + self.opinion(torch.cat([opinions, own.abs()], dim=-1))
        k = keys.view(*keys.shape[:2], *self.shape).permute(0, 2, 3, 1)  # (B, H, d, L)
        q = queries.view(*queries.shape[:2], *self.shape).transpose(1, 2) / math.sqrt(
            self.shape[1]
        )  # (B or 1, H, Q, d)
        u = user.view(-1, *self.shape).unsqueeze(2) / math.sqrt(self.shape[1])  # (B, H, 1, d)
        bias = u @ k + weights.log()[:, None, None]  # (B, H, 1, L), -inf where padded
        scores = q @ k + bias  # (B, H, Q, L)
        nothing = self.nothing[:, None, None].expand(*scores.shape[:3], 1)
        attention = torch.cat([nothing, scores], dim=-1).softmax(dim=-1)[..., 1:]
        values = self.value(torch.cat([after, own, own.square() - 1, torch.ones_like(own)], dim=-1))  # (B, L, H)
        deviation: Tensor = (attention @ values.mT.unsqueeze(-1)).squeeze(-1).sum(dim=1)
        return deviation


class Matching(Recommender):
    """Attention over the support. A state is the base's, the user's part of the queries, and the support itself: rows
    of the item table, opinions, weights."""

    name: ClassVar[str] = "matching"
    role: ClassVar[Role] = "adaptive"
    Config = MatchingConfig
    config: MatchingConfig

    def __init__(self, config: MatchingConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.ground = Ground(config, schema)
        self.content = ContentRows(schema, config.embedding_size)
        self.attention = Attention(config, schema.user_attributes.width)

    @property
    def state_size(self) -> int:
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        """Of the parts of a state: base, user, items, both opinions, weights."""
        return [self.ground.state_size, self.attention.width, *[self.config.max_support] * 4]

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        ground, items = base_table(table), torch.where(evidence.mask, evidence.items, 0)
        base = self.ground.base.adapt(evidence, ground, target)
        opinions = self.ground.opinions(base, ground, evidence)
        user = self.attention.looking_for(evidence, table["row"][items], opinions)
        # Row numbers fit a float32 up to 16 million items.
        support = torch.stack([items.to(opinions), *opinions.unbind(-1), evidence.weights], dim=1)  # (B, 4, L)
        age = torch.arange(items.shape[1], device=items.device).where(evidence.mask, -1)
        newest = age.topk(min(self.config.max_support, items.shape[1]), dim=1).indices
        kept = support.gather(2, newest[:, None].expand(-1, 4, -1))
        return torch.cat([base, user, pad(kept, (0, self.config.max_support - newest.shape[1])).flatten(1)], dim=1)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        base, user, items, after, own, weights = torch.split(states, self._sizes, dim=1)
        scores = self.ground.base.score(base, base_table(table), positions)
        length = int((weights > 0).sum(dim=1).max()) if len(weights) else 0  # the newest stand first
        if length == 0:
            return scores
        keys, queries = table["key"][items[:, :length].long()], table["query"][rows].unsqueeze(0)
        opinions, weights = torch.stack([after, own], dim=-1)[:, :length], weights[:, :length]
        block = max(1, SCORING_BLOCK // (self.config.n_heads * length * max(1, queries.shape[1])))
        parts = zip(*(torch.split(part, block) for part in (user, keys, opinions, weights)), strict=True)
        deviation = torch.cat([self.attention.deviation(queries, *part) for part in parts])
        return replace(scores, mean=scores.mean + self.ground.unit[table.domain[rows]] * deviation)

    def sample(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        """The base's joint draws, moved by what was matched."""
        base, ground = states[:, : self.ground.state_size], base_table(table)
        moved = self.score(states, table, positions).mean - self.ground.base.score(base, ground, positions).mean
        return self.ground.base.sample(base, ground, n, generator, positions) + moved

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        domains = torch.full((len(content),), domain, device=self.ground.unit.device)
        rows = self.content(item_design(content.features.to(self.ground.unit), domains, len(self.schema.domains)))
        return self._columns(rows) | prefixed(self.ground.base.embed_items(content, domain))

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)  # initial weights are drawn from torch's own generator
            self.attention.reset_parameters()
        return learn(self, self.ground, self.content, data, options, predict=self._predict, columns=self._columns)

    def _columns(self, rows: Tensor) -> Columns:
        """Columns that matching needs of items, from their rows (n, E)."""
        return {"row": rows, "query": self.attention.query(rows), "key": self.attention.key(rows)}

    def _predict(self, lesson: Lesson) -> Tensor:
        """Deviations (B, Q) of a lesson's queries."""
        attention, evidence = self.attention, lesson.support
        return attention.deviation(
            attention.query(lesson.query_rows),
            attention.looking_for(evidence, lesson.support_rows, lesson.opinions),
            attention.key(lesson.support_rows),
            lesson.opinions,
            evidence.weights,
        )

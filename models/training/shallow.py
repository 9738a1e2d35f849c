"""A linear autoencoder beside a deep one: what is linear in a history need not pass the deep one's bottleneck.

Vančura & Kordík, "Deep Variational Autoencoder with Shallow Parallel Path for Large Dataset Recommendation" (VASP,
ICANN 2021), where both paths learn together. Here the shallow one is EASE, which has a closed form; the deep one learns
beside it, and with it how loud the shallow one is to speak:

    f_ui = … + slope log(ε + max(0, (x_u B)_i))

A sum of logarithms is VASP's product of the paths' answers: what EASE says of an item is near the chance that it is
liked, and of most items next to nothing.

A linear autoencoder knows the likes that it has learnt from better than those of strangers, and would leave the deep
path nothing to add. So people are taught beside one that has learnt from others: cross-fitting, as in
`models.training.ground`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import Columns, Evidence, FitOptions, ItemContent, ItemTable
from models.recommenders.ease import Ease, EaseConfig
from models.training.ground import base_table, prefixed

FIRST_SLOPE = 1.0
FLOOR = 0.01
"""ε: of what has next to no chance of being liked, EASE does not know how little that is."""


@dataclass(frozen=True)
class Beside:
    """What the shallow path says while the deep one learns, of M items."""

    fold_of: Tensor
    """(U,) int64."""
    weights: Sequence[Tensor]
    """A fold's B (M, M), of an autoencoder that has met nobody of it."""
    constants: Sequence[Tensor]
    """A fold's scores (M,) of somebody unknown."""

    def scores(self, users: Tensor, shown: Tensor) -> Tensor:
        """(B, M), from what is shown of users' histories (B, M)."""
        said = torch.empty_like(shown)
        fold_of = self.fold_of.to(users.device)[users].to(shown.device)
        for f, (weights, constant) in enumerate(zip(self.weights, self.constants, strict=True)):
            rows = (fold_of == f).nonzero().flatten()
            said[rows] = torch.sparse.mm(shown[rows].to_sparse(), weights) + constant
        return said


class ShallowPath(nn.Module):
    """EASE as a part of a recommender whose item table keeps its columns among others. A state is EASE's."""

    def __init__(self, config: EaseConfig, schema: Schema, n_folds: int) -> None:
        super().__init__()
        self.ease = Ease(config, schema)
        self.n_folds = n_folds
        self.slope = nn.Parameter(torch.empty(1))

    def reset_parameters(self) -> None:
        """Begin with the chances as they are."""
        nn.init.constant_(self.slope, FIRST_SLOPE)

    @property
    def state_size(self) -> int:
        """Of EASE."""
        return self.ease.state_size

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        """(B, S)."""
        return self.ease.adapt(evidence, base_table(table), target)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None) -> Tensor:
        """(B, N), what it adds to the scores of the items at `positions`."""
        return self.said(self.ease.score(states, base_table(table), positions).mean)

    def said(self, scores: Tensor) -> Tensor:
        """What EASE's scores add to the deep path's."""
        said: Tensor = self.slope * (FLOOR + scores.clamp(min=0)).log()
        return said

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        """Its columns of new items."""
        return prefixed(self.ease.embed_items(content, domain))

    def fit(self, data: Dataset, kept: Tensor, options: FitOptions) -> tuple[Columns, Beside]:
        """Its columns of the table, and what it says of the items `kept` (M,) while the deep path learns."""
        table = self.ease.fit(data, options).table
        generator = torch.Generator().manual_seed(options.seed)
        fold_of = torch.randperm(data.n_users, generator=generator) % self.n_folds
        weights, constants = [], []
        for f in range(self.n_folds):
            other, known = self.ease, table
            if self.n_folds > 1:
                other = Ease(self.ease.config, data.schema).to(options.device)
                known = other.fit(data.where(fold_of[data.interactions.users] != f), replace(options)).table
            between, constant = other.between(known, kept)
            weights.append(between)
            constants.append(constant)
        return prefixed(table.columns), Beside(fold_of, weights, constants)

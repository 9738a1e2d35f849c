"""EASE: an item-item autoencoder with a closed form, the yardstick of lists for users met after training.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019). X is the matrix of likes, users in rows:

    minimise  tr (X - X B)' W (X - X B) + gamma |C' (I - B)|² + tr B' Λ B,    diag B = 0
    P = (X' W X + gamma C C' + Λ)^-1,    B_ij = -P_ij / P_jj for i ≠ j,    scores = x' B

W = Λ / reg = I and gamma = 0 is the paper. Here a user of n likes weighs n^-a, so that those who like everything do not
speak for all; an item's penalty grows with its likes; X has a column of ones, so that somebody unknown gets what most
like; and every attribute of the items is a user who likes what has it (C, rows of length one): side information as in
Jeunen et al., "Closed-Form Models for Collaborative Filtering with Side-Information" (RecSys 2020).

An item without likes is the mean of those that its content places it next to, as evidence and in a list alike.
"""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize, pad

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import (
    Columns,
    Evidence,
    FitOptions,
    FitReport,
    Fitted,
    ItemContent,
    ItemTable,
    Recommender,
    Role,
    Scores,
)
from models.training.biases import item_design
from models.training.co_rating import co_rating_vectors
from models.training.likes import Likes, LikeSettings
from models.training.statistics import item_counts, ridge

REG_CONTENT = 5.0
"""Ridge penalty of the regression of items' places on their content, in items."""


class EaseConfig(LikeSettings):
    """Settings of `Ease`."""

    reg: float = Field(400.0, gt=0)
    """Λ, in users: how many of them an item needs to be believed."""
    reg_popularity: float = Field(0.4, ge=0)
    """Exponent of an item's penalty in its likes, over those of the mean item; 0: all items have the same."""
    reg_constant: float = Field(2000.0, gt=0)
    """Penalty of the column of ones."""
    user_discount: float = Field(0.5, ge=0)
    """a, the exponent of a user's weight in the inverse of their number of likes; 0: all weigh the same."""
    content_weight: float = Field(80.0, ge=0)
    """gamma, users that an item's content counts for; 0: likes alone."""
    n_neighbours: int = Field(10, ge=1, le=1000)
    """Items that stand for one without likes."""
    place_size: int = Field(48, ge=1)
    """Dimensions of the space in which those are looked for."""
    max_items: int = Field(12_000, ge=2)
    """Items that have weights of their own, the most liked; memory goes with the square, time with the cube."""


class Ease(Recommender):
    """The linear autoencoder. A state is the scores of the M items with weights of their own."""

    name: ClassVar[str] = "ease"
    role: ClassVar[Role] = "ranking"
    kind: Literal["rating", "preference"] = "preference"
    Config = EaseConfig
    config: EaseConfig
    weights: Tensor
    constant: Tensor
    places: Tensor
    content: Tensor

    def __init__(self, config: EaseConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        size = config.place_size
        self.likes = Likes(schema, config.liked_above)
        self.register_buffer("weights", torch.zeros(0, 0))  # B (M, M)
        self.register_buffer("constant", torch.zeros(0))  # (M,) the row of B that belongs to the ones
        self.register_buffer("places", torch.zeros(0, size))  # (M, E) items by who likes them, rows of length one
        self.register_buffer("content", torch.zeros(schema.item_attributes.width + len(schema.domains), size))

    @property
    def state_size(self) -> int:
        return len(self.constant)

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        """(B, M), x' B."""
        items = torch.where(evidence.mask, evidence.items, 0)
        x = self.likes.of_evidence(evidence, table)  # (B, L)
        like = table["like"][items].flatten(1)  # (B, L K)
        share = (x[:, :, None] * table["share"][items]).flatten(1)
        if share.shape[1] == 0:
            return self.constant.expand(len(items), -1)
        return self.constant + embedding_bag(like, self.weights, per_sample_weights=share, mode="sum")

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        like, share = table["like"][rows], table["share"][rows]  # (N, K)
        mean = states[:, like[:, 0]] * share[:, 0]
        for k in range(1, like.shape[1]):
            some = (share[:, k] > 0).nonzero().flatten()  # those without likes of their own
            mean = mean.index_add(1, some, states[:, like[some, k]] * share[some, k])
        return Scores(mean, kind="preference")

    def between(self, table: ItemTable, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(B (n, n), c (n,)) among the items at `rows` (n,): what a like of one adds to the score of each, and the
        score that each has without any."""
        like, share = table["like"][rows], table["share"][rows]  # (n, K)
        out = embedding_bag(like, self.weights, per_sample_weights=share, mode="sum")  # (n, M)
        among = embedding_bag(like, out.T.contiguous(), per_sample_weights=share, mode="sum").T.contiguous()
        return among, (share * self.constant[like]).sum(dim=1)

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        return self._resembling(content, torch.full((len(content),), domain))

    def _resembling(self, content: ItemContent, domain: Tensor) -> Columns:
        """`like` (n, K), those of the M items that resemble each item most, and `share` (n, K), how much."""
        design = item_design(
            content.features.to(self.content), domain.to(self.content.device), len(self.schema.domains)
        )
        likeness = normalize(design @ self.content, dim=1) @ self.places.T  # (n, M)
        likeness, nearest = likeness.topk(min(self.config.n_neighbours, len(self.places)), dim=1)
        likeness = likeness.clamp(min=1e-3)
        missing = self.config.n_neighbours - nearest.shape[1]
        share = pad(likeness / likeness.sum(dim=1, keepdim=True), (0, missing))
        return {"like": pad(nearest, (0, missing)), "share": share}

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        likes = self.likes.matrix(data)  # (U, N)
        counts = np.asarray(likes.sum(axis=0)).ravel()
        most_liked = np.argsort(-counts, kind="stable")[: self.config.max_items]
        kept = np.sort(most_liked[counts[most_liked] > 0])  # (M,)
        if not len(kept):
            raise ValueError("nobody likes anything: there is nothing to learn from")
        options.progress("counting", 0.1, {})
        gram, penalty = self._normal_equations(likes[:, kept], data.items.content.features[kept])
        options.progress("inverting", 0.2, {})
        gram = gram.to(options.device)
        gram.diagonal().add_(penalty.to(gram))
        precision = torch.cholesky_inverse(torch.linalg.cholesky(gram))  # P (M + 1, M + 1)
        weights = -precision / precision.diagonal()
        weights.fill_diagonal_(0)
        self.weights, self.constant = weights[:-1, :-1].float().contiguous(), weights[-1, :-1].float()
        options.progress("placing", 0.9, {})
        return Fitted(self._place(data, torch.from_numpy(kept)).to(options.device), FitReport())

    def _normal_equations(self, likes: sparse.csr_matrix, features: Tensor) -> tuple[Tensor, Tensor]:
        """X' W X + gamma C C' (M + 1, M + 1) and the diagonal of Λ (M + 1,), float64; the ones come last."""
        n = np.asarray(likes.sum(axis=1)).ravel()
        weight = np.where(n > 0, n, np.inf) ** -self.config.user_discount * (n > 0)
        weight = sparse.diags(weight / weight[n > 0].mean())
        x = sparse.hstack([likes, np.ones((likes.shape[0], 1))], format="csr").astype(np.float64)
        gram = torch.from_numpy((x.T @ weight @ x).toarray())
        content = normalize(features.double(), dim=1)
        gram[:-1, :-1] += self.config.content_weight * content @ content.T
        popularity = gram.diagonal()[:-1]
        penalty = self.config.reg * (popularity / popularity.mean()) ** self.config.reg_popularity
        return gram, torch.cat([penalty, penalty.new_tensor([self.config.reg_constant])])

    def _place(self, data: Dataset, kept: Tensor) -> ItemTable:
        """Learn where content places items; the item table."""
        liked, domain, device = self.likes.only(data), data.items.domain, self.content.device
        places = normalize(co_rating_vectors(liked, self.config.place_size), dim=1)  # (N, E)
        design = item_design(data.items.content.features, domain, len(self.schema.domains))
        counts = item_counts(liked)
        self.content.copy_(ridge(design, places, counts / (counts + REG_CONTENT), REG_CONTENT))
        self.places = places[kept].to(device)
        columns = self._resembling(data.items.content, domain)
        itself = torch.zeros(len(kept), self.config.n_neighbours, dtype=torch.long, device=device)
        itself[:, 0] = torch.arange(len(kept))
        columns["like"][kept] = itself
        columns["share"][kept] = torch.eye(1, self.config.n_neighbours, device=device)
        trained = torch.zeros(len(domain), dtype=torch.bool).index_fill(0, kept, True)
        return ItemTable(columns, domain.to(device), trained.to(device))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Make room first: only the weights themselves tell of how many items they are."""
        saved = state_dict.get(prefix + "weights")
        if isinstance(saved, Tensor) and saved.dim() == 2:
            m = len(saved)
            self.weights, self.constant = self.weights.new_zeros(m, m), self.constant.new_zeros(m)
            self.places = self.places.new_zeros(m, self.config.place_size)
        super()._load_from_state_dict(state_dict, prefix, *rest)

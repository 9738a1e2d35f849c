"""Preference transfer: what somebody did in one catalogue says what they will choose and like in another.

    x_u = [ w_j / (|w|² + s w̄²)^½ of all that u did, c ]                 w_j = (n_j + b)^-½, so that hits count less
    minimise  |Y - 1 m' - X B|² + reg |B|²,    rank B ≤ R                Y likes in the target, m what people like there
    s_ui = m_i + x_u' B_i = m_i + (sum_j x_uj p_j + c p_0) . q_i         B = P Q'

Reduced-rank regression (Izenman, "Reduced-rank regression for the multivariate linear model", 1975) in closed form: the
ridge solution, projected on what varies most of its answers. It is learnt from everybody in the target, each of them
three times: as known by their source alone, and by their source with one or the other half of their target, which is to
tell the other half. So one regression answers people who are cold in the target and people who are not.

Errors of ratings and order of lists want different things of a transfer: what to expect of an item that somebody rates
is mostly how generous they are and how good it is, which item they pick is taste. Scores are preferences.
"""

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import Columns, Evidence, FitOptions, FitReport, Fitted, ItemContent, ItemTable, Role, Scores
from models.training.biases import item_design
from models.training.domains import TransferSettings, domain_of
from models.training.likes import Likes, LikeSettings
from models.training.statistics import item_counts, ridge
from models.training.transfer import Transfer

CONSTANT = 3.0
"""c: a constant is shrunken by reg / c²."""
OVERSAMPLED = 16
"""Directions more than are kept, in which what is kept is looked for (Halko et al., SIAM Review 2011)."""
REG_CONTENT = 5.0
"""Ridge penalty of the regression of rows on content, in items."""


class PreferenceTransferConfig(LikeSettings, TransferSettings):
    """Settings of `PreferenceTransfer`."""

    rank: int = Field(128, ge=1)
    """R, width of a state."""
    reg: float = Field(20.0, gt=0)
    """In people: how many must have done the same before it is believed."""
    popularity_prior: float = Field(50.0, gt=0)
    """b: people that an item is taken to have besides, before rare ones count for more."""
    shrinkage: float = Field(5.0, ge=0)
    """s: actions' worth of belief that somebody is like everybody."""


class PreferenceTransfer(Transfer):
    """A low-rank regression of likes on histories. A state is P'x."""

    name: ClassVar[str] = "preference_transfer"
    role: ClassVar[Role] = "ranking"
    kind: Literal["rating", "preference"] = "preference"
    Config = PreferenceTransferConfig
    config: PreferenceTransferConfig
    constant: Tensor
    typical: Tensor
    content: Tensor

    def __init__(self, config: PreferenceTransferConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        n_features = schema.item_attributes.width + len(schema.domains)
        self.likes, self.actions = Likes(schema, config.liked_above), Likes(schema, -1.0)
        self.register_buffer("constant", torch.zeros(config.rank))  # c p_0
        self.register_buffer("typical", torch.ones(()))  # w̄², the mean over what everybody did
        self.register_buffer("content", torch.zeros(n_features, 2 * config.rank + 1))  # of p, q and m

    @property
    def state_size(self) -> int:
        return self.config.rank

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        items = torch.where(evidence.mask, evidence.items, 0)
        counted, weight = self.actions.of_evidence(evidence, table) * evidence.mask, table["weight"][items]  # (B, L)
        length = (counted * weight.square()).sum(dim=1, keepdim=True) + self.config.shrinkage * self.typical
        x = counted * weight / length.sqrt().clamp(min=1e-9)
        return self.constant + (x[:, None] @ table["read"][items]).squeeze(1)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        return Scores(table["share"][rows] + states @ table["like"][rows].T, kind="preference")

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        """Nobody has done anything with them; what their content says is all there is."""
        domains = torch.full((len(content),), domain, device=self.content.device)
        design = item_design(content.features.to(self.content), domains, len(self.schema.domains))
        weight = design.new_full((len(design),), self.config.popularity_prior**-0.5)
        return {"weight": weight, **self._columns(design @ self.content, domains)}

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        counts = item_counts(data)
        weight = (counts + self.config.popularity_prior).rsqrt()
        self.typical.copy_((counts * weight.square()).sum() / counts.sum().clamp(min=1))
        x, y = self._examples(data, weight, torch.Generator().manual_seed(options.seed))
        here = (data.items.domain == self.direction.target).nonzero().flatten()
        wanted = torch.from_numpy(y[:, here.numpy()].toarray()).float()  # (n, T)
        share = wanted.mean(dim=0)
        options.progress("regressing", 0.2, {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)  # the low-rank SVD draws from torch's own generator
            read, like = reduced_rank(x, wanted - share, self.config.reg, self.config.rank)
        rank = self.config.rank
        self.constant.copy_(CONSTANT * read[-1])
        rows = torch.zeros(data.n_items, 2 * rank + 1)
        rows[:, :rank], rows[here, rank : 2 * rank], rows[here, -1] = read[:-1], like, share
        design = item_design(data.items.content.features, data.items.domain, len(self.schema.domains))
        self.content.copy_(ridge(design, rows, counts / (counts + REG_CONTENT), REG_CONTENT))
        known = counts > 0
        rows = rows.where(known[:, None], design @ self.content.cpu())
        columns = {"weight": weight, **self._columns(rows, data.items.domain)}
        return Fitted(ItemTable(columns, data.items.domain, known).to(options.device), FitReport())

    def _columns(self, rows: Tensor, domain: Tensor) -> Columns:
        """(n, 2 R + 1) rows as columns of the table; items of other domains are not among what may be liked."""
        read, like, share = rows.tensor_split([self.config.rank, 2 * self.config.rank], dim=1)
        there = (domain == self.direction.target)[:, None]
        return {"read": read.contiguous(), "like": like.where(there, 0), "share": share.where(there, 0)[:, 0]}

    def _examples(
        self, data: Dataset, weight: Tensor, generator: torch.Generator
    ) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """X (n, N + 1), a constant last, and Y (n, N)."""
        target = domain_of(data) == self.direction.target
        if not self.likes.matrix(data.where(target)).nnz:
            raise ValueError("nobody likes anything in the target: there is nothing to learn from")
        half = torch.rand(len(target), generator=generator) < 0.5
        parts = [(~target, target, 1.0), (~target | half, target & ~half, 2.0), (~target | ~half, target & half, 2.0)]
        known, asked = [], []
        for shown, hidden, times in parts:
            x, y = self.actions.matrix(data.where(shown)), self.likes.matrix(data.where(hidden))
            learns = np.flatnonzero(y.getnnz(axis=1))
            known.append(x[learns])
            asked.append(y[learns] * times)
        counted, scale = sparse.vstack(known).astype("float64"), weight.double().numpy()
        length = counted @ scale**2 + self.config.shrinkage * float(self.typical)
        x = sparse.diags(length.clip(min=1e-18) ** -0.5) @ counted @ sparse.diags(scale)
        constant = sparse.csr_matrix([[CONSTANT]] * x.shape[0])
        return sparse.hstack([x, constant], format="csr"), sparse.vstack(asked).astype("float64").tocsr()


def reduced_rank(x: sparse.csr_matrix, y: Tensor, reg: float, rank: int) -> tuple[Tensor, Tensor]:
    """P (N, R) and Q (T, R) of the ridge regression of y (n, T) on x (n, N), by whichever of its two forms inverts the
    smaller matrix, as precise as y."""
    x = x.astype(y.numpy().dtype)
    n, n_features = x.shape
    dual = n <= n_features
    gram = torch.from_numpy((x @ x.T if dual else x.T @ x).toarray())
    gram.diagonal().add_(reg)
    root = torch.linalg.cholesky(gram)
    if dual:
        solved = torch.cholesky_solve(y, root)  # (n, T)
        answers = y - reg * solved
    else:
        solved = torch.cholesky_solve(torch.from_numpy(x.T @ y.numpy()), root)  # (N, T)
        answers = torch.from_numpy(x @ solved.numpy())
    found = min(rank, *answers.shape)
    drawn = min(found + OVERSAMPLED, *answers.shape)
    q = torch.svd_lowrank(answers, q=drawn, niter=4)[2][:, :found]  # (T, R)
    told = solved @ q
    p = torch.from_numpy(x.T @ told.numpy()) if dual else told
    missing = rank - found
    return torch.nn.functional.pad(p, (0, missing)), torch.nn.functional.pad(q, (0, missing))

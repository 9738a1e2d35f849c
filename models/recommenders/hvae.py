"""HVAE: a hierarchical variational autoencoder of histories, for lists or for ratings.

    h_u  = sum_j x_uj E_j / |x_u|^p + e                 x_u what is read of the user's history, E_j rows of items
    z_u  ~ q(z_2 | h_u, a_u) q(z_1 | h_u, a_u, z_2)     one or two layers, a_u attributes (models.training.hierarchical)
    f_ui = b_i + g(z_u) · D_i [+ EASE's say]            what f means is the likelihood     (models.training.likelihoods)

    maximise  log p(x_u | f_u) - beta KL(q || p)

After Kim & Suh, "Enhancing VAEs for Collaborative Filtering" (RecSys 2019). One layer without gates is Mult-VAE (Liang
et al., WWW 2018, where p = 1); beta rises from nothing as there. A history is shown to the network with a share of it
left out, drawn anew each time, so that it meets short ones too; with p < 1 it sees how long they are. On small data it
helps to learn nothing twice: D = E unless `tied` is off, and rows begin at who likes the items together. An item
without likes has the row that its content suggests. A state is the posterior means.

With `shallow`, what is linear in a history goes past the bottleneck, on a path of its own: VASP (Vančura & Kordík,
ICANN 2021; `models.training.shallow`), and the state has EASE's behind the means.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import reset_parameters
from models.recommender import (
    Columns,
    Evidence,
    FitOptions,
    Fitted,
    ItemContent,
    ItemTable,
    Recommender,
    Role,
    Scores,
)
from models.recommenders.ease import EaseConfig
from models.training.biases import item_design
from models.training.co_rating import co_rating_vectors
from models.training.hierarchical import Hierarchy
from models.training.likelihoods import Bernoulli, GaussianRatings, Histories, Likelihood, Multinomial
from models.training.likes import LikeSettings
from models.training.outer_loop import outer_loop
from models.training.shallow import Beside, ShallowPath
from models.training.statistics import item_counts, ridge

REG_CONTENT = 5.0
"""Ridge penalty of the regression of items' rows on their content, in items."""
FIRST_NOISE = 0.05
"""Standard deviation of what rows begin with besides who likes the items together."""


class HvaeConfig(LikeSettings):
    """Settings of `Hvae`."""

    likelihood: Literal["multinomial", "bernoulli", "gaussian"] = "multinomial"
    """What is predicted: likes, as draws or one by one (preferences), or ratings."""
    hidden_size: int = Field(300, ge=1)
    """H, width of item rows and of the bottleneck."""
    upper_size: int = Field(200, ge=1)
    """Width of z_2."""
    lower_size: int = Field(100, ge=0)
    """Width of z_1; 0: one layer."""
    normalisation: float = Field(0.8, ge=0, le=1)
    """p, the exponent of a history's length by which what is read of it is divided."""
    tied: bool = True
    """Whether the decoder's item rows are the encoder's."""
    gated: bool = False
    """Whether the bottleneck passes a gate."""
    n_pseudo_inputs: int = Field(0, ge=0)
    """Components of the VampPrior, learnt in the space of the bottleneck; 0: a standard normal."""
    shallow: bool = False
    """Whether a linear autoencoder of likes stands beside the hierarchy."""
    ease: EaseConfig = EaseConfig()
    """Its settings; `liked_above` is that of both."""
    n_folds: int = Field(2, ge=1)
    """Parts of the users taught beside a linear autoencoder that has learnt from the others; 1: the one that serves."""
    beta: float = Field(0.5, ge=0)
    """Weight of the divergence from the prior in the end."""
    annealing: float = Field(0.5, ge=0, le=1)
    """Share of the training over which it rises from 0."""
    least_shown: float = Field(0.1, gt=0, le=1)
    """Smallest share of a history that is shown in training; shares are uniform from here to 1."""
    n_negatives: int = Field(20, ge=1)
    """Items looked at for each like that are not liked (`bernoulli`)."""
    epochs: int = Field(40, ge=1)
    """Passes over the users, at most."""
    patience: int = Field(10, ge=1)
    """Epochs without a better validation figure before training ends."""
    batch_size: int = Field(250, ge=1)
    """Users a step."""
    learning_rate: float = Field(4e-3, gt=0)
    """Of Adam."""
    reg: float = Field(5e-5, ge=0)
    """Penalty on the squares of item rows, beside the mean loss of a user."""

    @model_validator(mode="after")
    def _likes_stand_beside_likes(self) -> Self:
        if self.shallow and self.likelihood == "gaussian":
            raise ValueError("the shallow path knows likes, not ratings")
        return self


class ItemRows(nn.Module):
    """What training learns of the M items that it meets; the table keeps it."""

    def __init__(self, start: Tensor, bias: Tensor, *, tied: bool) -> None:
        super().__init__()
        self.encoder = nn.Parameter(start)  # E (M, H)
        self.decoder = None if tied else nn.Parameter(start.clone())  # D (M, H)
        self.bias = nn.Parameter(bias)  # b (M,)

    def columns(self) -> Columns:
        """The columns of an item table."""
        rows: Columns = {"encoder": self.encoder, "bias": self.bias}
        return rows if self.decoder is None else rows | {"decoder": self.decoder}


class Hvae(Recommender):
    """The autoencoder. `likelihood` decides whether it rates or ranks."""

    name: ClassVar[str] = "hvae"
    role: ClassVar[Role] = "ranking"
    kind: Literal["rating", "preference"] = "preference"
    Config = HvaeConfig
    config: HvaeConfig
    content: Tensor

    def __init__(self, config: HvaeConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.likelihood = _likelihood(config, schema)
        self.kind = self.likelihood.kind
        if self.kind == "rating":
            self.role = "collaborative"  # type: ignore[misc]  # of this configuration
        self.sizes = (config.upper_size, config.lower_size) if config.lower_size else (config.upper_size,)
        self.centre = nn.Parameter(torch.zeros(config.hidden_size))  # e
        self.hierarchy = Hierarchy(
            schema.user_attributes.width,
            config.hidden_size,
            self.sizes,
            gated=config.gated,
            n_pseudo_inputs=config.n_pseudo_inputs,
        )
        self.shallow = _shallow(config, schema) if config.shallow else None
        self.widths = {"encoder": config.hidden_size, "bias": 1} | (
            {} if config.tied else {"decoder": config.hidden_size}
        )
        n_columns = schema.item_attributes.width + len(schema.domains)
        self.register_buffer("content", torch.zeros(n_columns, sum(self.widths.values())))

    @property
    def state_size(self) -> int:
        return sum(self.sizes) + self.likelihood.n_own + (0 if self.shallow is None else self.shallow.state_size)

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        """(B, S), posterior means, what the likelihood keeps of a user, and the state of the shallow path."""
        evidence = replace(evidence, items=torch.where(evidence.mask, evidence.items, 0))
        read, own = self.likelihood.read(evidence, table)
        summed = self.centre.expand(len(read), -1)
        if read.shape[1]:
            rows = table["encoder"]
            summed = summed + embedding_bag(evidence.items, rows, per_sample_weights=self._scaled(read), mode="sum")
        states = [self.hierarchy.encode(summed, evidence.attributes), own]
        if self.shallow is not None:
            states.append(self.shallow.adapt(evidence, table, target))
        return torch.cat(states, dim=1)

    def _scaled(self, read: Tensor) -> Tensor:
        """x / |x|^p of each row of (B, …)."""
        length: Tensor = torch.linalg.vector_norm(read, dim=1, keepdim=True).clamp(min=1e-9)
        return read / length.pow(self.config.normalisation)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        n_codes = sum(self.sizes)
        codes, own, linear = states.tensor_split([n_codes, n_codes + self.likelihood.n_own], dim=1)
        decoder = table["encoder" if self.config.tied else "decoder"][rows]
        said = self.hierarchy.decode(codes) @ decoder.T  # (B, N)
        if self.shallow is not None:
            said = said + self.shallow.score(linear, table, positions)
        return self.likelihood.scores(said, own, table["bias"][rows], table.domain[rows])

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        suggested = self._suggested(content, torch.full((len(content),), domain))
        return suggested if self.shallow is None else suggested | self.shallow.embed_items(content, domain)

    def _suggested(self, content: ItemContent, domain: Tensor) -> Columns:
        """Rows that content suggests, as items have them that are like it."""
        device = self.content.device
        design = item_design(content.features.to(device), domain.to(device), len(self.schema.domains))
        columns = dict(
            zip(self.widths, torch.split(design @ self.content, [*self.widths.values()], dim=1), strict=True)
        )
        return columns | {"bias": columns["bias"][:, 0]}

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        config = self.config
        histories = self.likelihood.histories(data)
        counts = torch.from_numpy(histories.weights.sum(axis=0)).flatten()  # (N,)
        kept = (counts > 0).nonzero().flatten()  # (M,)
        users = torch.from_numpy(histories.weights.sum(axis=1)).flatten().nonzero().flatten()
        if not len(kept):
            raise ValueError("nobody likes anything: there is nothing to learn from")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)  # initial weights, shares and codes are drawn from torch's own generator
            reset_parameters(self)
            nn.init.zeros_(self.centre)
            bias = histories.bias[kept].float() * (self.shallow is None)  # EASE knows what most people like
            rows = ItemRows(self._start(data)[kept], bias, tied=config.tied).to(options.device)
            rows.bias.requires_grad_(self.likelihood.learns_bias)
            steps = -(-len(users) // config.batch_size)
            linear, beside = ({}, None) if self.shallow is None else self.shallow.fit(data, kept, options)
            lessons = partial(
                self._losses, rows, histories.of_items(kept), beside, data.user_attributes, users, options
            )
            fitted = outer_loop(
                self,
                lessons,
                partial(self._table, rows, linear, data.items.domain, kept),
                [{"params": self.parameters()}, {"params": [p for p in rows.parameters() if p.requires_grad]}],
                options,
                epochs=config.epochs,
                steps=steps,
                patience=config.patience,
                learning_rate=config.learning_rate,
            )
        return replace(fitted, table=self._filled(fitted.table, data))

    def _start(self, data: Dataset) -> Tensor:
        """(N, H) rows to begin with: by who has the items together, of about length one."""
        rows = co_rating_vectors(self.likelihood.counted(data), self.config.hidden_size)
        return rows + FIRST_NOISE * torch.randn_like(rows)

    def _losses(
        self,
        rows: ItemRows,
        histories: Histories,
        beside: Beside | None,
        attributes: Tensor,
        users: Tensor,
        options: FitOptions,
        epoch: int,
    ) -> Iterator[Tensor]:
        """The loss of each batch of an epoch."""
        config, batches = self.config, torch.split(users[torch.randperm(len(users))], self.config.batch_size)
        for n, batch in enumerate(batches):
            weights, values = histories.batch(batch, options.device)  # (B, M)
            share = config.least_shown + (1 - config.least_shown) * torch.rand(len(batch), 1, device=weights.device)
            shown = values * (torch.rand_like(values) < share)
            summed = self._scaled(shown) @ rows.encoder + self.centre
            codes, divergence = self.hierarchy.draw(summed, attributes[batch].to(weights.device))
            said = self.hierarchy.decode(codes) @ (rows.encoder if rows.decoder is None else rows.decoder).T
            if self.shallow is not None and beside is not None:
                said = said + self.shallow.said(beside.scores(batch, shown))
            done = (epoch + n / len(batches)) / config.epochs
            beta = config.beta * min(1.0, done / config.annealing) if config.annealing else config.beta
            wrong = self.likelihood.loss(said, rows.bias, weights, values)
            size = sum(p.square().sum() for p in (rows.encoder, rows.decoder) if p is not None)
            yield (wrong + beta * divergence).mean() + config.reg * size

    def _table(self, rows: ItemRows, linear: Columns, domain: Tensor, kept: Tensor) -> ItemTable:
        """The item table as it is; rows of items that were not met are zeros."""
        device = rows.bias.device
        columns = {
            name: learnt.new_zeros(len(domain), *learnt.shape[1:]).index_copy(0, kept.to(device), learnt)
            for name, learnt in rows.columns().items()
        }
        trained = torch.zeros(len(domain), dtype=torch.bool).index_fill(0, kept, True)
        return ItemTable(columns | linear, domain.to(device), trained.to(device))

    def _filled(self, table: ItemTable, data: Dataset) -> ItemTable:
        """Learn what content suggests; the table with it where nothing was learnt."""
        items = data.items
        counts = item_counts(self.likelihood.counted(data))
        design = item_design(items.content.features, items.domain, len(self.schema.domains))
        learnt = torch.cat([table[name].reshape(len(table), -1) for name in self.widths], dim=1)  # (N, …)
        self.content.copy_(ridge(design.to(learnt), learnt, (counts / (counts + REG_CONTENT)).to(learnt), REG_CONTENT))
        missing = (~table.trained).nonzero().flatten()
        suggested = self._suggested(items.content.rows(missing.cpu()), items.domain[missing.cpu()])
        columns = {name: table[name].index_copy(0, missing, rows) for name, rows in suggested.items()}
        return replace(table, columns=table.columns | columns)


def _shallow(config: HvaeConfig, schema: Schema) -> ShallowPath:
    return ShallowPath(config.ease.model_copy(update={"liked_above": config.liked_above}), schema, config.n_folds)


def _likelihood(config: HvaeConfig, schema: Schema) -> Likelihood:
    if config.likelihood == "gaussian":
        return GaussianRatings(schema)
    if config.likelihood == "bernoulli":
        return Bernoulli(schema, config.liked_above, config.n_negatives)
    return Multinomial(schema, config.liked_above)

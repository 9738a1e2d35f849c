"""Attributes: what a person is and what an item is made of meet in one space, before anybody has touched anything.

    r_ui = mean_d + unit_d (b_i + b_u + t_u . v_i)
    v_i = f_i H                          where content puts an item in the semantic space
    t_u ~ N(a_u G, noise / reg I)        which of its directions a person's attributes speak for
    b_i ~ N(f_i B, noise / reg_item)     what content says of quality: the ratings of an item, where there are any, add
    b_u ~ N(a_u C, noise / reg_user)

So a score exists for a pair of which neither was seen: encoders of both sides, a space, an inner product (a bilinear
embedding as in Akata et al., "Label-Embedding for Image Classification", TPAMI 2016, with the side of the labels taken
by people; a factorisation machine over attributes, Rendle 2010). A person's ratings move t_u and b_u in closed form.

B and C are ridge regressions in which items count by their ratings, for that is how they will be asked about. G and H
minimise the squared error of what B, C and the ratings of an item leave unexplained. When to stop is read off pairs of
held-out people and held-out items, where memory of what was seen is worth nothing; then all is learnt from everything.
"""

from collections.abc import Iterator
from itertools import count, islice
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import with_constant
from models.recommender import (
    Columns,
    Evidence,
    FitOptions,
    FitReport,
    Fitted,
    ItemContent,
    ItemEvidence,
    ItemTable,
    Recommender,
    Role,
    Scores,
)
from models.training.attribute_cells import Cells
from models.training.biases import Biases, BiasSettings, fit_biases, item_design, residuals, units, user_design
from models.training.factorisation import Problem, fold_in
from models.training.newcomers import learnt_bias, surprises
from models.training.statistics import item_counts

HELD_SHARE = 0.2
"""Share of the people, and of the items, that the number of epochs is chosen on."""
FIRST_SPREAD = 0.1
"""Standard deviation of G's and H's entries before training."""


class AttributesConfig(BiasSettings):
    """Settings of `Attributes`."""

    reg_content: float = Field(100.0, gt=0)
    """Ridge penalty of the regression of item biases on content, in items with as many ratings as the mean item."""
    content_weighting: Literal["items", "ratings"] = "ratings"
    attribute_prior: bool = True
    embedding_size: int = Field(8, ge=1)
    """K, directions of the semantic space."""
    reg: float = Field(20.0, gt=0)
    """Ridge penalty of a person's own taste, in ratings of an item with a typical row."""
    weight_decay: float = Field(0.002, ge=0)
    """Penalty on the squared entries of G and H, beside the mean squared error."""
    learning_rate: float = Field(0.01, gt=0)
    epochs: int = Field(30, ge=0)
    """Passes over the ratings at most; 0 leaves tastes out."""
    patience: int = Field(5, ge=1)
    """Passes without gain on pairs of which neither was seen, until training stops."""
    batch_size: int = Field(16384, ge=1)
    """Pairs of a profile and an item in a step."""


class Attributes(Recommender):
    """A bilinear map between attributes of people and items. A state is the person's bias, its variance, and taste."""

    name: ClassVar[str] = "attributes"
    role: ClassVar[Role] = "content"
    Config = AttributesConfig
    config: AttributesConfig
    mean: Tensor
    unit: Tensor
    noise: Tensor
    quality: Tensor
    generosity: Tensor

    def __init__(self, config: AttributesConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        n_domains, size = len(schema.domains), config.embedding_size
        n_features, n_attributes = schema.item_attributes.width + n_domains, schema.user_attributes.width + 1
        self.person = nn.Linear(n_attributes, size, bias=False)  # G'
        self.item = nn.Linear(n_features, size, bias=False)  # H'
        self.register_buffer("mean", torch.zeros(n_domains))  # (D,)
        self.register_buffer("unit", units(schema))  # (D,) a step of a five-point scale
        self.register_buffer("noise", torch.ones(n_domains))  # (D,) variance of a rating, in units
        self.register_buffer("quality", torch.zeros(n_features, 1))  # B
        self.register_buffer("generosity", torch.zeros(n_attributes, 1))  # C

    @property
    def state_size(self) -> int:
        return 2 + self.config.embedding_size

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        """(B, 2 + K): mean of the bias, its variance as a share of the noise's, mean of the taste."""
        person = user_design(evidence.attributes)
        prior = torch.cat([person @ self.generosity, self.person(person)], dim=1)  # (B, 1 + K)
        rows = with_constant(table["semantic"][evidence.items])  # (B, L, 1 + K)
        surprise = residuals(evidence, table, self.mean, self.unit) - (rows @ prior[:, :, None])[:, :, 0]  # (B, L)
        penalty = prior.new_full((prior.shape[1],), self.config.reg)
        penalty[0] = self.config.reg_user
        own = prior + fold_in(rows, surprise.where(evidence.mask, 0), evidence.weights, penalty)
        variance = 1 / (evidence.weights.sum(dim=1, keepdim=True) + self.config.reg_user)
        return torch.cat([own[:, :1], variance, own[:, 1:]], dim=1)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        domain = table.domain[rows]
        unit, noise = self.unit[domain], self.noise[domain]
        taste = states[:, 2:] @ table["semantic"][rows].T  # (B, N)
        mean = self.mean[domain] + unit * (table["bias"][rows] + states[:, :1] + taste)
        unknown = noise * (states[:, 1:2] + 1 / (table["count"][rows] + self.config.reg_item))
        return Scores(mean, unit * (noise + unknown).sqrt(), unit * unknown.sqrt())

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        return self._rows(content, torch.full((len(content),), domain))

    @torch.no_grad()
    def _rows(self, content: ItemContent, domain: Tensor) -> Columns:
        """What content says of items."""
        design = self._design(content, domain)
        bias = (design @ self.quality)[:, 0]
        return {"semantic": self.item(design), "bias": bias, "count": torch.zeros_like(bias)}

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """The bias, from what everything else leaves unexplained; content says all of the rest."""
        residual = surprises(self, table, rows, evidence) / self.unit[table.domain[rows[evidence.index]]]
        known = table["count"][rows]
        return {
            "bias": learnt_bias(table["bias"][rows], known + self.config.reg_item, evidence, residual),
            "count": known.index_add(0, evidence.index, evidence.weights),
        }

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        biases = fit_biases(data, self.config)
        history = self._rehearse(data, biases, options)
        epochs = min(range(len(history)), key=lambda epoch: history[epoch]["unseen_rmse"], default=self.config.epochs)
        for epoch in islice(self._learn(data, biases, options), epochs + 1):
            options.progress("tastes", 0.5 + 0.5 * epoch / max(epochs, 1), {})
        domain, counts = data.items.domain.to(self.mean.device), item_counts(data).to(self.mean.device)
        self._normalise(data, counts)
        columns = self._rows(data.items.content, domain)
        columns |= {"bias": biases.item.to(self.mean).where(counts > 0, columns["bias"]), "count": counts}
        return Fitted(ItemTable(columns, domain, counts > 0), FitReport(epochs, history))

    def _rehearse(self, data: Dataset, biases: Biases, options: FitOptions) -> list[dict[str, float]]:
        """Learn from some people and items; after each epoch, the error for pairs of others. Empty without such pairs.

        What is left of the ratings beside the people's own biases is to be predicted: their level is not in question.
        """
        generator = torch.Generator().manual_seed(options.seed)
        people, items = (torch.rand(n, generator=generator) < HELD_SHARE for n in (data.n_users, data.n_items))
        user, item = people[data.interactions.users], items[data.interactions.items]
        if not bool((user & item).any()) or bool((user | item).all()):
            return []
        asked, known = data.where(user & item), data.where(~user & ~item)
        problem = Problem.of(asked, biases)
        cells = Cells.of(asked, problem.values - problem.user_bias[problem.users]).to(self.mean.device)
        person, design = user_design(cells.attributes), self._design(data.items.content, data.items.domain)
        history: list[dict[str, float]] = []
        best = 0
        for epoch in self._learn(known, fit_biases(known, self.config), options):
            with torch.no_grad():
                predicted = self._tastes(person, design, cells) + (design @ self.quality)[cells.items, 0]
            error = (cells.weights * (cells.values - predicted).square()).sum() / cells.weights.sum()
            history.append({"unseen_rmse": float(error.sqrt())})
            options.progress("rehearsal", 0.5 * epoch / max(self.config.epochs, 1), history[-1])
            best = epoch if history[epoch]["unseen_rmse"] < history[best]["unseen_rmse"] else best
            if epoch == min(best + self.config.patience, self.config.epochs):
                break
        return history

    def _learn(self, data: Dataset, biases: Biases, options: FitOptions) -> Iterator[int]:
        """Begin anew, without tastes, and yield the number of passes over the ratings after each, for ever."""
        self.mean.copy_(biases.mean)
        self.noise.copy_(biases.noise)
        self.quality.copy_(biases.content)
        self.generosity.copy_(biases.attributes)
        generator = torch.Generator().manual_seed(options.seed)
        cells = Cells.of(data, Problem.of(data, biases).residual()).to(self.mean.device)
        person, design = user_design(cells.attributes), self._design(data.items.content, data.items.domain)
        with torch.no_grad():
            self.person.weight.zero_()
            self.item.weight.copy_(FIRST_SPREAD * torch.randn(self.item.weight.shape, generator=generator))
        optimizer = torch.optim.Adam(
            self.parameters(), self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        for epoch in count():
            yield epoch
            for batch in cells.batches(self.config.batch_size, generator):
                error = batch.values - self._tastes(person, design, batch)
                loss = (batch.weights * error.square()).sum() / batch.weights.sum()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()

    def _tastes(self, person: Tensor, design: Tensor, cells: Cells) -> Tensor:
        """t_u . v_i of cells, (C,)."""
        index, place = torch.unique(cells.items, return_inverse=True)
        product: Tensor = (self.person(person)[cells.profiles] * self.item(design[index])[place]).sum(dim=1)
        return product

    def _design(self, content: ItemContent, domain: Tensor) -> Tensor:
        """f (n, F + D)."""
        return item_design(content.features.to(self.mean), domain.to(self.mean.device), len(self.mean))

    @torch.no_grad()
    def _normalise(self, data: Dataset, counts: Tensor) -> None:
        """Typical rows of length one, so that `reg` is in ratings: what H loses G gains."""
        rows = self.item(self._design(data.items.content, data.items.domain))
        length = ((counts * rows.square().sum(dim=1)).sum() / counts.sum().clamp(min=1e-6)).sqrt().clamp(min=1e-6)
        self.item.weight /= length
        self.person.weight *= length

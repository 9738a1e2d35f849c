"""THE interface: every recommender is `evidence → state`, then `state × item table → scores`.

A recommender never sees ids. Items are rows of an item table, users are rows of states; who owns which row is the
caller's business. That makes batching, caching, new items, hot swap and search the same code for all recommenders.

Shapes: B users in a batch, L interactions of a user (padded), N items, A user attribute columns, F item feature
columns, S numbers of a state.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from models.datasets.schema import Schema
from models.exposure import Exposure

if TYPE_CHECKING:
    from models.datasets.dataset import Dataset
    from models.training.validation import Validation

Columns = dict[str, Tensor]
"""Named columns of an item table; the first axis of each is the item."""

Role = Literal["content", "collaborative", "adaptive", "transfer", "ranking"]
ROLES: tuple[Role, ...] = ("content", "collaborative", "adaptive", "transfer", "ranking")
"""What a checkpoint is used for in a domain. `ranking` is for preferences, which order items and predict no rating."""


@dataclass(frozen=True)
class Evidence:
    """What is known of each user of a batch: attributes and interactions, oldest first, in any domain of the table."""

    items: Tensor
    """(B, L) int64, rows of the item table; 0 where padded."""
    values: Tensor
    """(B, L) float32, ratings on the scale of the item's domain (for a click, the rating it stands for)."""
    weights: Tensor
    """(B, L) float32, 1 for an explicit rating, less for a click or a view, 0 exactly where padded."""
    kinds: Tensor
    """(B, L) int64, index into `Schema.kinds`."""
    times: Tensor
    """(B, L) float64, Unix seconds; NaN where unknown."""
    attributes: Tensor
    """(B, A) float32, encoded user attributes; zeros where unknown."""

    @property
    def mask(self) -> Tensor:
        """(B, L) bool, True where there is an interaction."""
        return self.weights > 0

    @property
    def batch_size(self) -> int:
        """B."""
        return self.items.shape[0]

    def to(self, device: torch.device | str) -> "Evidence":
        """The same on another device."""
        return Evidence(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def rows(self, index: Tensor | slice) -> "Evidence":
        """Some users of the batch."""
        return Evidence(**{name: tensor[index] for name, tensor in vars(self).items()})

    def emptied(self) -> "Evidence":
        """The same users with their attributes and no interactions."""
        return Evidence(
            **{name: tensor[:, :0] for name, tensor in vars(self).items() if name != "attributes"},
            attributes=self.attributes,
        )


@dataclass(frozen=True)
class ItemContent:
    """What is known of items without anyone having touched them."""

    features: Tensor
    """(n, F) float32, encoded item attributes."""
    texts: list[str]
    """Title and text attributes of each item, joined."""
    images: Tensor | None = None
    """(n, 3, 32, 32) uint8, a thumbnail of each item's picture, red, green, blue; all zeros for an item without one.
    None where the schema has no attribute of the kind `image`."""

    def __len__(self) -> int:
        return len(self.texts)

    def to(self, device: torch.device | str) -> "ItemContent":
        """The same on another device."""
        return ItemContent(
            self.features.to(device), self.texts, None if self.images is None else self.images.to(device)
        )

    def rows(self, index: Tensor) -> "ItemContent":
        """Some of the items."""
        images = None if self.images is None else self.images[index]
        return ItemContent(self.features[index], [self.texts[i] for i in index.tolist()], images)


@dataclass(frozen=True)
class ItemTable:
    """The rows that a recommender scores against, for all domains of a checkpoint."""

    columns: Columns
    """What the recommender keeps of each item, (N, …) each."""
    domain: Tensor
    """(N,) int64, index into `Schema.domains`."""
    trained: Tensor
    """(N,) bool, whether the row was learnt from interactions; the others come from content."""

    def __len__(self) -> int:
        return self.domain.shape[0]

    def __getitem__(self, column: str) -> Tensor:
        return self.columns[column]

    def to(self, device: torch.device | str) -> "ItemTable":
        """The same on another device."""
        moved = {name: column.to(device) for name, column in self.columns.items()}
        return ItemTable(moved, self.domain.to(device), self.trained.to(device))

    def with_rows(self, positions: Tensor, columns: Columns) -> "ItemTable":
        """The same table with the rows at `positions` replaced by content rows."""
        index = {name: column.index_copy(0, positions, columns[name]) for name, column in self.columns.items()}
        return replace(self, columns=index, trained=self.trained.index_fill(0, positions, False))

    def with_learnt(self, positions: Tensor, columns: Columns) -> "ItemTable":
        """The same table with some columns of the rows at `positions` replaced by what was learnt while serving."""
        index = {
            name: column.index_copy(0, positions, columns[name].to(column))
            for name, column in self.columns.items()
            if name in columns
        }
        return replace(self, columns=self.columns | index)

    def appended(self, columns: Columns, domain: int) -> "ItemTable":
        """The table with rows for new items of one domain behind the others."""
        n = len(next(iter(columns.values())))
        grown = {name: torch.cat([column, columns[name].to(column)]) for name, column in self.columns.items()}
        return ItemTable(
            grown,
            torch.cat([self.domain, self.domain.new_full((n,), domain)]),
            torch.cat([self.trained, self.trained.new_zeros(n)]),
        )


def entries(column: Tensor, positions: Tensor | None) -> Tensor:
    """Entries (…) of a column (N, …) at `positions` of any shape; the column itself where None.

    What indexing gives, in a third of the time where it is about a single user.
    """
    if positions is None:
        return column
    if positions.dim() == 1:
        return column.index_select(0, positions)
    return column.index_select(0, positions.flatten()).view(*positions.shape, *column.shape[1:])


@dataclass(frozen=True)
class ItemEvidence:
    """What users thought of n items after the fit: M ratings, in any order."""

    index: Tensor
    """(M,) int64, which of the n items was rated."""
    states: Tensor
    """(M, S) the state that `adapt` makes of who rated, from what they had done before and never from this rating."""
    values: Tensor
    """(M,) float32, ratings on the scale of the item's domain, or the ratings that other events stand for."""
    weights: Tensor
    """(M,) float32, 1 for an explicit rating, less for a click or a view."""


@dataclass(frozen=True)
class Scores:
    """What a recommender thinks of N items for each of B users."""

    mean: Tensor
    """(B, N)."""
    std: Tensor | None = None
    """(B, N) standard deviation of the *rating* that would be given, noise of the rating included; None where the
    recommender has no notion of it."""
    taste_std: Tensor | None = None
    """(B, N) the part of `std` that more evidence would remove; what exploration works with."""
    kind: Literal["rating", "preference"] = "rating"
    """`rating`: on the domain's scale. `preference`: orders items, no scale."""


Progress = Callable[[str, float, Mapping[str, float]], None]
"""`progress(stage, share done, metrics)`, called now and then during a fit."""


def no_progress(stage: str, done: float, metrics: Mapping[str, float]) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class FitOptions:
    """How to fit, apart from the recommender's own configuration."""

    seed: int = 0
    device: torch.device | str = "cpu"
    progress: Progress = no_progress
    validation: "Validation | None" = None
    """Tasks of users whose interactions are not in the data; what epochs are chosen on. None: run all epochs."""


@dataclass(frozen=True)
class FitReport:
    """What a fit has to say for itself; goes into the checkpoint's card."""

    epochs: int = 0
    """Epochs behind the weights that were kept."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Metrics of each epoch."""


@dataclass(frozen=True)
class Fitted:
    """What a fit gives: the learnt item rows (the weights stay in the module) and a report."""

    table: ItemTable
    report: FitReport


class RecommenderConfig(BaseModel):
    """Base of the recommenders' configurations: a misspelt setting is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Recommender(nn.Module, ABC):
    """A trainable recommender. Built from its configuration and the schema of its data alone."""

    name: ClassVar[str]
    role: ClassVar[Role]
    Config: ClassVar[type[RecommenderConfig]]
    kind: Literal["rating", "preference"] = "rating"
    """What its scores are. Of the class: with the default configuration; some decide by theirs when they are built."""

    def __init__(self, config: Any, schema: Schema) -> None:
        super().__init__()
        self.config = config
        self.schema = schema

    @property
    @abstractmethod
    def state_size(self) -> int:
        """S, the numbers of one user's state."""

    @abstractmethod
    def fit(self, data: "Dataset", options: FitOptions) -> Fitted:
        """Learn weights and item rows from a data set. The only method that changes the module.

        Every item of `data` gets a row: learnt where it has interactions, from `embed_items` where it has none.
        """

    @abstractmethod
    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        """Rows for items that nobody has touched yet, from their content: n rows of every column."""

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """Columns of the items at `rows` (n,), learnt in closed form from `evidence` while serving; {}: none change.

        `table` is the one that the fit and `embed_items` made, so the evidence must be all there is, not only what is
        new: rows then depend neither on the order of the ratings nor on when they were learnt from. A column with more
        evidence behind it moves less. Recommenders whose rows have no part with a closed form keep them, as here.
        """
        return {}

    @abstractmethod
    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        """States of users, (B, S), for answers in domain `target`, from what is known of them."""

    @abstractmethod
    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        """Scores (B, N) of the items at `positions` (N,) (all rows where None), on the domain's scale, not clipped."""

    def means(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Tensor:
        """The means of `score` alone, (B, N): all it takes to put a catalogue in order.

        Recommenders whose standard deviations cost more than their means leave those out here.
        """
        return self.score(states, table, positions).mean

    def taste_std(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Tensor | None:
        """The standard deviation (B, N) that `score` gives a taste, or a rating where it does not tell them apart.

        Recommenders whose means can be left out override it: policies have those already.
        """
        scores = self.score(states, table, positions)
        return scores.std if scores.taste_std is None else scores.taste_std

    def sample(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        """Draws (n, B, N) of what the user may think of the items.

        Drawn jointly where the recommender has a posterior; here: `mean + taste_std * noise`, each item by itself.
        """
        mean = self.means(states, table, positions)
        deviations = self.deviations(states, table, n, generator, positions)
        return mean.expand(n, *mean.shape) if deviations is None else mean + deviations

    def deviations(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor | None:
        """Draws like `sample`'s, less their mean: what policies, who have the means already, explore with. None where
        the recommender does not know how sure it is.

        A recommender with a posterior overrides this or `sample`, whichever is less work.
        """
        if type(self).sample is not Recommender.sample:
            return self.sample(states, table, n, generator, positions) - self.means(states, table, positions)
        spread = self.taste_std(states, table, positions)
        if spread is None:
            return None
        noise = torch.randn((n, *spread.shape), generator=generator, device=generator.device)
        return spread * noise.to(spread)

    @property
    def draws_jointly(self) -> bool:
        """Whether `sample` knows which opinions of a user hang together."""
        return type(self).sample is not Recommender.sample or type(self).deviations is not Recommender.deviations

    def taste_root(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        """L (B, N, r): L L' is how what a user may think of the items varies together, as far as is still unknown.

        What it would tell to ask about an item follows from it. Exact and with few columns where the posterior has a
        closed form; here: estimated by `n` draws of `sample`.
        """
        draws = self.sample(states, table, n, generator, positions)  # (n, B, N)
        root: Tensor = (draws - draws.mean(0)) / max(n - 1, 1) ** 0.5
        return root.permute(1, 2, 0)

    def exposure(self, table: ItemTable, positions: Tensor | None = None) -> Exposure | None:
        """Who may know the items at `positions`; None where the fit learnt nothing of it, as here."""
        return None

"""Tasks that are items: an item's head is adapted to the users who rated it, and a new item needs only a few of them.

    r_ui = mean_d + unit_d (b_u + theta_i . psi_u),    theta_i adapted to the residuals of the item's ratings
    psi_u = [c, tower(a_u, b_u, log n_u, profile_u)],    theta_i starts at tower(content_i)

This is the user task with the sides changed, and the same learners. The user's side is not adapted but encoded: b_u is
their shrunken mean residual and profile_u the sum of what they rated, each item's content and factors times how far
above its bias the rating lies. Factors are the leading singular vectors of the residuals and, for new items, their
regression on content. An item is adapted to the ratings of the training users when the fit ends; its head is a column
of the item table. A state is [b_u, psi_u].
"""

from typing import TYPE_CHECKING, Any

import torch
from scipy import sparse
from scipy.sparse.linalg import svds
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import MLP, with_constant
from models.recommender import Columns, Evidence, FitOptions, ItemTable, Scores
from models.training.biases import Biases, item_design, residuals, units
from models.training.episodes import Episode, Events, gather
from models.training.inner_loop import Support
from models.training.statistics import item_counts, ridge
from models.training.user_tasks import head, query_loss

if TYPE_CHECKING:
    from models.recommenders.maml import MamlConfig

ADAPTATION_BLOCK = 1 << 18
"""Ratings that one block of items may have, padding included, when their heads are adapted."""


class ItemTasks(nn.Module):
    """The network, and how items adapt it."""

    mean: Tensor
    unit: Tensor
    content_bias: Tensor
    content_factors: Tensor

    def __init__(self, config: "MamlConfig", schema: Schema) -> None:
        super().__init__()
        self.config = config
        n_domains, n_attributes = len(schema.domains), schema.user_attributes.width
        self.register_buffer("mean", torch.zeros(n_domains))  # (D,)
        self.register_buffer("unit", units(schema))  # (D,)
        width = schema.item_attributes.width + n_domains
        self.register_buffer("content_bias", torch.zeros(width, 1))
        self.register_buffer("content_factors", torch.zeros(width, config.embedding_size))
        inputs = 1 + n_attributes + 2 + width + config.embedding_size
        self.learner = head(
            config,
            MLP([width, *config.tower_sizes, config.embedding_size + 1]),
            MLP([inputs, *config.tower_sizes, config.embedding_size]),
        )

    @property
    def state_size(self) -> int:
        """S: a user's bias and row."""
        return 1 + self.learner.row_size

    def adapt(self, evidence: Evidence, table: ItemTable) -> Tensor:
        """(B, S) biases and rows of users."""
        weighted = evidence.weights * residuals(evidence, table, self.mean, self.unit)  # (B, L)
        profile = (weighted.unsqueeze(1) @ table["profile"][evidence.items]).squeeze(1)
        return self.encode(evidence.attributes, weighted.sum(dim=1), evidence.weights.sum(dim=1), profile)

    def means(self, states: Tensor, table: ItemTable, rows: Tensor | slice) -> Tensor:
        """Expected ratings (B, N) of the items at `rows`."""
        domain = table.domain[rows]
        predicted = states[:, :1] + states[:, 1:] @ table["head"][rows].mT  # (B, N)
        return torch.addcmul(self.mean[domain], predicted, self.unit[domain])

    def score(self, states: Tensor, table: ItemTable, rows: Tensor | slice) -> Scores:
        """Scores of the items at `rows`."""
        return Scores(self.means(states, table, rows))

    def embed_items(self, design: Tensor) -> Columns:
        """Columns of items from their content's design (n, F + D) alone."""
        return {
            "bias": (design @ self.content_bias)[:, 0],
            "profile": torch.cat([design, design @ self.content_factors], dim=1),
            "head": self.learner.user_tower(design),
        }

    def encode(self, attributes: Tensor, total: Tensor, weight: Tensor, profile: Tensor) -> Tensor:
        """States (…, S) from sums over each user's ratings: residuals (…), weights (…), weighted profiles (…, G)."""
        reg = self.config.reg_user
        bias = (total / (weight + reg)).unsqueeze(-1)
        known = with_constant(attributes)
        inputs = torch.cat(
            [known, bias, weight.log1p().unsqueeze(-1), profile / (weight + reg).sqrt().unsqueeze(-1)], dim=-1
        )
        row = self.learner.embed(inputs.flatten(0, -2)).view(*inputs.shape[:-1], -1)
        return torch.cat([bias, row], dim=-1)

    def practise(self, data: Dataset, biases: Biases, options: FitOptions) -> "ItemPractice":
        """What training on a data set needs besides this module."""
        self.mean.copy_(biases.mean)
        self.content_bias.copy_(biases.content)
        return ItemPractice(self, data, biases).to(options.device)


class ItemPractice(nn.Module):
    """What is known of the users and items of the training data."""

    bias: Tensor
    profile: Tensor
    design: Tensor
    trained: Tensor
    domain: Tensor
    attributes: Tensor
    total: Tensor
    weight: Tensor
    profiles: Tensor

    def __init__(self, tasks: ItemTasks, data: Dataset, biases: Biases) -> None:
        super().__init__()
        self._tasks = (tasks,)  # in a tuple, so that it is not taken for a part
        self.data = data
        seen, n_users = data.interactions, data.n_users
        design = item_design(data.items.content.features, data.items.domain, len(data.schema.domains))
        counts = item_counts(data)
        trained = counts > 0
        domain = data.items.domain[seen.items]
        residual = seen.weights * (
            (seen.values - biases.mean[domain]) / tasks.unit.cpu()[domain] - biases.item[seen.items]
        )
        matrix = sparse.csr_matrix(
            (residual.numpy(), (seen.users.numpy(), seen.items.numpy())), (n_users, data.n_items)
        )
        factors = _factors(matrix, tasks.config.embedding_size)
        reliability = counts / (counts + tasks.config.reg_item)
        tasks.content_factors.copy_(ridge(design, factors, reliability, tasks.config.reg_content))
        factors = torch.where(trained[:, None], factors, design @ tasks.content_factors.cpu())
        profile = torch.cat([design, factors], dim=1)
        total = torch.zeros(n_users).index_add_(0, seen.users, residual)
        weight = torch.zeros(n_users).index_add_(0, seen.users, seen.weights)
        self.register_buffer("bias", torch.where(trained, biases.item, (design @ biases.content)[:, 0]))  # (N,)
        self.register_buffer("profile", profile)  # (N, G)
        self.register_buffer("design", design)  # (N, F + D)
        self.register_buffer("trained", trained)  # (N,)
        self.register_buffer("domain", data.items.domain)  # (N,)
        self.register_buffer("attributes", data.user_attributes)  # (U, A)
        self.register_buffer("total", total)  # (U,)
        self.register_buffer("weight", weight)  # (U,)
        self.register_buffer("profiles", torch.from_numpy(matrix @ profile.numpy()))  # (U, G)

    def groups(self) -> list[dict[str, Any]]:
        """Optimiser groups of the weights of the network."""
        return [{"params": [*self._tasks[0].parameters()]}]

    def table(self) -> ItemTable:
        """The item table, with the heads as the training ratings make them."""
        items = self.data.interactions.items
        order = items.argsort(stable=True)
        counts = torch.bincount(items, minlength=self.data.n_items)
        offsets = counts.cumsum(0) - counts
        heads = self._tasks[0].learner.user_tower(self.design)
        by_size = counts.argsort(descending=True, stable=True)
        by_size = by_size[: int((counts > 0).sum())]
        while len(by_size):
            longest = int(counts[by_size[0]])
            block, by_size = by_size.tensor_split([max(1, ADAPTATION_BLOCK // longest)])
            place = torch.arange(longest)
            mask = place < counts[block, None]
            rows = order[torch.where(mask, offsets[block, None] + place, 0)]
            events = gather(self.data.interactions, rows, mask).to(heads.device)
            block = block.to(heads.device)
            support = self._support(events)
            heads = heads.index_copy(0, block, self._adapt(block, *support)[-1])
        columns = {"bias": self.bias, "profile": self.profile, "head": heads}
        return ItemTable(columns, self.domain, self.trained)

    def loss(self, episode: Episode, done: float, generator: torch.Generator) -> Tensor:
        """Squared error of the queries after adaptation, in units; `done` is the share of training gone by."""
        device, config = self.domain.device, self._tasks[0].config
        tasks, support, query = episode.tasks.to(device), episode.support.to(device), episode.query.to(device)
        heads = self._adapt(tasks, *self._support(support, generator))
        states, targets, weights = self._support(query, generator)
        judged = heads if config.multi_step_loss else heads[-1:]
        return query_loss([(states @ h.unsqueeze(-1)).squeeze(-1) for h in judged], targets, weights, done)

    def _adapt(self, items: Tensor, rows: Tensor, targets: Tensor, weights: Tensor) -> list[Tensor]:
        """Heads (B, R) of items after each inner step."""
        learner, design = self._tasks[0].learner, self.design[items]
        shift = targets.new_zeros(len(items), learner.user_size)
        return [fast[0] for fast in learner.adapt(Support(rows, targets, weights), design, shift)]

    def _support(self, events: Events, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (B, L, R) of the users as they would be without this very rating, what is left to explain, weights.

        With a generator, a random share of the users is met without any ratings, as newcomers are.
        """
        tasks, users = self._tasks[0], events.users
        domain = self.domain[events.items]
        rating = (events.values - tasks.mean[domain]) / tasks.unit[domain]
        own = events.weights * (rating - self.bias[events.items])  # (B, L)
        known = torch.ones_like(own)
        if generator is not None:
            known = (torch.rand(own.shape, generator=generator) >= tasks.config.embedding_dropout).to(own)
        states = tasks.encode(
            self.attributes[users],
            known * (self.total[users] - own),
            known * (self.weight[users] - events.weights).clamp(min=0),
            known.unsqueeze(-1) * (self.profiles[users] - own.unsqueeze(-1) * self.profile[events.items]),
        )
        return states[..., 1:], (rating - states[..., 0]).where(events.weights > 0, 0), events.weights


def _factors(matrix: sparse.csr_matrix, n_factors: int) -> Tensor:
    """Leading right singular vectors (N, K) of the residuals, entries around one; zeros where there are fewer."""
    n_items = matrix.shape[1]
    k = min(n_factors, min(matrix.shape) - 1)
    start = torch.ones(min(matrix.shape), dtype=torch.float64).numpy()
    _, _, vectors = svds(matrix.astype("float64"), k=k, v0=start)
    factors = torch.zeros(n_items, n_factors)
    factors[:, :k] = torch.from_numpy(vectors[::-1].T.copy()).float() * n_items**0.5
    return factors

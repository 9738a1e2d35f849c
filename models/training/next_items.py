"""What comes next: the `next_item` objective of MECOS.

    s_j     = [x_j, l_j x_j, l_j, w_j]
    p(i | theta) = exp(b_i + theta . x_i) / sum_k exp(b_k + theta . x_k)
    theta_u = h_n + steps up sum_j g_j log p(i_j | theta) / (sum_j g_j + reg),    g_j = 2 w_j sigmoid(a l_j + c)

with the sum over the items that were met in training. x_j is an item's row, w_j a weight, l_j how far a rating lies
above the middle of the scale. b_i begins at the logarithm of how often an item was met, rows at who touches items
together (`models.training.co_rating`). An episode is a window of a history, cut at a random place: what is before is
the support that the inner loop sees. How far it went holds for all places from there on, h_t + (theta_u - h_n), and at
some of them the next item is to be told.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import Columns, Evidence, FitOptions, Fitted, ItemContent, ItemTable, Recommender, Role, Scores
from models.training.biases import item_design, units
from models.training.co_rating import co_rating_vectors
from models.training.inner_loop import Weights, descend
from models.training.lessons import REG_CONTENT, REG_ITEM, ContentRows
from models.training.newest import newest
from models.training.outer_loop import outer_loop
from models.training.sequence import SequenceEncoder, after
from models.training.statistics import item_counts, ridge
from models.training.windows import Window, Windows

if TYPE_CHECKING:
    from models.recommenders.mecos import MecosConfig


class ItemRows(nn.Module):
    """What training learns of each item; the table keeps what comes of it."""

    design: Tensor

    def __init__(self, content: ContentRows, data: Dataset, size: int) -> None:
        super().__init__()
        self._content = (content,)  # in a tuple, so that it is not taken for a part
        design = item_design(data.items.content.features, data.items.domain, len(data.schema.domains))
        self.register_buffer("design", design)  # (N, F + D)
        counts, start = item_counts(data), co_rating_vectors(data, size)
        with torch.no_grad():
            content.weight.copy_(ridge(design, start, counts / (counts + REG_ITEM), REG_CONTENT).T)
            own = (start - content(design)) * (counts > 0)[:, None]
        self.embedding = nn.Parameter(own)  # (N, E)
        often = (counts + 0.5).log()
        self.bias = nn.Parameter(often - often[counts > 0].mean())  # (N,)

    def forward(self, keep: Tensor | None = None) -> Tensor:
        """Rows (N, E); `keep` (N, 1) is False where only the content is to speak."""
        own = self.embedding if keep is None else keep * self.embedding
        rows: Tensor = own + self._content[0](self.design)
        return rows


def met_bias(table: ItemTable) -> Tensor:
    """b (N,) of the items that were met in training; of the others minus infinity, so that they share in no sum."""
    return table["bias"].masked_fill(~table.trained, -torch.inf)


class NextItems(Recommender):
    """A state is theta_u; scores are preferences."""

    name: ClassVar[str] = "mecos"
    role: ClassVar[Role] = "adaptive"
    kind: Literal["rating", "preference"] = "preference"
    config: "MecosConfig"
    middle: Tensor
    unit: Tensor
    new_bias: Tensor

    def __init__(self, config: "MecosConfig", schema: Schema) -> None:
        super().__init__(config, schema)
        size = config.embedding_size
        low, high = schema.scales()
        self.register_buffer("middle", (low + high) / 2)  # (D,)
        self.register_buffer("unit", units(schema))  # (D,)
        self.register_buffer("new_bias", torch.zeros(1))  # b of items that nobody has met
        self.content = ContentRows(schema, size)
        self.encoder = SequenceEncoder(schema.user_attributes.width, 2 * size + 2, config.hidden_size, size)
        self.log_rate = nn.Parameter(torch.empty(size))
        self.echo = nn.Parameter(torch.empty(2))  # a and c
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin anew; inner rates at the configured one."""
        self.encoder.reset_parameters()
        nn.init.constant_(self.log_rate, math.log(self.config.inner_learning_rate))
        nn.init.zeros_(self.echo)

    @property
    def state_size(self) -> int:
        return self.config.embedding_size

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        kept = newest(evidence.mask, self.config.max_support)
        items = torch.where(evidence.mask, evidence.items, 0).gather(1, kept)
        weights = evidence.weights.gather(1, kept)
        liking = self.liking(evidence.values.gather(1, kept), table.domain[items], weights)
        rows, bias = table["row"], table["bias"]
        start = after(self.encode(evidence.attributes, rows[items], liking, weights), (weights > 0).sum(dim=1))
        echo = weights * self.echoes(liking)
        return self.inner_loop(start, rows[items], bias[items], echo, rows, met_bias(table))

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        return Scores(torch.addmm(table["bias"][rows], states, table["row"][rows].mT), kind="preference")

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        domains = torch.full((len(content),), domain, device=self.unit.device)
        design = item_design(content.features.to(self.unit), domains, len(self.schema.domains))
        return {"row": self.content(design), "bias": self.new_bias.expand(len(content))}

    def liking(self, values: Tensor, domain: Tensor, weights: Tensor) -> Tensor:
        """How far ratings lie above the middle of the scale, in units; zero where padded."""
        return ((values - self.middle[domain]) / self.unit[domain]).where(weights > 0, 0)

    def echoes(self, liking: Tensor) -> Tensor:
        """What a rating weighs in the inner loop, from how much the item was liked; 1 before training."""
        return 2 * torch.sigmoid(self.echo[0] * liking + self.echo[1])

    def encode(self, attributes: Tensor, rows: Tensor, liking: Tensor, weights: Tensor) -> Tensor:
        """h (B, 1 + L, E) from attributes (B, A), rows (B, L, E), liking and weights (B, L)."""
        spoken = liking.unsqueeze(-1)
        inputs = torch.cat([rows, spoken * rows, spoken, weights.unsqueeze(-1)], dim=-1)
        encodings: Tensor = self.encoder(attributes, inputs)
        return encodings

    def inner_loop(
        self, start: Tensor, rows: Tensor, bias: Tensor, weights: Tensor, all_rows: Tensor, all_bias: Tensor
    ) -> Tensor:
        """theta_u (B, E): from `start`, on supports with rows (B, L, E), bias and weights (B, L); all items have rows
        (N, E) and `met_bias` (N,)."""

        def surprise(theta: Tensor, x: Tensor, b: Tensor, w: Tensor) -> Tensor:
            total = torch.logsumexp(all_rows @ theta + all_bias, dim=0)
            loss: Tensor = (w * (total - x @ theta - b)).sum() / (w.sum() + self.config.inner_reg).clamp(min=1e-9)
            return loss

        per_user = vmap(grad(surprise))

        def gradient(theta: Weights) -> Weights:
            return {"theta": per_user(theta["theta"], rows, bias, weights)}

        return descend({"theta": start}, gradient, {"theta": self.log_rate.exp()}, self.config.steps)[-1]["theta"]

    def loss(self, window: Window, table: ItemTable) -> Tensor:
        """Mean surprise at the items that come next in a window."""
        device, among = table.domain.device, met_bias(table)
        history = window.history.to(device)
        cut, places, weights = (part.to(device) for part in (window.cut, window.places, window.weights))
        rows, bias, items = table["row"], table["bias"], history.items
        found = nn.functional.embedding(items, rows)  # (B, L, E); its gradient is faster than that of indexing
        liking = self.liking(history.values, table.domain[items], history.weights)
        encodings = self.encode(history.attributes, found, liking, history.weights)
        shown = history.weights * (torch.arange(items.shape[1], device=device) < cut[:, None])
        echo = shown * self.echoes(liking)
        start = after(encodings, cut)
        moved = self.inner_loop(start, found, bias[items], echo, rows, among) - start  # (B, E)
        theta = encodings.gather(1, places.unsqueeze(-1).expand(-1, -1, moved.shape[1])) + moved.unsqueeze(1)
        told = torch.addmm(among, theta.flatten(0, 1), rows.mT).log_softmax(dim=1)
        surprise = -told.gather(1, items.gather(1, places).flatten()[:, None]).view_as(weights)
        return (weights * surprise.where(weights > 0, 0)).sum() / weights.sum().clamp(min=1e-9)

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)  # initial weights are drawn from torch's own generator
            self.reset_parameters()
        items = ItemRows(self.content, data, config.embedding_size).to(options.device)
        windows = Windows(data, config.max_support + 1, config.n_targets, torch.Generator().manual_seed(options.seed))
        met, domain = (item_counts(data) > 0).to(options.device), data.items.domain.to(options.device)

        def losses(epoch: int) -> Iterator[Tensor]:
            for users in windows.batches(config.batch_size):
                keep = torch.rand(data.n_items, 1, generator=windows.generator) >= config.embedding_dropout
                table = ItemTable({"row": items(keep.to(options.device)), "bias": items.bias}, domain, met)
                yield self.loss(windows.draw(users), table)

        def item_table() -> ItemTable:
            self.new_bias.copy_(items.bias[met].mean())
            return ItemTable({"row": items(), "bias": items.bias.clone()}, domain, met)

        groups: list[dict[str, Any]] = [
            {"params": [items.embedding, items.bias], "lr": config.warm_learning_rate, "weight_decay": config.reg},
            {"params": self.content.parameters(), "lr": config.warm_learning_rate},
            {"params": [*self.encoder.parameters(), self.log_rate, self.echo]},
        ]
        return outer_loop(
            self,
            losses,
            item_table,
            groups,
            options,
            epochs=config.epochs,
            steps=windows.n_batches(config.batch_size),
            patience=config.patience,
            learning_rate=config.learning_rate,
        )

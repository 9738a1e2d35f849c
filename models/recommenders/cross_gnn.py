"""Graph convolution across domains: opinions flow along ratings, from people to items and back, in both catalogues.

    a_ui = w_ui e_ui                            edge of a rating: what the base leaves unexplained of it
    x_u  = P({x_j, a_uj: j rated by u})         people are what flows to them from items
    x_i' = (I + D_d) P({x_u, a_ui: u rated i})  items, from people; D_d is the domain adapter
    v_i    = sum_l c_l x_i^(l),    z_u = s P({v_j, a_uj})
    r_ui   = base_ui + unit_d (z_u . v_i + ...)

with P the same in all domains and layers (He et al., "LightGCN", SIGIR 2020; Kipf and Welling, "GCN", ICLR 2017;
Hamilton et al., "GraphSAGE", NIPS 2017; Velickovic et al., "GAT", ICLR 2018):

    lightgcn   sum_j a_uj x_j / root((n_u + s) (n_j + s))
    gcn        the same of W x_j, added to what stands there, behind a rectifier's leak
    sage       W (x_u, sum_j a_uj x_j / (n_u + s))
    gat        sum_j alpha_uj a_uj x_j,   alpha_uj = n_u / (n_u + s) softmax_j(leaky(b . x_j + c . x_u + d |e_uj|))

Films and books are joined by people who rated both. Nobody has an embedding of their own: a stranger is P of their
evidence, just as people of the training are. Neither those who practise nor what they rated is in the graph that makes
the items' rows meanwhile, so nothing is foretold from itself.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from models.datasets.schema import Schema
from models.training.ground import Fold
from models.training.grounded_transfer import GroundedTransfer, GroundedTransferSettings, Known
from models.training.lessons import Practice, ratings_of

Variant = Literal["lightgcn", "gcn", "sage", "gat"]
LEAK = 0.2


class CrossGnnConfig(GroundedTransferSettings):
    """Settings of `CrossGnn`."""

    variant: Variant = "lightgcn"
    """How what flows to a node is put together."""
    layers: int = Field(1, ge=0, le=4)
    """Times that opinions go from items to people and back before rows are made; 0: no graph."""
    shrinkage: float = Field(25.0, gt=0)
    """s: ratings' worth of belief that a person or an item is like all others."""


@dataclass(frozen=True)
class Edges:
    """M ratings between a people and b items, as seen by the people; `turned`, by the items."""

    people: Tensor
    """(M,) int64."""
    items: Tensor
    """(M,) int64."""
    opinions: Tensor
    """(M,) a_ui."""
    n_people: int
    degrees: Tensor
    """(b,) ratings of each item."""

    def turned(self) -> "Edges":
        """The same from the other side."""
        degrees = torch.bincount(self.people, minlength=self.n_people).to(self.degrees)
        return Edges(self.items, self.people, self.opinions, len(self.degrees), degrees)

    def without(self, people: Tensor) -> "Edges":
        """The same without what some people did."""
        kept = ~torch.isin(self.people, people)
        return replace(self, people=self.people[kept], items=self.items[kept], opinions=self.opinions[kept])

    def to_people(self, values: Tensor) -> Tensor:
        """(n_people, …) sums of values (M, …)."""
        return values.new_zeros(self.n_people, *values.shape[1:]).index_add(0, self.people, values)

    def flow(self, weights: Tensor, items: Tensor) -> Tensor:
        """(n_people, E) sums of weights (M,), which nothing is learnt by, times rows of items (b, E)."""
        places, shape = torch.stack([self.people, self.items]), (self.n_people, len(items))
        matrix = torch.sparse_coo_tensor(places, weights, shape, check_invariants=False)
        summed: Tensor = torch.sparse.mm(matrix, items)
        return summed


class Propagation(nn.Module):
    """P: what flows to people from items; of a turned graph, to items from people."""

    def __init__(self, config: CrossGnnConfig) -> None:
        super().__init__()
        size = config.embedding_size
        self.config = config
        n_in = {"lightgcn": 0, "gat": 0, "gcn": size, "sage": 2 * size}[config.variant]
        self.linear = nn.Linear(n_in, size, bias=False) if n_in else None
        self.attention = nn.Linear(size, 2, bias=False) if config.variant == "gat" else None
        self.strength = nn.Parameter(torch.empty(1)) if config.variant == "gat" else None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin with weights that change nothing, and attention that is the same for all."""
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)[:, -self.config.embedding_size :] = torch.eye(self.config.embedding_size)
        if self.attention is not None and self.strength is not None:
            nn.init.zeros_(self.attention.weight)
            nn.init.zeros_(self.strength)

    def forward(self, edges: Edges, items: Tensor, people: Tensor) -> Tensor:
        """(n_people, E) from items (n_items, E), and people (n_people, E) as they were before."""
        shrinkage = self.config.shrinkage
        n = edges.to_people(torch.ones_like(edges.opinions))  # (n_people,)
        if self.attention is not None and self.strength is not None:
            share = self._attention(edges, items, people) * (n / (n + shrinkage))[edges.people]
            return edges.to_people((share * edges.opinions)[:, None] * items[edges.items])
        if self.config.variant == "sage":
            weights = edges.opinions / (n + shrinkage)[edges.people]
        else:
            weights = (
                edges.opinions * ((n + shrinkage)[edges.people] * (edges.degrees + shrinkage)[edges.items]).rsqrt()
            )
        flow = edges.flow(weights, items)
        if self.linear is None:
            return flow
        if self.config.variant == "gcn":
            return leaky_relu(self.linear(people + flow), 1 - LEAK)
        found: Tensor = self.linear(torch.cat([people, flow], dim=1))
        return found

    def _attention(self, edges: Edges, items: Tensor, people: Tensor) -> Tensor:
        """(M,) shares that add up to one for each person."""
        assert self.attention is not None
        assert self.strength is not None
        of_items, of_people = self.attention(items)[:, 0], self.attention(people)[:, 1]
        logits = of_items[edges.items] + of_people[edges.people] + self.strength * edges.opinions.abs()
        odds = leaky_relu(logits, LEAK).clamp(max=20).exp()
        share: Tensor = odds / edges.to_people(odds).clamp(min=1e-12)[edges.people]
        return share


class CrossGnn(GroundedTransfer):
    """Rows of items are what a graph of both domains makes of them; people are what flows to them."""

    name: ClassVar[str] = "cross_gnn"
    Config = CrossGnnConfig
    config: CrossGnnConfig

    def __init__(self, config: CrossGnnConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        size = config.embedding_size
        self.propagation = Propagation(config)
        self.adapters = nn.Parameter(torch.empty(len(schema.domains), size, size))  # D
        self.mix = nn.Parameter(torch.empty(1 + config.layers))  # c
        self.scale = nn.Parameter(torch.empty(1))  # s
        self._graph: tuple[Edges, ...] = ()  # of the training

    @property
    def taste_size(self) -> int:
        return self.config.embedding_size

    @torch.no_grad()
    def begin(self) -> None:
        """Begin with rows as they are, and an even mix of layers."""
        self.propagation.reset_parameters()
        nn.init.zeros_(self.adapters)
        nn.init.constant_(self.mix, 1 / len(self.mix))
        nn.init.constant_(self.scale, self.config.shrinkage)

    def encode(self, known: Known) -> Tensor:
        """The evidence as a graph of its own, with a node for each rating: what flows to a stranger."""
        mask = known.weights > 0
        at = mask.flatten().nonzero().squeeze(1)
        people, place = at // max(1, mask.shape[1]), torch.arange(len(at), device=at.device)
        rows = known.rows.flatten(0, 1)[at]  # (M, E + 1)
        edges = Edges(people, place, (known.weights * known.opinions).flatten()[at], len(mask), rows[:, -1])
        nobody = rows.new_zeros(len(mask), self.config.embedding_size)
        tastes: Tensor = self.scale * self.propagation(edges, rows[:, :-1], nobody)
        return tastes

    def place(self, rows: Tensor, read: Tensor) -> Tensor:
        return rows[:, :-1]

    def prepare(self, folds: list[Fold]) -> None:
        people, items, residuals = (torch.cat(parts) for parts in zip(*map(ratings_of, folds), strict=True))
        data = folds[0].data
        degrees = torch.bincount(items, minlength=data.n_items).float()
        device = self.mean.device
        graph = Edges(people.to(device), items.to(device), residuals.to(device), data.n_users, degrees.to(device))
        self._graph = (graph,)

    def item_rows(self, practice: Practice, index: Tensor | None, keep: Tensor | None, apart: Tensor) -> Tensor:
        """(n, E + 1) what the graph makes of rows, and degrees; where `keep` is False, rows as of new items."""
        (graph,) = self._graph
        domain = practice.design[:, -len(self.adapters) :].argmax(dim=1)
        rows = torch.cat([self._layers(practice.rows(), domain, graph.without(apart)), graph.degrees[:, None]], dim=1)
        if index is None:
            return rows
        return (
            rows[index]
            if keep is None
            else rows[index].where(keep, self._alone(practice.rows(index, keep), domain[index]))
        )

    def new_rows(self, rows: Tensor, domain: int) -> Tensor:
        return self._alone(rows, torch.full((len(rows),), domain, device=rows.device))

    def _alone(self, rows: Tensor, domain: Tensor) -> Tensor:
        """Rows of items that nobody has rated."""
        none, degrees = torch.zeros(0, dtype=torch.long, device=rows.device), rows.new_zeros(len(rows))
        return torch.cat(
            [self._layers(rows, domain, Edges(none, none, rows.new_zeros(0), 0, degrees)), degrees[:, None]], 1
        )

    def _layers(self, rows: Tensor, domain: Tensor, edges: Edges) -> Tensor:
        """v (n, E): the mix of what rounds of propagation make of rows (n, E)."""
        back, mixed = edges.turned(), torch.zeros_like(rows)
        for layer, share in enumerate(self.mix):
            if layer:
                people = self.propagation(edges, rows, rows.new_zeros(edges.n_people, rows.shape[1]))
                rows = self.propagation(back, people, rows)
            adapted = torch.stack([rows @ adapter for adapter in self.adapters], dim=1)  # (n, domains, E)
            rows = rows + adapted[torch.arange(len(rows), device=rows.device), domain]
            mixed = mixed + share * rows
        return mixed

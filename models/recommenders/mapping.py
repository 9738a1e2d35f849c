"""Embedding and mapping: who somebody is in the source says who they are in the target.

    u_s, u_t        bias and factors in each domain, from a factorisation of that domain alone
    u_t ~ f(u_s)    learnt from the users who are in both
    f(u) = W u + c                           `linear`:  ridge regression, each user weighted by how well u_t is known
    f(u) = W u + c + MLP(u)                  `mlp`:     |f(u_s) - u_t|² (Man et al., EMCDR, IJCAI 2017)
    f(u) = W u + c + M(h_u) u                `bridge`:  (r - f(u_s) . q_i)² over their target ratings, where M makes a
                                             map of each user's own from h_u, attention over the items of their history
                                             (Zhu et al., PTUPCDR, WSDM 2022)

The nonlinear maps begin as the linear one. What the user has rated in the target moves them on from there: ridge
regression around f(u_s) instead of around nothing. With `map_items` the same is done for items that are one thing in
two catalogues (`same_as`): q_t ~ g(q_s), so that an item hardly rated in the target is known by its twin.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.layers import MLP, reset_parameters, with_constant
from models.recommender import Columns, Evidence, FitOptions, Fitted, ItemContent, ItemEvidence, ItemTable, Scores
from models.recommenders.mf import Mf
from models.training.biases import residuals
from models.training.domains import TransferSettings, evidence_in, only, overlapping_items, overlapping_users
from models.training.factorisation import fold_in
from models.training.statistics import item_counts, ridge
from models.training.transfer import Transfer, keep_best, named, part

SOURCE, TARGET = "source.", "target."
"""What the columns of the two factorisations begin with in the item table."""
LONGEST = 200
"""Interactions of a history that attention reads: the newest."""


class MappingConfig(TransferSettings):
    """Settings of `Mapping`."""

    n_factors: int = Field(8, ge=1)
    """K, width of the factors in each domain."""
    reg: float = Field(6.0, gt=0)
    """Penalty on squared factors in either domain, and on how far target ratings move a user from where f put them."""
    sweeps: int = Field(15, ge=1)
    """Sweeps of each factorisation."""
    kind: Literal["linear", "mlp", "bridge"] = "linear"
    """What f is."""
    reg_map: float = Field(20.0, gt=0)
    """Ridge penalty of the linear map, in users."""
    hidden_size: int = Field(32, ge=1)
    """Width of the hidden layer of `mlp`, and of the network that makes the bridges."""
    map_items: bool = True
    """Whether items that are linked by `same_as` learn from each other."""
    reg_items: float = Field(10.0, gt=0)
    """Ratings' worth of belief that a target item is what its twin in the source says."""
    learning_rate: float = Field(1e-3, gt=0)
    """Adam's, of the nonlinear maps."""
    epochs: int = Field(30, ge=1)
    """Passes over the users of both domains at most."""
    patience: int = Field(5, ge=1)
    """Epochs without better answers to validation users before the fit stops."""
    batch_size: int = Field(64, ge=1)
    """Users in a step."""


class UserMap(nn.Module):
    """f: from bias and factors in the source (B, P), and a history, to those in the target."""

    linear: Tensor

    def __init__(self, config: MappingConfig) -> None:
        super().__init__()
        size = 1 + config.n_factors
        self.register_buffer("linear", torch.zeros(1 + size, size))  # (c, W)'
        self.mlp = MLP([size, config.hidden_size, size]) if config.kind == "mlp" else None
        self.bridge = MLP([size, config.hidden_size, size * size]) if config.kind == "bridge" else None
        self.attention = MLP([size, config.hidden_size, 1]) if config.kind == "bridge" else None

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The last layers are zeros: f begins as the linear map."""
        for network in (self.mlp, self.bridge):
            if network is not None:
                nn.init.zeros_(network.linears()[-1].weight)
                nn.init.zeros_(network.linears()[-1].bias)

    def forward(self, users: Tensor, history: Tensor, weights: Tensor) -> Tensor:
        """(B, P) in the target from (B, P) in the source and items (B, L, P) weighted (B, L) of the history."""
        mapped = with_constant(users) @ self.linear
        if self.mlp is not None:
            mapped = mapped + self.mlp(users)
        if self.bridge is not None and self.attention is not None and history.shape[1]:
            logits = self.attention(history).squeeze(-1).masked_fill(weights <= 0, -torch.inf)
            logits = logits.where((weights > 0).any(1, keepdim=True), 0)
            pooled = ((logits.softmax(1) * (weights > 0))[:, None] @ history).squeeze(1)  # (B, P)
            own = self.bridge(pooled).view(len(users), users.shape[1], users.shape[1])
            mapped = mapped + (own @ users[:, :, None]).squeeze(-1)
        return mapped


class Mapping(Transfer):
    """Two factorisations and a map. A state is the user's bias and factors in the source, and in the target."""

    name: ClassVar[str] = "mapping"
    Config = MappingConfig
    config: MappingConfig
    item_map: Tensor

    def __init__(self, config: MappingConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        settings = Mf.Config(n_factors=config.n_factors, reg=config.reg, epochs=config.sweeps)
        self.source, self.target = Mf(settings, schema), Mf(settings, schema)
        self.user_map = UserMap(config)
        self.register_buffer("item_map", torch.zeros(2 + config.n_factors, 1 + config.n_factors))  # of g

    @property
    def state_size(self) -> int:
        return 2 * (1 + self.config.n_factors)

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        there = evidence_in(evidence, table, self.direction.source)
        source = self.source.adapt(there, part(table, SOURCE), self.direction.source)
        mapped = self.user_map(source, *self._history(there, table))
        return torch.cat([source, self._moved(mapped, evidence_in(evidence, table, self.direction.target), table)], 1)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        rows = slice(None) if positions is None else positions
        source, target = states.chunk(2, dim=1)
        answers = self.target.score(target, part(table, TARGET), positions).mean
        elsewhere = self.source.score(source, part(table, SOURCE), positions).mean
        return Scores(answers.where(table.domain[rows] == self.direction.target, elsewhere))

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        return named(self.source.embed_items(content, domain), SOURCE) | named(
            self.target.embed_items(content, domain), TARGET
        )

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        """What each factorisation learns; of an item only the columns of its own domain are ever read."""
        states = evidence.states.chunk(2, dim=1)
        learnt: Columns = {}
        for model, prefix, own in zip((self.source, self.target), (SOURCE, TARGET), states, strict=True):
            learnt |= named(model.learn_items(part(table, prefix), rows, replace(evidence, states=own)), prefix)
        return learnt

    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)  # initial weights are drawn from torch's own generator
            reset_parameters(self.user_map)
            self.user_map.reset_parameters()
        alone = replace(options, validation=None)  # it asks about the target; each domain is fitted for itself
        source = self.source.fit(only(data, self.direction.source), alone).table
        target = self.target.fit(only(data, self.direction.target), alone).table
        columns = named(source.columns, SOURCE) | named(target.columns, TARGET)
        table = ItemTable(columns, data.items.domain, item_counts(data) > 0).to(options.device)
        if self.config.map_items:
            table = self._with_twins(table, data)
        users = overlapping_users(data, self.direction)
        if not len(users):
            return Fitted(table, keep_best(self, lambda _: {}, lambda: table, 1, 1, options).report)
        self._fit_linear(data.evidence(users), table)
        if self.config.kind == "linear":
            return keep_best(self, lambda _: {}, lambda: table, 1, 1, options, "mapping")
        return self._fit_network(data, users, table, options)

    def _moved(self, prior: Tensor, evidence: Evidence, table: ItemTable) -> Tensor:
        """Ridge regression of target ratings around `prior` (B, P)."""
        x, y = self._design(evidence, table)
        penalty = torch.full((prior.shape[1],), self.config.reg, device=prior.device)
        penalty[0] = self.target.config.reg_user
        return prior + fold_in(x, y - (x @ prior[:, :, None]).squeeze(-1), evidence.weights, penalty)

    def _design(self, evidence: Evidence, table: ItemTable) -> tuple[Tensor, Tensor]:
        """(1, q_i) (B, L, P) of target items, and their ratings less their biases (B, L)."""
        y = residuals(evidence, part(table, TARGET), self.target.mean, self.target.unit)
        return with_constant(table[TARGET + "factors"][evidence.items]), y

    def _history(self, evidence: Evidence, table: ItemTable) -> tuple[Tensor, Tensor]:
        """(rating, q_i) (B, L, P) and weights (B, L) of source evidence, the newest of it."""
        if self.user_map.bridge is None:
            return evidence.weights.new_zeros(evidence.batch_size, 0, 1), evidence.weights[:, :0]
        age = torch.arange(evidence.items.shape[1], device=evidence.items.device).where(evidence.mask, -1)
        newest = age.topk(min(LONGEST, evidence.items.shape[1]), dim=1).indices
        kept = {n: v.gather(1, newest) for n, v in vars(evidence).items() if n != "attributes"}
        short = Evidence(**kept, attributes=evidence.attributes)
        y = residuals(short, part(table, SOURCE), self.source.mean, self.source.unit)
        return torch.cat([y[..., None], table[SOURCE + "factors"][short.items]], dim=2), short.weights

    def _in_target(self, evidence: Evidence, table: ItemTable) -> tuple[Tensor, Tensor]:
        """(B, P) bias and factors from target ratings alone, and how well they are known (B,), between 0 and 1."""
        known = evidence_in(evidence, table, self.direction.target)
        n = known.weights.sum(1)
        return self.target.adapt(known, part(table, TARGET), self.direction.target), n / (n + self.config.reg)

    def _fit_linear(self, evidence: Evidence, table: ItemTable) -> None:
        evidence = evidence.to(table.domain.device)
        source = self.source.adapt(
            evidence_in(evidence, table, self.direction.source), part(table, SOURCE), self.direction.source
        )
        target, trust = self._in_target(evidence, table)
        self.user_map.linear.copy_(ridge(with_constant(source), target, trust, self.config.reg_map))

    def _fit_network(self, data: Dataset, users: Tensor, table: ItemTable, options: FitOptions) -> Fitted:
        generator = torch.Generator().manual_seed(options.seed)
        optimizer = torch.optim.Adam(self.user_map.parameters(), lr=self.config.learning_rate)

        def epoch(_: int) -> dict[str, float]:
            total = 0.0
            batches = torch.split(users[torch.randperm(len(users), generator=generator)], self.config.batch_size)
            for batch in batches:
                loss = self._loss(data.evidence(batch).to(options.device), table)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                total += float(loss.detach())
            return {"loss": total / len(batches)}

        return keep_best(self, epoch, lambda: table, self.config.epochs, self.config.patience, options, "mapping")

    def _loss(self, evidence: Evidence, table: ItemTable) -> Tensor:
        there = evidence_in(evidence, table, self.direction.source)
        source = self.source.adapt(there, part(table, SOURCE), self.direction.source)
        mapped: Tensor = self.user_map(source, *self._history(there, table))
        if self.config.kind == "mlp":
            target, trust = self._in_target(evidence, table)
            return (trust[:, None] * (mapped - target).square()).sum() / trust.sum().clamp(min=1e-9)
        asked = evidence_in(evidence, table, self.direction.target)
        x, y = self._design(asked, table)
        error = (x @ mapped[:, :, None]).squeeze(-1) - y
        return (asked.weights * error.square()).sum() / asked.weights.sum().clamp(min=1e-9)

    def _with_twins(self, table: ItemTable, data: Dataset) -> ItemTable:
        """The table with target items drawn to what their twins in the source say, the more the less rated they are."""
        pairs, counts = overlapping_items(data, self.direction), item_counts(data)
        pairs = pairs[counts[pairs[:, 0]] > 0]
        both = pairs[counts[pairs[:, 1]] > 0]
        if not len(both):
            return table
        rows = {n: torch.cat([table[n + "bias"][:, None], table[n + "factors"]], dim=1) for n in (SOURCE, TARGET)}
        twins = with_constant(rows[SOURCE])
        trust = counts / (counts + self.config.reg_items)
        weight = (trust[both[:, 0]] * trust[both[:, 1]]).to(twins)
        self.item_map.copy_(ridge(twins[both[:, 0]], rows[TARGET][both[:, 1]], weight, self.config.reg_items))
        own = trust[pairs[:, 1], None].to(twins)
        drawn = own * rows[TARGET][pairs[:, 1]] + (1 - own) * (twins[pairs[:, 0]] @ self.item_map)
        return table.with_rows(
            pairs[:, 1],
            {
                name: (drawn[:, 0] if name == TARGET + "bias" else drawn[:, 1:])
                if name in {TARGET + "bias", TARGET + "factors"}
                else column[pairs[:, 1]]
                for name, column in table.columns.items()
            },
        )

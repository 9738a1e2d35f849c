"""Ordinal transfer: Bayesian transfer, answered in steps of a rating scale as people use them who are new here.

    P(r_ui <= k) = Φ(θ_k - β . x_ui)
    x_ui = (m_ui, t_i, e_i, e_i b_i, G_i, G_i b_i, A_i, g_u, g_u b_i, s_u b_i, log(1 + n_u), 1 / (1 + n'_u), h_u, c_u)

of the prediction m_ui, halfway between that of `bayes_transfer` and that of one `bayes` for both catalogues; the item's
share t_i of top ratings, popularity e_i (`exposures`), bias b_i, and how generous (G_i) and busy (A_i) its raters are;
the generosity g_u that the transfer expects of u; of u's history in the source how spread its ratings are (s_u), how
long it is (n_u), its share of middling ratings (h_u) and what was chosen (c_u, a mean of `co_rating_vectors`); and n'_u
ratings in the target. β and θ are learnt (`models.training.ordinal`) from people in both catalogues as if they were new
in the target: in folds, each answered by models that never saw what they did there.

It mends what a Gaussian model of ratings cannot tell. Ratings of people who rate much are lower than what people give
on average, and most ratings are theirs. The generous tell items apart less, at the top of the scale, and those who use
all of it in one catalogue do so in the other. What people choose says how they rate, and who has rated a thing says who
will be asked about it. What few have rated is less good or bad than it seems. And the answer that is nearest to a
rating is not the mean where ratings pile up at the top. Standard deviations and draws are those of the transfer, around
the new answer.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import (
    Columns,
    Evidence,
    FitOptions,
    Fitted,
    ItemContent,
    ItemEvidence,
    ItemTable,
    Scores,
    entries,
)
from models.recommenders.bayes import Bayes
from models.recommenders.bayes_transfer import BATCH, TARGET, BayesTransfer, BayesTransferConfig
from models.training.co_rating import co_rating_vectors
from models.training.domains import domain_of, evidence_in, only, overlapping_users, users_in, without
from models.training.habits import MIDDLING, SHRINKAGE, SPREAD, habits
from models.training.ordinal import STEPS, Ordinal
from models.training.transfer import named, part

JOINT = "joint."
"""What the columns of the joint model begin with in the item table."""
CHOICES = 8
"""Directions of what people choose in the source."""
FEATURES = 13 + CHOICES
RIDGE, RIDGE_OF_PEOPLE = 2000.0, 15000.0
"""Penalties of weights, in ratings. What a person chose or thinks middling is the same for all of their ratings: it is
learnt from people, of whom there are fewer."""
FOLDS = 5
KNOWN = (0, 1, 3)
"""Ratings in the target that people of a fold are known by, one after the other, when the rest is asked."""
LEAST_PEOPLE, MOST_PEOPLE = 50, 2500
"""In both catalogues. With fewer the answer is that of `bayes_transfer`; more are not asked."""
DISPERSION = 0.002
"""n ratings of one person count as n / (1 + DISPERSION n) of different people."""
TOP_SHRINKAGE = 10.0
"""Ratings' worth of belief that an item's share of ratings in the top step is usual."""
RATERS_SHRINKAGE = 4.0
"""Ratings' worth of belief that who rates an item is like anybody, and after which its bias says more than they do."""


class OrdinalTransferConfig(BayesTransferConfig):
    """Settings of `OrdinalTransfer`."""

    absolute: float = Field(0.25, ge=0, lt=1)
    """λ: part of absolute error, beside squared error, in what an answer costs. 0: answers are expected values."""


class OrdinalTransfer(BayesTransfer):
    """`BayesTransfer` and a cumulative probit on top. A state is its, that of joint `Bayes` and (n_u .. c_u)."""

    name: ClassVar[str] = "ordinal_transfer"
    Config = OrdinalTransferConfig
    config: OrdinalTransferConfig
    usual: Tensor

    def __init__(self, config: OrdinalTransferConfig, schema: Schema) -> None:
        super().__init__(config, schema)
        self.joint = Bayes(self.source.config, schema)
        self.ordinal = Ordinal(FEATURES)
        self.register_buffer("usual", torch.zeros(2))  # share of the top step, log(1 + ratings) of who rates

    @property
    def state_size(self) -> int:
        return super().state_size + self.joint.state_size + 4 + CHOICES

    def adapt(self, evidence: Evidence, table: ItemTable, target: int) -> Tensor:
        there, here = self._history(evidence, table), evidence_in(evidence, table, self.direction.target)
        source, n = self.direction.source, there.weights.sum(1, keepdim=True)
        deviation = (there.values - self.source.domain_mean[source]) / self.unit[source]
        nothing = torch.zeros_like(deviation)
        habit = habits(there, deviation, nothing, nothing)[:, [SPREAD, MIDDLING]]
        choices = (there.weights[:, None] @ table["choices"][there.items]).squeeze(1) / (n + SHRINKAGE)
        told = [super().adapt(evidence, table, target), self.joint.adapt(evidence, part(table, JOINT), target)]
        return torch.cat([*told, n, here.weights.sum(1, keepdim=True), habit, choices], dim=1)

    def score(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Scores:
        told = super().score(states, table, positions)
        return Scores(self._answers(told.mean, states, table, positions), told.std, told.taste_std)

    def means(self, states: Tensor, table: ItemTable, positions: Tensor | None = None) -> Tensor:
        return self._answers(super().means(states, table, positions), states, table, positions)

    def sample(
        self, states: Tensor, table: ItemTable, n: int, generator: torch.Generator, positions: Tensor | None = None
    ) -> Tensor:
        told = super().means(states, table, positions)
        moved = self._answers(told, states, table, positions) - told
        return super().sample(states, table, n, generator, positions) + moved

    def embed_items(self, content: ItemContent, domain: int) -> Columns:
        nobody = {
            "raters": self.usual.new_zeros(len(content), 4),
            "choices": self.usual.new_zeros(len(content), CHOICES),
        }
        return super().embed_items(content, domain) | named(self.joint.embed_items(content, domain), JOINT) | nobody

    def learn_items(self, table: ItemTable, rows: Tensor, evidence: ItemEvidence) -> Columns:
        joint, known = self._more(evidence.states)
        told = self._told_of_raters(evidence.values, self._generosity(evidence.states), known[:, 1])
        raters = table["raters"][rows].index_add(0, evidence.index, evidence.weights[:, None] * told)
        learnt = self.joint.learn_items(part(table, JOINT), rows, replace(evidence, states=joint))
        return {**super().learn_items(table, rows, evidence), **named(learnt, JOINT), "raters": raters}

    @torch.no_grad()
    def fit(self, data: Dataset, options: FitOptions) -> Fitted:
        choices = co_rating_vectors(only(data, self.direction.source), CHOICES)
        people = overlapping_users(data, self.direction)
        people = people[torch.randperm(len(people), generator=torch.Generator().manual_seed(options.seed))]
        history = self._fit_source(data, options)
        self.ordinal.fitted.fill_(False)
        if len(people) >= LEAST_PEOPLE:
            folds = [people[:MOST_PEOPLE][fold::FOLDS].sort().values for fold in range(FOLDS)]
            asked = [self._as_if_new(data, fold, history, choices, options) for fold in folds]
            features, steps, weights = (torch.cat(parts) for parts in zip(*asked, strict=True))
            ridge = torch.full((FEATURES,), RIDGE)
            ridge[0], ridge[-1 - CHOICES :] = 0, RIDGE_OF_PEOPLE
            if len(steps):
                self.ordinal.fit(features, steps, weights / len(KNOWN), ridge)
        return self._fit_both(data, history, choices, options)

    def _fit_both(
        self, data: Dataset, history: tuple[ItemTable, Tensor], choices: Tensor, options: FitOptions
    ) -> Fitted:
        """The transfer, and the joint model beside it, with what the ordinal model reads of items."""
        told = self._fit_target(data, *history, options)
        columns = {**told.table.columns, **named(self.joint.fit(data, options).table.columns, JOINT)}
        table = ItemTable(columns, told.table.domain, told.table.trained)
        return Fitted(self._described(table, data, choices), told.report)

    def _as_if_new(
        self, data: Dataset, people: Tensor, history: tuple[ItemTable, Tensor], choices: Tensor, options: FitOptions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What people of a fold are asked: features (M, F), steps (M,) and weights (M,) of their ratings."""
        target, seen = self.direction.target, data.interactions
        cold = without(data, people, target)
        table = self._fit_both(cold, history, choices, options).table
        theirs = (domain_of(data) == target) & torch.isin(seen.users, people)
        rank = _shuffled_rank(seen.users, theirs & (seen.kinds == 0), torch.Generator().manual_seed(options.seed))
        items = (data.items.domain == target).nonzero().flatten()
        column = torch.full((data.n_items,), -1)
        column[items] = torch.arange(len(items))
        features, rows = [torch.empty(0, FEATURES)], [torch.empty(0, dtype=torch.long)]
        for known in KNOWN:
            shown = data.where(~theirs | ((rank >= 0) & (rank < known)))
            for users in torch.split(people, BATCH):
                states = self.adapt(shown.evidence(users).to(options.device), table, target)
                told = super().means(states, table, items.to(options.device))
                found = self._features(told, states, table, items.to(options.device)).cpu()
                asked = ((rank >= known) & torch.isin(seen.users, users)).nonzero().flatten()
                features.append(found[torch.searchsorted(users, seen.users[asked]), column[seen.items[asked]]])
                rows.append(asked)
        asked = torch.cat(rows)
        counts = torch.bincount(seen.users[rank >= 0], minlength=data.n_users)
        weights = seen.weights[asked] / (1 + DISPERSION * counts[seen.users[asked]])
        return torch.cat(features), self._steps(seen.values[asked]), weights

    def _described(self, table: ItemTable, data: Dataset, choices: Tensor) -> ItemTable:
        """The table with what ratings of each item tell of its raters, in sum, and who chooses it."""
        device, target = table.domain.device, self.direction.target
        generosity = torch.zeros(data.n_users)
        for users in torch.split(users_in(data, target).nonzero().flatten(), BATCH):
            states = super().adapt(data.evidence(users).to(device), table, target)
            generosity[users] = self._generosity(states).cpu()
        seen = data.interactions.rows((domain_of(data) == target) & (data.interactions.kinds == 0))
        counts = torch.bincount(seen.users, minlength=data.n_users)
        told = self._told_of_raters(seen.values, generosity[seen.users], counts[seen.users])
        self.usual.copy_(told[:, [1, 3]].mean(0) if len(told) else torch.zeros(2))
        raters = torch.zeros(data.n_items, 4).index_add_(0, seen.items, told)
        columns = {**table.columns, "raters": raters.to(device), "choices": choices.to(device)}
        return ItemTable(columns, table.domain, table.trained)

    def _more(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """The state in the joint model, and (n_u, n'_u, s_u, h_u, c_u)."""
        joint, known = states[:, super().state_size :].tensor_split([self.joint.state_size], dim=1)
        return joint, known

    def _generosity(self, states: Tensor) -> Tensor:
        """g (B,), in ratings."""
        _, target = self._split(states)
        return self.target.loading[self.direction.target] * target[:, 0]

    def _told_of_raters(self, values: Tensor, generosity: Tensor, counts: Tensor) -> Tensor:
        """Of each rating (M, 4): 1, whether it is in the top step, g_v and log(1 + n'_v) of who gave it."""
        top = (self._steps(values) == STEPS - 1).float()
        return torch.stack([torch.ones_like(top), top, generosity, counts.log1p()], dim=1)

    def _steps(self, values: Tensor) -> Tensor:
        """Ratings of the target as steps from 0 to 4."""
        low = self.schema.domains[self.direction.target].rating_min
        unit = float(self.unit[self.direction.target])
        return ((values - low) / unit).round().clamp(0, STEPS - 1).long()

    def _answers(self, told: Tensor, states: Tensor, table: ItemTable, positions: Tensor | None) -> Tensor:
        """What to answer where the transfer expects `told` (B, N)."""
        if not bool(self.ordinal.fitted):
            return told
        features = self._features(told, states, table, positions)
        low = self.schema.domains[self.direction.target].rating_min
        answers = low + self.unit[self.direction.target] * (self.ordinal.answer(features, self.config.absolute) - 1)
        return answers.where(self._in_target(table, positions), told)

    def _features(self, told: Tensor, states: Tensor, table: ItemTable, positions: Tensor | None) -> Tensor:
        """x (B, N, F)."""
        joint, known = self._more(states)
        there, here, spread, middling, choices = known.tensor_split([1, 2, 3, 4], dim=1)
        expected = (told + self.joint.means(joint, part(table, JOINT), positions)) / 2
        generosity = self._generosity(states)[:, None]
        bias = entries(table[TARGET + "mean"][:, 0], positions)
        often, raters = entries(table["exposure"], positions), entries(table["raters"], positions)
        n, top, generous, busy = raters.unbind(1)
        usual_top, usually_busy = self.usual
        doubt = RATERS_SHRINKAGE / (n + RATERS_SHRINKAGE).square()
        columns = (
            *(expected, (top + TOP_SHRINKAGE * usual_top) / (n + TOP_SHRINKAGE), often, often * bias),
            *(doubt * generous, doubt * generous * bias, doubt * (busy - n * usually_busy)),
            *(generosity, generosity * bias, spread * bias, there.log1p(), 1 / (1 + here), middling),
        )
        of_both = torch.stack([column.expand_as(told) for column in columns], dim=-1)
        return torch.cat([of_both, choices[:, None].expand(-1, told.shape[1], -1)], dim=-1)


def _shuffled_rank(users: Tensor, counted: Tensor, generator: torch.Generator) -> Tensor:
    """(M,) the place of each counted row among those of its user, from 0 and in random order; -1 of the other rows."""
    rows = counted.nonzero().flatten()
    rows = rows[torch.randperm(len(rows), generator=generator)]
    rows = rows[users[rows].argsort(stable=True)]
    counts = torch.bincount(users[rows], minlength=int(users.max()) + 1 if len(users) else 0)
    rank = torch.full_like(users, -1)
    rank[rows] = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[users[rows]]
    return rank

"""The laws have teeth: a recommender broken in one way fails the law that forbids it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from models.recommender import Recommender
from models.recommenders.bias import Bias
from tests.laws import laws
from tests.laws.entries import Entry
from tests.laws.world import make_world


class ReadsPadding(Bias):
    def adapt(self, evidence, table, target):
        return super().adapt(replace(evidence, weights=torch.ones_like(evidence.weights)), table, target)


class ComparesWithTheBatch(Bias):
    def adapt(self, evidence, table, target):
        states = super().adapt(evidence, table, target)
        return torch.cat([states[:, :1] - states[:, :1].mean(), states[:, 1:]], dim=1)


class LearnsWhileServing(Bias):
    def adapt(self, evidence, table, target):
        self.mean += 1e-3
        return super().adapt(evidence, table, target)


class FitsAtRandom(Bias):
    def fit(self, data, options):
        fitted = super().fit(data, options)
        self.mean += torch.rand(len(self.mean))
        return fitted


class ForgetsPositions(Bias):
    def score(self, states, table, positions=None):
        kept = None if positions is None else torch.arange(len(positions))
        return super().score(states, table, kept)


class RanksByOtherMeans(Bias):
    def means(self, states, table, positions=None):
        return super().means(states, table, positions).round()


class KeepsWeightsOutOfTheCheckpoint(Bias):
    def __init__(self, config, schema):
        super().__init__(config, schema)
        self.offset = 0.0

    def fit(self, data, options):
        self.offset = 0.5
        return super().fit(data, options)

    def score(self, states, table, positions=None):
        scores = super().score(states, table, positions)
        return replace(scores, mean=scores.mean + self.offset)


class RowsForDomainsInTurn(Bias):
    def fit(self, data, options):
        fitted = super().fit(data, options)
        order = torch.argsort(fitted.table.domain, stable=True)
        return replace(fitted, table=replace(fitted.table, domain=fitted.table.domain[order]))


class Overconfident(Bias):
    def score(self, states, table, positions=None):
        scores = super().score(states, table, positions)
        return replace(scores, std=scores.taste_std / 2)


class DrawsElsewhere(Bias):
    def sample(self, states, table, n, generator, positions=None):
        return super().sample(states, table, n, generator, positions) + 0.5


class MistakesGenerosity(Bias):
    def adapt(self, evidence, table, target):
        return super().adapt(evidence, table, target) * torch.tensor([-1.0, 1.0])


class RejectsNewItems(Bias):
    def embed_items(self, content, domain):
        return {
            name: torch.full_like(column, torch.nan) for name, column in super().embed_items(content, domain).items()
        }


class LearnsTheWrongWay(Bias):
    def learn_items(self, table, rows, evidence):
        learnt = super().learn_items(table, rows, evidence)
        return {**learnt, "bias": 2 * table["bias"][rows] - learnt["bias"]}


class LearnsFromTheLastRating(Bias):
    def learn_items(self, table, rows, evidence):
        last = {index: place for place, index in enumerate(evidence.index.tolist())}
        kept = torch.tensor([*last.values()], dtype=torch.long)
        some = {name: tensor[kept] for name, tensor in vars(evidence).items()}
        return super().learn_items(table, rows, replace(evidence, **some))


class ReadsTheWholeTable(Bias):
    def adapt(self, evidence, table, target):
        return super().adapt(evidence, table, target) + table["bias"].mean()


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (ReadsPadding, laws.padding_changes_nothing),
        (ComparesWithTheBatch, laws.batched_equals_single),
        (LearnsWhileServing, laws.serving_changes_nothing),
        (FitsAtRandom, laws.same_seed_same_fit),
        (ForgetsPositions, laws.positions_are_columns),
        (RanksByOtherMeans, laws.means_are_those_of_the_scores),
        (RowsForDomainsInTurn, laws.every_item_has_a_row),
        (Overconfident, laws.uncertainty_is_sane),
        (DrawsElsewhere, laws.samples_follow_the_scores),
        (MistakesGenerosity, laws.more_evidence_helps),
        (RejectsNewItems, laws.new_items_are_scored),
        (LearnsTheWrongWay, laws.ratings_of_an_item_improve_it),
        (LearnsFromTheLastRating, laws.ratings_of_an_item_improve_it),
        (ReadsTheWholeTable, laws.states_depend_on_what_was_rated),
        (KeepsWeightsOutOfTheCheckpoint, laws.checkpoint_keeps_scores),
    ],
    ids=lambda value: value.__name__,
)
def test_a_broken_recommender_fails(broken: type[Recommender], law: Callable[[laws.Case], None]) -> None:
    case = laws.fit_case(Entry(), broken, make_world(2))
    with pytest.raises(AssertionError):
        law(case)


def test_an_entry_that_claims_attributes_falsely_fails():
    case = laws.fit_case(Entry(uses_attributes=True), Bias, make_world(1))
    with pytest.raises(AssertionError):
        laws.empty_evidence_is_answered(case)

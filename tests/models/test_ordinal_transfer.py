"""Ordinal transfer: the answer that costs least against a search for it, what regression finds in ratings that it made,
and what is left of it where too few people are in both catalogues."""

import pytest
import torch
from torch import Tensor

from models.recommender import FitOptions, ItemEvidence
from models.recommenders.bayes_transfer import BayesTransfer
from models.recommenders.ordinal_transfer import LEAST_PEOPLE, OrdinalTransfer, OrdinalTransferConfig, _shuffled_rank
from models.training.domains import Direction, domain_of, evidence_in, hide_identities, overlapping_users, without
from models.training.ordinal import STEPS, Ordinal
from tests.laws.world import World, make_world

FORTH = Direction(0, 1)
SETTINGS = OrdinalTransferConfig(n_factors=0, iterations=15)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(2)


def model(cuts: list[float], weights: list[float]) -> Ordinal:
    made = Ordinal(len(weights))
    made.cuts.copy_(torch.tensor(cuts))
    made.weights.copy_(torch.tensor(weights))
    return made


@pytest.mark.parametrize("absolute", [0.0, 0.25, 0.6, 0.95])
def test_the_answer_costs_less_than_any_other(absolute: float) -> None:
    ordinal = model([-1.5, -0.8, 0.1, 0.9], [1.0])
    features = torch.linspace(-4, 4, 41)[:, None]
    below = torch.nn.functional.pad(ordinal.at_most(features), (1, 0))
    chances = torch.cat([below, torch.ones(len(below), 1)], 1).diff(dim=1)  # (41, 5)
    steps = torch.arange(1.0, STEPS + 1)

    def cost(answer: Tensor) -> Tensor:
        off = answer[:, None] - steps
        return (chances * ((1 - absolute) * off.square() + absolute * off.abs())).sum(1)

    found = ordinal.answer(features, absolute)
    assert ((found >= 1) & (found <= STEPS)).all()
    for other in torch.linspace(1, 5, 201):
        assert (cost(found) <= cost(other.expand(len(features))) + 1e-6).all()


def test_the_answer_is_the_mean_where_absolute_error_costs_nothing() -> None:
    ordinal = model([0.0, 0.0, 0.0, 0.0], [1.0])  # 1 or 5, each with a chance of a half
    assert ordinal.answer(torch.zeros(1, 1), 0.0).item() == pytest.approx(3.0)


def test_regression_finds_the_cuts_and_weights_that_made_the_ratings() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 3, generator=generator)
    cuts = torch.tensor([-1.5, -0.8, 0.1, 0.9])
    liking = x @ torch.tensor([1.0, -0.5, 0.0]) + torch.randn(20_000, generator=generator)
    ordinal = Ordinal(3)
    ordinal.fit(x, (liking[:, None] > cuts).sum(1), torch.ones(20_000), torch.tensor([0.0, 1.0, 1.0]))
    beta = ordinal.weights / ordinal.scale
    assert beta.tolist() == pytest.approx([1.0, -0.5, 0.0], abs=0.04)
    assert (ordinal.cuts + ordinal.centre @ beta).tolist() == pytest.approx(cuts.tolist(), abs=0.05)


def test_regression_is_finite_where_everybody_says_the_same() -> None:
    ordinal = Ordinal(1)
    ordinal.fit(torch.zeros(30, 1), torch.full((30,), 4), torch.ones(30), torch.zeros(1))
    assert ordinal.answer(torch.zeros(1, 1), 0.25).item() == pytest.approx(5.0, abs=0.2)


def test_ranks_are_of_counted_rows_of_each_user() -> None:
    users, counted = torch.tensor([0, 0, 0, 2, 2]), torch.tensor([True, False, True, True, True])
    rank = _shuffled_rank(users, counted, torch.Generator().manual_seed(0))
    assert rank[1] == -1
    assert sorted(rank[:3].tolist()) == [-1, 0, 1]
    assert sorted(rank[3:].tolist()) == [0, 1]


def test_with_few_people_in_both_it_answers_as_the_transfer(world: World) -> None:
    both = overlapping_users(world.training, FORTH)
    few = hide_identities(world.training, both[LEAST_PEOPLE - 1 :], FORTH.target)
    ordinal = OrdinalTransfer(SETTINGS, world.data.schema)
    table = ordinal.fit(few, FitOptions()).table
    plain = BayesTransfer(BayesTransfer.Config(n_factors=0, iterations=15), world.data.schema)
    expected = plain.fit(few, FitOptions()).table
    known = world.evidence(world.held, 5)
    assert not ordinal.ordinal.fitted
    assert torch.allclose(
        ordinal.means(ordinal.adapt(known, table, 1), table), plain.means(plain.adapt(known, expected, 1), expected)
    )


def test_ratings_of_people_new_to_books_are_answered_closer_than_by_the_transfer(world: World) -> None:
    """In absolute error, over all that they rated."""
    users = overlapping_users(world.data, FORTH)[:60]
    training = without(world.data, users, FORTH.target)
    asked = world.data.where(torch.isin(world.data.interactions.users, users) & (world.data.interactions.kinds == 0))
    here = world.data.items.domain[asked.interactions.items] == FORTH.target

    def error(recommender: BayesTransfer) -> float:
        table = recommender.fit(training, FitOptions()).table
        mean = recommender.means(recommender.adapt(training.evidence(users), table, 1), table)
        at = torch.searchsorted(users, asked.interactions.users[here])
        return float((mean[at, asked.interactions.items[here]] - asked.interactions.values[here]).abs().mean())

    plain = BayesTransfer(BayesTransfer.Config(n_factors=0, iterations=15), world.data.schema)
    assert error(OrdinalTransfer(SETTINGS, world.data.schema)) < error(plain)


def test_what_raters_tell_is_counted_in_the_fit_and_goes_on_being_while_serving(world: World) -> None:
    recommender = OrdinalTransfer(SETTINGS, world.data.schema)
    table = recommender.fit(world.training, FitOptions()).table
    seen = world.training.interactions
    here = (domain_of(world.training) == FORTH.target) & (seen.kinds == 0)
    item = int(seen.items[here].mode().values)
    n, top, generosity, busy = table["raters"][item].tolist()
    rated = here & (seen.items == item)
    top_step = seen.values >= 9  # of five on a scale from 0 to 10
    assert n == int(rated.sum())
    assert top == int((rated & top_step).sum())

    known, counted = world.evidence(world.held[:2], 3), torch.tensor([1.0, 0.5])
    states = recommender.adapt(known, table, FORTH.target)
    given = ItemEvidence(torch.tensor([0, 0]), states, torch.tensor([10.0, 6.0]), counted)
    after = recommender.learn_items(table, torch.tensor([item]), given)["raters"][0]
    of_each, log_counts = recommender._generosity(states), evidence_in(known, table, 1).weights.sum(1).log1p()
    expected = [n + 1.5, top + 1, generosity + float(counted @ of_each), busy + float(counted @ log_counts)]
    assert after.tolist() == pytest.approx(expected, rel=1e-5)

"""Bayesian transfer: what a history in one domain says of the prior in another, by hand and on a world with truth."""

from dataclasses import replace

import pytest
import torch

from models.recommender import FitOptions
from models.recommenders.bayes import Bayes
from models.recommenders.bayes_transfer import BayesTransfer, BayesTransferConfig
from models.training.domains import Direction, evidence_in, hide_identities, only, overlapping_users, without
from models.training.habits import HABITS, SHRINKAGE, exposures, habits
from tests.laws.world import World, make_world
from tests.models.tiny import evidence, tiny

FORTH = Direction(0, 1)
SETTINGS = BayesTransferConfig(n_factors=2, iterations=15)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(2)


def test_habits_by_hand() -> None:
    """Two films, rated 2 above and 2 below the mean; the items' biases are 1 and 0, their exposures 0.5 and -1.5."""
    shown = evidence((0, 5.0), (1, 1.0))
    found = habits(shown, torch.tensor([[2.0, -2.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, -1.5]]))[0]
    n = 2 + SHRINKAGE
    expected = [0, -1 / n, (2 * 4 - 2) / n, 1 / n, 0, 1 / n, 1 / n, -1 / n, torch.tensor(3.0).log().item()]
    assert found.tolist() == pytest.approx(expected)
    assert len(found) == HABITS


def test_nobody_has_habits_without_a_history() -> None:
    empty = evidence()
    none = torch.zeros(1, 0)
    assert habits(empty, none, none, none).tolist() == [[0.0] * HABITS]


def test_what_a_rating_is_typically_of_has_exposure_nothing() -> None:
    """Item 0 has three ratings and item 1 has one: a rating is of log 4 three times in four."""
    data = tiny([(0, 0, 3), (1, 0, 3), (2, 0, 3), (0, 1, 3)], domain=[0, 0])
    centre = 0.75 * torch.tensor(4.0).log() + 0.25 * torch.tensor(2.0).log()
    assert exposures(data).tolist() == pytest.approx(
        [(torch.tensor(4.0).log() - centre).item(), (torch.tensor(2.0).log() - centre).item()]
    )


def errors(
    world: World, recommender: BayesTransfer | Bayes, training: object, users: torch.Tensor, known: object
) -> float:
    table = recommender.fit(training, FitOptions()).table  # type: ignore[arg-type]
    recommender.eval().requires_grad_(False)
    mean = recommender.score(recommender.adapt(known, table, 1), table).mean  # type: ignore[arg-type]
    books = world.data.items.domain == 1
    return float((mean - world.truth[users])[:, books].square().mean().sqrt())


def test_a_history_of_films_tells_what_somebody_thinks_of_books(world: World) -> None:
    """Against the factor model of books alone, which knows the attributes of the people in question."""
    users = overlapping_users(world.data, FORTH)[:60]
    training = without(world.data, users, FORTH.target)
    carried = errors(world, BayesTransfer(SETTINGS, world.data.schema), training, users, training.evidence(users))
    books = only(training, 1)
    alone = errors(
        world, Bayes(Bayes.Config(n_factors=2, iterations=15), world.data.schema), books, users, books.evidence(users)
    )
    assert carried < 0.9 * alone


def test_without_a_history_the_prior_is_that_of_a_stranger_and_nothing_is_learnt_where_nobody_is_in_both(
    world: World,
) -> None:
    apart = hide_identities(world.training, overlapping_users(world.training, FORTH), FORTH.target)
    carried = BayesTransfer(SETTINGS, world.data.schema)
    table = carried.fit(apart, FitOptions()).table
    assert (carried.centre == 0).all()
    known = world.evidence(world.held, 5)
    with_films = carried.score(carried.adapt(known, table, 1), table).mean
    books = evidence_in(known, table, 1)
    alone = carried.score(carried.adapt(books, table, 1), table).mean
    there = table.domain == 1
    assert with_films[:, there].isfinite().all()
    strangers = replace(books, attributes=torch.zeros_like(books.attributes))
    assert alone[:, there].isfinite().all()
    assert carried.adapt(strangers, table, 1).isfinite().all()


def test_a_history_narrows_what_is_not_known_and_target_ratings_narrow_it_further(world: World) -> None:
    recommender = BayesTransfer(SETTINGS, world.data.schema)
    table = recommender.fit(world.training, FitOptions()).table
    few, many = (
        recommender.score(recommender.adapt(world.evidence(world.held, n), table, 1), table).taste_std for n in (1, 12)
    )
    assert few is not None
    assert many is not None
    books = table.domain == 1
    assert many[:, books].mean() < few[:, books].mean()


def test_items_of_the_source_are_answered_by_the_source(world: World) -> None:
    recommender = BayesTransfer(SETTINGS, world.data.schema)
    table = recommender.fit(world.training, FitOptions()).table
    source = Bayes(Bayes.Config(n_factors=2, iterations=15), world.data.schema)
    own = source.fit(only(world.training, 0), FitOptions()).table
    known = world.evidence(world.held, 4)
    films = (table.domain == 0).nonzero().flatten()
    expected = source.score(source.adapt(evidence_in(known, own, 0), own, 0), own, films).mean
    torch.testing.assert_close(recommender.score(recommender.adapt(known, table, 1), table, films).mean, expected)

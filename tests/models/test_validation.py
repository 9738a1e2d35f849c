"""Few-shot tasks: who is in them, what is hidden, what is measured."""

from itertools import pairwise

import torch

from models.recommender import FitOptions
from models.recommenders.popularity import Popularity, PopularityConfig
from models.training.validation import QUERY_SIZE, Validation
from tests.laws.world import make_world
from tests.models.tiny import tiny


def test_support_and_query_share_nothing_and_support_grows_by_nesting():
    world = make_world(1)
    tasks = Validation.draw(world.data, world.held, seed=0, sizes=(0, 3, 8)).tasks
    assert [task.support_size for task in tasks] == [0, 3, 8]
    for task in tasks:
        assert int(task.support.mask.sum(1).max()) <= task.support_size
        for user in range(len(task.query_items)):
            query = set(task.query_items[user][task.query_mask[user]].tolist())
            assert not query & set(task.support.items[user][task.support.mask[user]].tolist())
            assert 0 < len(query) <= QUERY_SIZE
    for small, large in pairwise(tasks):
        assert torch.equal(small.query_items, large.query_items)
        for user in range(len(small.query_items)):
            few = set(small.support.items[user][small.support.mask[user]].tolist())
            assert few <= set(large.support.items[user][large.support.mask[user]].tolist())


def test_a_task_asks_about_ratings_of_one_domain_only():
    world = make_world(2)
    for task in Validation.draw(world.data, world.held, seed=0).tasks:
        assert (world.data.items.domain[task.query_items][task.query_mask] == task.domain).all()
        assert (world.data.items.domain[task.support.items][task.support.mask] == task.domain).all()
        assert (task.support.kinds[task.support.mask] == 0).all()


def test_the_same_seed_draws_the_same_tasks():
    world = make_world(1)
    first, again, other = (Validation.draw(world.data, world.held, seed).tasks[0].query_items for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_errors_by_hand_with_predictions_clipped_to_the_scale():
    """Everything is predicted at the mean, 3; the held-out user gave 5 and 4, one of them asked."""
    data = tiny([(0, 0, 2), (0, 1, 4), (1, 0, 5), (1, 1, 5)], domain=[0, 0])
    popularity = Popularity(PopularityConfig(reg=1e9), data.schema)
    training = data.where(data.interactions.users == 0)
    table = popularity.fit(training, FitOptions()).table
    validation = Validation.draw(data, torch.tensor([1]), seed=0, sizes=(0, 1))
    assert validation.measure(popularity, table) == {"rmse": 2, "mae": 2, "rmse@0": 2, "rmse@1": 2}
    popularity.domain_mean.fill_(9)  # above the scale: answered as 5
    assert validation.measure(popularity, table)["rmse"] == 0


def test_users_with_a_single_rating_have_no_task():
    data = tiny([(0, 0, 2), (1, 0, 5), (1, 1, 5)], domain=[0, 0])
    assert Validation.draw(data, torch.tensor([0]), seed=0).tasks == []
    popularity = Popularity(PopularityConfig(), data.schema)
    fitted = popularity.fit(data, FitOptions())
    assert Validation([]).measure(popularity, fitted.table) == {}

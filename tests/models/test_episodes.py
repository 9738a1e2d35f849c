"""Episodes are drawn as the docstrings say."""

import pytest
import torch

from models.training.episodes import Episode, Episodes
from tests.laws.world import World, make_world


@pytest.fixture(name="world", scope="module")
def _world() -> World:
    return make_world(1)


def _episodes(world: World, seed: int = 0, **settings) -> Episodes:
    defaults = {"max_support": 20, "query_size": 10, "batch_size": 16}
    return Episodes(world.training, **(defaults | settings), generator=torch.Generator().manual_seed(seed))


def _pairs(episode: Episode) -> tuple[set[tuple[int, int, int]], set[tuple[int, int, int]]]:
    """(task, user, item) of the support's and of the query's interactions."""
    found = []
    for events in (episode.support, episode.query):
        tasks = episode.tasks[:, None].expand_as(events.users)[events.weights > 0]
        users, items = events.users[events.weights > 0], events.items[events.weights > 0]
        found.append(set(zip(tasks.tolist(), users.tolist(), items.tolist(), strict=True)))
    return found[0], found[1]


@pytest.mark.parametrize("by", ["user", "item"])
def test_support_and_query_are_different_interactions_of_the_task(world, by):
    known = set(
        zip(world.training.interactions.users.tolist(), world.training.interactions.items.tolist(), strict=True)
    )
    for episode in _episodes(world, by=by).epoch():
        support, query = _pairs(episode)
        assert not support & query
        assert {(u, i) for _, u, i in support | query} <= known
        assert all(task == (user if by == "user" else item) for task, user, item in support | query)
        assert {task for task, _, _ in query} == set(episode.tasks.tolist())


def test_an_epoch_meets_every_task_once(world):
    counts = world.training.offsets.diff()
    tasks = torch.cat([episode.tasks for episode in _episodes(world).epoch()])
    assert torch.equal(tasks.sort().values, torch.nonzero(counts >= 2).flatten())


def test_support_sizes_are_log_uniform(world):
    """Of 0 to 15 as many have none as have 1 or 2, 3 to 6, or 7 and more: ranges of one power of two each."""
    episodes = _episodes(world, max_support=15, batch_size=1000)
    sizes = torch.cat([(e.support.weights > 0).sum(dim=1) for _ in range(30) for e in episodes.epoch()])
    groups = torch.histogram(sizes.float(), torch.tensor([-0.5, 0.5, 2.5, 6.5, 15.5])).hist / len(sizes)
    torch.testing.assert_close(groups, torch.full((4,), 0.25), atol=0.03, rtol=0)


def test_the_seed_decides(world):
    first, again, other = (next(iter(_episodes(world, seed=seed).epoch())) for seed in (0, 0, 1))
    assert torch.equal(first.support.items, again.support.items)
    assert torch.equal(first.tasks, again.tasks)
    assert not torch.equal(first.tasks, other.tasks)

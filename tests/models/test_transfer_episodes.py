"""Episodes across domains: what they may know and what they must ask."""

import torch

from models.training.domains import domain_of
from models.training.transfer_episodes import TransferEpisodes
from tests.laws.world import make_world

WORLD = make_world(2)


def episodes(**settings: int) -> TransferEpisodes:
    chosen = {"max_support": 64, "query_size": 100, "batch_size": 40} | settings
    return TransferEpisodes(WORLD.data, 1, generator=torch.Generator().manual_seed(0), **chosen)


def test_each_user_comes_once_an_epoch_and_is_asked_about_something_that_is_not_known() -> None:
    seen = []
    for episode in episodes().epoch():
        seen += episode.tasks.tolist()
        known, asked = episode.support, episode.query
        assert (asked.weights > 0).any(1).all()
        for user, items, queries in zip(
            episode.tasks, known.items * (known.weights > 0), asked.items * (asked.weights > 0), strict=True
        ):
            assert not set(items[items > 0].tolist()) & set(queries[queries > 0].tolist())
            history = WORLD.data.evidence(user[None]).items[0].tolist()
            assert set(items.tolist()) | set(queries.tolist()) <= {*history, 0}
    assert sorted(seen) == list(range(WORLD.data.n_users))


def test_without_limits_everything_that_is_not_known_is_asked() -> None:
    for episode in episodes().epoch():
        n = (episode.support.weights > 0).sum(1) + (episode.query.weights > 0).sum(1)
        counts = torch.bincount(WORLD.data.interactions.users)
        assert torch.equal(n, counts[episode.tasks])


def test_being_cold_in_the_target_with_a_history_in_the_source_is_practised_and_so_is_the_reverse() -> None:
    domain = WORLD.data.items.domain
    ways = set()
    for episode in episodes().epoch():
        for items, weights in zip(episode.support.items, episode.support.weights, strict=True):
            ways.add(tuple(bool((domain[items[weights > 0]] == d).any()) for d in (0, 1)))
    assert ways == {(False, False), (False, True), (True, False), (True, True)}


def test_support_and_query_of_each_domain_keep_to_their_limits_and_support_is_oldest_first() -> None:
    domain = WORLD.data.items.domain
    for episode in episodes(max_support=3, query_size=2).epoch():
        for part, limit in ((episode.support, 3), (episode.query, 2)):
            for d in (0, 1):
                assert int(((domain[part.items] == d) & (part.weights > 0)).sum(1).max()) <= limit
        times = episode.support.times.nan_to_num(nan=0)
        later = (times[:, 1:] >= times[:, :-1]) | (episode.support.weights[:, 1:] == 0)
        assert later.all()


def test_people_of_one_domain_practise_there() -> None:
    books = WORLD.data.where(domain_of(WORLD.data) == 1)
    generator = torch.Generator().manual_seed(0)
    course = TransferEpisodes(books, 1, max_support=8, query_size=8, batch_size=50, generator=generator)
    for episode in course.epoch():
        assert (episode.query.weights > 0).any(1).all()
        assert (books.items.domain[episode.query.items[episode.query.weights > 0]] == 1).all()

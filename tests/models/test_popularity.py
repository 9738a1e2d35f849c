"""Hand-computed shrunken item means."""

import torch

from models.recommender import FitOptions
from models.recommenders.popularity import Popularity, PopularityConfig
from tests.models.tiny import evidence, tiny


def test_scores_are_shrunken_means_on_each_domains_scale():
    data = tiny([(0, 0, 5), (1, 0, 3), (0, 1, 1), (0, 2, 6), (1, 2, 8)], domain=[0, 0, 1, 1])
    recommender = Popularity(PopularityConfig(reg=2), data.schema)
    table = recommender.fit(data, FitOptions()).table
    states = recommender.adapt(evidence(), table, 0)
    expected = [3 + (2 + 0) / 4, 3 - 2 / 3, 7 + (-1 + 1) / 4, 7.0]
    torch.testing.assert_close(recommender.score(states, table).mean, torch.tensor([expected]))
    assert table.trained.tolist() == [True, True, True, False]


def test_the_standard_deviation_is_that_of_ratings_around_the_item_means():
    data = tiny([(0, 0, 5), (1, 0, 3)], domain=[0])
    recommender = Popularity(PopularityConfig(reg=0), data.schema)
    table = recommender.fit(data, FitOptions()).table
    std = recommender.score(recommender.adapt(evidence(), table, 0), table).std
    assert std is not None
    torch.testing.assert_close(std, torch.tensor([[1.0]]))

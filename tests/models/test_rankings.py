"""Validation of lists: what is shown, what is kept back, and the figures by hand."""

from math import log2

import pytest
import torch

from models.recommender import FitOptions
from models.recommenders.ease import Ease, EaseConfig
from models.training.rankings import Rankings, measure_rankings
from models.training.validation import Validation, loss
from tests.laws.world import make_world
from tests.models.tiny import tiny


def test_what_is_kept_back_is_a_fifth_of_the_likes_and_is_not_shown():
    world = make_world(2)
    low, high = world.data.schema.scales()
    for domain, ranking in enumerate(Rankings.draw(world.data, world.held, seed=0)):
        assert ranking.domain == domain
        likes = (ranking.support.values > low[domain] + 0.625 * (high - low)[domain]) & ranking.support.mask
        likes &= (world.data.items.domain[ranking.support.items] == domain) & (ranking.support.kinds == 0)
        for user in range(len(ranking.wanted)):
            wanted = ranking.wanted[user][ranking.mask[user]]
            assert not torch.isin(ranking.support.items[user][ranking.support.mask[user]], wanted).any()
            n = len(wanted) + int(likes[user].sum())
            assert len(wanted) == n - int(0.8 * n)


def test_figures_by_hand():
    """One like of three is kept back; of the two films not shown it comes second."""
    others = [(u, i, 5) for u in range(5) for i in (0, 1, 2)]
    data = tiny([*others, (5, 3, 5), (6, 0, 5), (6, 1, 5), (6, 3, 5)], domain=[0, 0, 0, 0])
    training = data.where(data.interactions.users != 6)
    ease = Ease(EaseConfig(reg=1.0, place_size=1), data.schema)
    table = ease.fit(training, FitOptions()).table
    shown = data.evidence_of([torch.tensor([16, 17])], torch.zeros(1, 0))
    ranking = Rankings(0, shown, torch.tensor([[3, 0]]), torch.tensor([[True, False]]))
    assert data.interactions.items[torch.tensor([16, 17])].tolist() == [0, 1]
    figures = measure_rankings([ranking], ease, table)
    assert figures == {"ndcg@100": pytest.approx(1 / log2(3)), "recall@20": 1.0, "recall@50": 1.0}


def test_a_recommender_of_preferences_is_measured_by_its_lists_and_selected_by_them():
    world = make_world(1)
    ease = Ease(EaseConfig(reg=100.0, content_weight=0), world.data.schema)
    table = ease.fit(world.training, FitOptions()).table
    metrics = Validation.draw(world.data, world.held, seed=0).measure(ease, table)
    assert metrics.keys() == {"ndcg@100", "recall@20", "recall@50"}
    assert loss(metrics) == 1 - metrics["ndcg@100"]
    assert loss({"rmse": 0.9, "mae": 0.7}) == 0.9
    assert loss({}) is None

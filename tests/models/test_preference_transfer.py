"""Preference transfer: the regression in both its forms, whom it counts how, and lists for people who are cold."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from models.evaluation.crossdomain import Crossing, cross
from models.evaluation.measure import measure
from models.evaluation.predictors import MostPopular, TrainedPredictor
from models.recommender import FitOptions
from models.recommenders.preference_transfer import PreferenceTransfer, reduced_rank
from models.training.domains import Direction
from models.training.train import train
from tests.laws.world import make_world
from tests.models.tiny import evidence, tiny

FORTH = Direction(0, 1)
SETTINGS = {"liked_above": 0.5, "popularity_prior": 10.0}


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)], ids=["more people than items", "more items than people"])
def test_at_full_rank_it_is_ridge_regression(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.random(shape), torch.from_numpy(generator.random((shape[0], 5)))
    p, q = reduced_rank(sparse.csr_matrix(x), y, reg=2.0, rank=7)
    ridge = np.linalg.solve(x.T @ x + 2 * np.eye(shape[1]), x.T @ y.numpy())
    assert p.shape == (shape[1], 7)
    np.testing.assert_allclose((p @ q.T).numpy(), ridge, atol=1e-8)


def test_at_a_lower_rank_its_answers_are_the_best_of_that_rank() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.random((40, 10)), torch.from_numpy(generator.random((40, 6)))
    p, q = reduced_rank(sparse.csr_matrix(x), y, reg=1.0, rank=2)
    answers = x @ np.linalg.solve(x.T @ x + np.eye(10), x.T @ y.numpy())
    u, s, v = np.linalg.svd(answers, full_matrices=False)
    np.testing.assert_allclose(x @ (p @ q.T).numpy(), u[:, :2] * s[:2] @ v[:2], atol=1e-6)


def test_what_goes_together_in_two_catalogues_is_carried_over() -> None:
    """Who has met film 0 likes book 2, who has met film 1 likes book 3; a newcomer has met film 0."""
    rows = [(u, u % 2, 5.0) for u in range(40)] + [(u, 2 + u % 2, 8.0) for u in range(40)]
    data = tiny(rows, domain=[0, 0, 1, 1])
    recommender = PreferenceTransfer(PreferenceTransfer.Config(rank=2, reg=1.0), data.schema)
    table = recommender.fit(data, FitOptions()).table
    one, other = (
        recommender.score(recommender.adapt(evidence((film, 5.0)), table, 1), table, torch.tensor([2, 3])).mean[0]
        for film in (0, 1)
    )
    assert one[0] > one[1]
    assert other[1] > other[0]


def test_somebody_cold_in_the_target_gets_better_lists_than_what_is_popular() -> None:
    world = make_world(2).data
    exam = cross(world, Crossing(FORTH, 0.5), seed=0)
    trained = train("preference_transfer", SETTINGS, exam.training, FitOptions(), held=torch.empty(0, dtype=torch.long))
    answers = TrainedPredictor(trained.recommender, trained.fitted.table)
    popular = MostPopular(exam.training)
    for group in exam.groups:
        ours, theirs = (measure(predictor, exam, group)["list ndcg@10"].value for predictor in (answers, popular))
        assert ours > theirs


def test_where_nobody_likes_anything_there_is_nothing_to_learn_from() -> None:
    data = tiny([(0, 0, 5.0), (0, 1, 0.0)], domain=[0, 1])
    with pytest.raises(ValueError, match="nobody likes"):
        PreferenceTransfer(PreferenceTransfer.Config(), data.schema).fit(data, FitOptions())


def test_several_actions_on_one_item_count_as_one() -> None:
    data = tiny([(u, i, 8.0 if i == 2 else 5.0) for u in range(8) for i in (u % 2, 2)], domain=[0, 0, 1])
    recommender = PreferenceTransfer(PreferenceTransfer.Config(rank=2), data.schema)
    table = recommender.fit(data, FitOptions()).table
    twice = evidence((0, 5.0), (0, 5.0))
    halves = replace(twice, weights=twice.weights / 2)
    assert torch.allclose(recommender.adapt(twice, table, 1), recommender.adapt(halves, table, 1))

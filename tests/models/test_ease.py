"""EASE: ridge regressions in one inversion, and what counts as a like."""

import pytest
import torch

from models.recommender import FitOptions, Fitted
from models.recommenders.ease import Ease, EaseConfig
from tests.laws.world import make_world
from tests.models.tiny import evidence, tiny

PAPER = {"user_discount": 0.0, "content_weight": 0.0, "reg_popularity": 0.0, "reg_constant": 1e12, "place_size": 2}
LIKES = [(0, 0, 5), (0, 1, 4), (1, 0, 4), (1, 1, 5), (2, 0, 5), (2, 2, 2), (3, 1, 4)]


def fitted(**settings: float) -> tuple[Ease, Fitted]:
    data = tiny(LIKES, domain=[0, 0, 0, 0], features=torch.eye(4)[:, :2])
    ease = Ease(EaseConfig(**{**PAPER, **settings}), data.schema)
    return ease, ease.fit(data, FitOptions())


def test_two_items_by_hand():
    """Three like the first item, three the second, two both: each is a ridge regression on the other, 2 / (3 + reg)."""
    ease, found = fitted(reg=1.0)
    torch.testing.assert_close(ease.weights, torch.tensor([[0.0, 0.5], [0.5, 0.0]]))
    states = ease.adapt(evidence((0, 5)), found.table, 0)
    torch.testing.assert_close(states, torch.tensor([[0.0, 0.5]]), atol=1e-6, rtol=0)
    assert found.table.trained.tolist() == [True, True, False, False]


def test_every_item_is_a_ridge_regression_on_the_others_and_the_ones():
    world = make_world(1)
    ease = Ease(EaseConfig(**{**PAPER, "reg": 7.0, "reg_constant": 3.0}), world.data.schema)
    table = ease.fit(world.training, FitOptions()).table
    x = torch.from_numpy(ease.likes.matrix(world.training).toarray()).double()[:, table.trained]
    x = x[x.sum(1) > 0]  # who likes nothing is not there
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    penalty = torch.full((x.shape[1],), 7.0).double()
    penalty[-1] = 3.0
    for item in (0, 5, 40):
        others = torch.arange(x.shape[1]) != item
        y, z = x[:, item], x[:, others]
        expected = torch.linalg.solve(z.T @ z + torch.diag(penalty[others]), z.T @ y).float()
        column = torch.cat([ease.weights[:, item], ease.constant[item : item + 1]])
        torch.testing.assert_close(column[others], expected, atol=1e-5, rtol=1e-4)


def test_dislikes_say_nothing_clicks_little_and_repetition_no_more_than_a_like():
    ease, found = fitted(reg=1.0)

    def second(*events: tuple[int, float] | tuple[int, float, float]) -> float:
        return round(float(ease.adapt(evidence(*events), found.table, 0)[0, 1]), 5)

    assert second((0, 3)) == second() == 0
    assert second((0, 4, 0.25)) == 0.125
    assert second((0, 4, 0.25), (0, 4, 0.25)) == 0.25
    assert second((0, 5), (0, 4, 0.25)) == 0.5


def test_somebody_unknown_gets_what_most_like():
    ease, found = fitted(reg=1.0, reg_constant=1.0)
    mean = ease.score(ease.adapt(evidence(), found.table, 0), found.table).mean
    # (3 + 1) b + 3 c = 2 and 3 b + (4 + 1) c = 3, with c the weight of the ones
    torch.testing.assert_close(mean[0, :2], torch.tensor([6 / 11, 6 / 11]), atol=1e-5, rtol=0)


def test_users_who_like_much_weigh_less():
    equal, discounted = fitted(reg=1.0)[0], fitted(reg=1.0, user_discount=1.0)[0]
    # Weights 1/2, 1/2, 1, 1 brought to mean 1: those who like both count 2/3 each, the others 4/3.
    assert float(discounted.weights[0, 1]) == pytest.approx((4 / 3) / (8 / 3 + 1), abs=1e-5)
    assert float(discounted.weights[0, 1]) < float(equal.weights[0, 1])


def test_an_item_without_likes_is_a_mean_of_others_as_evidence_and_in_a_list():
    ease, found = fitted(reg=1.0)
    share = found.table["share"][2]
    assert float(share.sum()) == pytest.approx(1)
    states = ease.adapt(evidence((0, 5)), found.table, 0)
    mean = ease.score(states, found.table).mean
    torch.testing.assert_close(mean[0, 2], (states[0, found.table["like"][2]] * share).sum())
    as_evidence = ease.adapt(evidence((2, 5)), found.table, 0)
    expected = (ease.weights[found.table["like"][2]] * share[:, None]).sum(0)
    torch.testing.assert_close(as_evidence[0], expected, atol=1e-6, rtol=0)


def test_likes_alone_can_be_learnt_from():
    data = tiny([(0, 0, 1), (1, 0, 2)], domain=[0])
    with pytest.raises(ValueError, match="nobody likes"):
        Ease(EaseConfig(), data.schema).fit(data, FitOptions())

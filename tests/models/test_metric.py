"""Relations by hand, what one step makes of them, and twins, which a shared metric finds."""

from functools import cache

import pytest
import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.recommender import Evidence, FitOptions, ItemTable
from models.recommenders.metric import Metric, MetricConfig, Relations, last_voice
from tests.laws.entries import Entry
from tests.laws.laws import LAWS, Case, fit_case
from tests.laws.world import make_world
from tests.models.tiny import evidence, tiny

N_PAIRS, N_USERS = 12, 200
KAPPA = 3.0


def relations(steps: int = 1, rate: float = 0.5, reg: float = 1.0) -> Relations:
    """One feature f, one relation max(0, q k - 1) of one dimension, kappa = 3, theta = (1, 2)."""
    config = MetricConfig(
        embedding_size=2, n_relations=1, relation_size=1, steps=steps, inner_learning_rate=rate, inner_reg=reg
    )
    made = Relations(config)
    made.reset_parameters()
    with torch.no_grad():
        made.threshold.fill_(-1.0)
        made.metric.copy_(torch.tensor([1.0, 2.0]))
        made.log_belief.fill_(KAPPA).log_()
    return made.requires_grad_(False)


def row(*numbers: float) -> Tensor:
    """(1, L, 1)."""
    return torch.tensor(numbers).view(1, -1, 1)


def test_ratings_speak_by_sign_weight_and_number():
    """kappa / (kappa + n) w_j e_j."""
    voices = relations().voices(torch.tensor([[2.0, -1.0, 9.0]]), torch.tensor([[1.0, 0.5, 0.0]]))
    torch.testing.assert_close(voices, 3 / 4.5 * torch.tensor([[2.0, -0.5, 0.0]]))


def test_relations_are_zero_but_for_what_is_alike_enough():
    made = relations()
    related = made.related(row(1.0, 2.0), row(0.5, 3.0))
    torch.testing.assert_close(related, torch.tensor([[[[0.0, 2.0], [0.0, 5.0]]]]))
    local = made.local(torch.tensor([[2.0]]), row(1.0, 2.0), row(0.5, 3.0), torch.tensor([[1.0, -0.5]]))
    torch.testing.assert_close(local, torch.tensor([[-2.0, -5.0]]))


def test_one_step_by_hand():
    """Each item is predicted from the other: z_1 = v_2 [f_1 f_2, g(1, 2)], and theta moves down the error of that."""
    rate, reg, shrink = 0.5, 1.0, KAPPA / (KAPPA + 2)
    f, q, e = (0.5, 2.0), (2.0, 1.0), (1.0, -1.0)
    theta = torch.tensor([1.0, 2.0])
    z = [torch.tensor([f[0] * f[1], max(0.0, q[0] * q[1] - 1)]) * shrink * e[other] for other in (1, 0)]
    slope = sum(2 / (2 + reg) * (theta @ z[j] - e[j]) * z[j] for j in (0, 1))
    found = relations(rate=rate, reg=reg).own_metric(row(*f), row(*q), row(*q), torch.tensor([e]), torch.ones(1, 2))
    torch.testing.assert_close(found, (theta - rate * slope)[None])


@pytest.mark.parametrize("n", [0, 1])
def test_without_others_to_be_predicted_from_the_metric_is_everybodys(n: int):
    found = relations().own_metric(
        row(*[2.0] * n), row(*[2.0] * n), row(*[2.0] * n), torch.ones(1, n), torch.ones(1, n)
    )
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0]]))


def test_a_direction_that_bears_out_counts_for_more_and_one_that_misleads_for_less():
    made = relations()
    agree, differ = (
        made.own_metric(row(1.0, 1.0), row(0.0, 0.0), row(0.0, 0.0), torch.tensor([e]), torch.ones(1, 2))[0, 0]
        for e in ([1.0, 1.0], [1.0, -1.0])
    )
    assert agree > 1 > differ


def test_what_is_heard_ends_with_the_last_voice():
    assert last_voice(torch.tensor([[0.5, 0.0, 0.0], [0.0, -1.0, 0.0]])) == 2
    assert last_voice(torch.zeros(0, 3)) == last_voice(torch.zeros(2, 3)) == 0


@cache
def twins() -> Dataset:
    """Films in pairs: who likes one likes the other as much, and all pairs are independent of each other."""
    generator = torch.Generator().manual_seed(0)
    liked = torch.rand(N_USERS, N_PAIRS, generator=generator) < 0.5
    ratings = [
        (user, 2 * pair + half, 5.0 if liked[user, pair] else 1.0)
        for user in range(N_USERS)
        for pair in range(N_PAIRS)
        for half in (0, 1)
        if torch.rand(1, generator=generator) < 0.8
    ]
    return tiny(ratings, domain=[0] * (2 * N_PAIRS))


@cache
def fitted(max_support: int = 24) -> tuple[Metric, ItemTable]:
    settings = {"base": "bias", "n_folds": 1, "embedding_size": 20, "max_support": max_support}
    recommender = Metric(
        MetricConfig(**settings, epochs=15, batch_size=16, learning_rate=0.03, warm_learning_rate=0.01), twins().schema
    )
    table = recommender.fit(twins(), FitOptions()).table
    recommender.eval().requires_grad_(False)
    return recommender, table


def score(known: Evidence) -> Tensor:
    recommender, table = fitted()
    return recommender.score(recommender.adapt(known, table, 0), table).mean[0]


def test_a_twin_is_found():
    """Of two films that are liked or disliked together one tells what the other is worth, and little of the rest."""
    difference = score(evidence((0, 5))) - score(evidence((0, 1)))
    assert difference[1] > 1.0
    assert difference[1] > 2 * difference[2:].max()


def test_the_order_of_the_support_is_no_matter():
    torch.testing.assert_close(score(evidence((0, 5), (4, 1), (9, 3))), score(evidence((9, 3), (0, 5), (4, 1))))


def test_a_state_keeps_the_newest():
    recommender, table = fitted(2)
    state = recommender.adapt(evidence((0, 5), (4, 5), (8, 1), (12, 5)), table, 0)
    assert state[0, -4:-2].tolist() == [8, 12]


@cache
def without_steps() -> Case:
    settings = {"base": "bias", "n_folds": 1, "steps": 0, "embedding_size": 8, "epochs": 10, "batch_size": 16}
    return fit_case(Entry(settings=settings), Metric, make_world(2))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_everybodys_metric_on_biases_keeps_the_laws(law):
    law(without_steps())

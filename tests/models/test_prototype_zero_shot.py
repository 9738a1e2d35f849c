"""Posteriors over prototypes by hand, the mix that newcomers get, and prototypes found again."""

import math

import pytest
import torch

from models.recommender import FitOptions, ItemTable
from models.recommenders.prototype_zero_shot import PrototypeZeroShot, PrototypeZeroShotConfig
from tests.models.tiny import evidence, tiny


def two_prototypes(**settings: float) -> tuple[PrototypeZeroShot, ItemTable]:
    """Two prototypes that differ by two steps on item 0 and agree on item 1; attributes speak for the first."""
    data = tiny([(0, 0, 3)], domain=[0, 0], attributes=torch.ones(1, 1))
    config = PrototypeZeroShotConfig.model_validate({"n_prototypes": 2, "dispersion": 0.0, "reg_user": 1.0, **settings})
    recommender = PrototypeZeroShot(config, data.schema)
    recommender.mean.fill_(3.0)
    recommender.gate.copy_(torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]))  # attribute 1: three to one
    columns = {
        "departure": torch.tensor([[1.0, -1.0], [0.0, 0.0]]),
        "bias": torch.tensor([0.0, 0.5]),
        "count": torch.full((2,), 1e9),
    }
    return recommender, ItemTable(columns, data.items.domain, torch.ones(2, dtype=torch.bool))


def test_a_newcomer_gets_the_mix_that_their_attributes_speak_for() -> None:
    recommender, table = two_prototypes()
    state = recommender.adapt(evidence(attributes=[1.0]), table, 0)
    scores = recommender.score(state, table)
    assert state[0].tolist() == pytest.approx([0.75, 0.25, 0.0, 0.0, 1.0])
    assert scores.mean[0].tolist() == pytest.approx([3 + 0.75 - 0.25, 3.5])
    assert scores.taste_std is not None  # variance of ±1 at 3 : 1 is 0.75, of the bias 1
    assert scores.taste_std[0].tolist() == pytest.approx([math.sqrt(1.75), 1.0], abs=1e-4)


def test_the_posterior_is_that_of_a_mixture_with_the_bias_integrated_out() -> None:
    """One rating y: under prototype c it is N(δ_c, 1 + 1), for the bias has variance 1 and so has the noise."""
    recommender, table = two_prototypes()
    state = recommender.adapt(evidence((0, 2.5), attributes=[1.0]), table, 0)[0]
    density = [prior * math.exp(-((-0.5 - delta) ** 2) / 4) for prior, delta in ((0.75, 1), (0.25, -1))]
    assert state[:2].tolist() == pytest.approx([d / sum(density) for d in density])
    assert state[2:4].tolist() == pytest.approx([-1.5 / 2, 0.5 / 2])  # half of what each leaves unexplained


def test_tempering_weakens_what_ratings_say_and_never_the_bias() -> None:
    sharp, table = two_prototypes()
    blunt, _ = two_prototypes(dispersion=1e6)
    support = evidence((0, 1.0), (0, 1.0), attributes=[0.0])
    trusting, doubting = sharp.adapt(support, table, 0)[0], blunt.adapt(support, table, 0)[0]
    assert trusting[1] > 0.7
    assert doubting[:2].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    assert torch.equal(trusting[2:], doubting[2:])


def test_kinds_of_people_are_found_and_told_by_attributes() -> None:
    """Two camps with opposite tastes: strangers of each get the tastes of theirs, for untouched items too."""
    ratings = [(u, i, 5 if (u + i) % 2 == 0 else 1) for u in range(40) for i in range(20)]
    features = torch.tensor([[1.0], [-1.0]]).repeat(11, 1)  # the last two are untouched
    attributes = torch.tensor([[1.0], [-1.0]]).repeat(20, 1)
    data = tiny(ratings, domain=[0] * 22, features=features, attributes=attributes)
    config = PrototypeZeroShotConfig(n_prototypes=2, reg_content=1.0, reg_prototype=1.0, dispersion=0.0)
    recommender = PrototypeZeroShot(config, data.schema)
    table = recommender.fit(data, FitOptions()).table
    for person in (1.0, -1.0):
        mean = recommender.score(recommender.adapt(evidence(attributes=[person]), table, 0), table).mean[0]
        assert person * (mean[0] - mean[1]) > 2
        assert person * (mean[-2] - mean[-1]) > 2
    contrary = evidence(*[(i, 1.0 if i % 2 == 0 else 5.0) for i in range(20)], attributes=[1.0])
    mean = recommender.score(recommender.adapt(contrary, table, 0), table).mean[0]
    assert mean[-1] - mean[-2] > 1

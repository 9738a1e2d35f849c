"""The guard against negative transfer: weight where a transfer certainly helps, none elsewhere."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.blend import Blend, BlendPart
from models.datasets.dataset import Dataset
from models.evaluation.predictors import AlonePredictor, Amounts, BlendPredictor, Predictor
from models.evaluation.transfer_guard import SOURCE_SIZES, fit_guarded
from models.recommender import Evidence, FitOptions, Scores
from models.training.domains import alone, evidence_in, only
from models.training.train import train
from tests.models.tiny import tiny

N_USERS, N_ITEMS = 60, 30
"""Of each of two domains."""


@pytest.fixture(scope="module")
def tasteful() -> Dataset:
    """Everybody rates all items of two domains alike, all low or all high: who knows one domain knows the other."""
    generator = torch.Generator().manual_seed(0)
    level = 2 + 2 * torch.randint(0, 2, (N_USERS,), generator=generator)
    noise = 0.3 * torch.randn(N_USERS, 2 * N_ITEMS, generator=generator)
    rows = [
        (user, item, float((level[user] + noise[user, item]).clamp(1, 5)))
        for user in range(N_USERS)
        for item in range(2 * N_ITEMS)
    ]
    return tiny(rows, domain=[0] * N_ITEMS + [1] * N_ITEMS)


class Mean(Predictor):
    """The mean of all that is known, on equal scales; 3 of nothing."""

    def __init__(self, data: Dataset, domain: int | None = None) -> None:
        self.data, self.domain = data, domain

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        known = support.mask
        if self.domain is not None:
            known = known & (self.data.items.domain[support.items] == self.domain)
        mean = (3 + (support.values * known).sum(1)) / (1 + known.sum(1))
        return Scores(mean[:, None].expand(-1, len(positions)), torch.ones(support.batch_size, len(positions)))


class Contrary(Mean):
    """The opposite of what is known."""

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        scores = super().scores(support, domain, positions)
        return replace(scores, mean=6 - scores.mean)


def guarded(data: Dataset, transfer: Predictor, users: Tensor | None = None) -> Blend:
    part = BlendPart(role="collaborative", digest="a", recommender="bias")
    carrying = BlendPart(role="transfer", digest="b", recommender="mapping")
    who = torch.arange(N_USERS) if users is None else users
    return fit_guarded([(part, Mean(data, 1))], (carrying, transfer), data, who, 1, [0], seed=0)


def test_a_transfer_that_knows_gets_the_weight_where_there_is_something_to_carry(tasteful: Dataset) -> None:
    blend = guarded(tasteful, Mean(tasteful))
    assert blend.bucket(0, 10).weights == pytest.approx([0, 1], abs=0.05)
    gain = blend.bucket(0, 10).transfer_gain
    assert gain is not None
    assert gain.gain > gain.low > 0.3
    assert blend.bucket(0, 0).weights == [1, 0]


def test_a_transfer_that_misleads_gets_none_and_is_told_by_its_gain(tasteful: Dataset) -> None:
    for bucket in guarded(tasteful, Contrary(tasteful, 0)).buckets:
        assert bucket.weights == [1, 0]
        assert bucket.ranking_weights is None or bucket.ranking_weights[-1] == 0
        assert bucket.transfer_gain is None or bucket.transfer_gain.low <= 0


def test_a_weight_that_too_few_could_test_is_none(tasteful: Dataset) -> None:
    for bucket in guarded(tasteful, Mean(tasteful), torch.arange(19)).buckets:
        assert bucket.transfer_gain is None
        assert bucket.weights == [1, 0]


def test_nobody_in_the_source_leaves_the_blend_as_it_is_without(tasteful: Dataset) -> None:
    blend = guarded(only(tasteful, 1), Mean(tasteful))
    assert {bucket.min_source for bucket in blend.buckets} == set(SOURCE_SIZES)
    assert all(bucket.weights == [1, 0] for bucket in blend.buckets)


def test_without_weight_the_mixture_is_exactly_that_of_the_others(tasteful: Dataset) -> None:
    blend = guarded(tasteful, Contrary(tasteful, 0))
    parts: list[Predictor] = [Mean(tasteful, 1), Contrary(tasteful, 0)]
    mixed = BlendPredictor(blend, parts, Amounts(tasteful.items.domain, [0]))
    known = tasteful.evidence(torch.arange(5))
    positions = torch.arange(N_ITEMS, 2 * N_ITEMS)
    torch.testing.assert_close(mixed.scores(known, 1, positions).mean, parts[0].scores(known, 1, positions).mean)


def test_a_domain_alone_answers_as_on_its_own_whatever_else_is_known(tasteful: Dataset) -> None:
    by_itself = alone(tasteful, 1)
    assert by_itself.items.ids == tasteful.items.ids[N_ITEMS:]
    assert len(by_itself.interactions) == N_USERS * N_ITEMS
    trained = train("bias", {}, by_itself, FitOptions(seed=0))
    predictor = AlonePredictor(trained.recommender, trained.fitted.table, tasteful, 1)
    known = tasteful.evidence(torch.arange(4))
    there = torch.arange(N_ITEMS, 2 * N_ITEMS)
    states = trained.recommender.adapt(by_itself.evidence(torch.arange(4)), trained.fitted.table, 0)
    direct = trained.recommender.score(states, trained.fitted.table).mean
    torch.testing.assert_close(predictor.scores(known, 1, there).mean, direct)
    here = evidence_in(known, predictor.whole, 1)
    torch.testing.assert_close(predictor.scores(here, 1, there).mean, direct)
    with pytest.raises(ValueError, match="asked about another"):
        predictor.scores(known, 0, there)

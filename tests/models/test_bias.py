"""Hand-computed user biases, scales, priors and variances."""

import pytest
import torch
from pydantic import ValidationError

from models.recommender import FitOptions, ItemContent, ItemTable
from models.recommenders.bias import Bias, BiasConfig
from tests.laws.entries import Entry
from tests.laws.laws import LAWS, fit_case
from tests.laws.world import make_world
from tests.models.tiny import evidence, tiny


def installed(**settings: float) -> tuple[Bias, ItemTable]:
    """A recommender of two domains with means 3 and 4 and item biases set by hand."""
    data = tiny([(0, 0, 3)], domain=[0, 0, 1])
    bias = Bias(BiasConfig(**settings), data.schema)
    bias.mean.copy_(torch.tensor([3.0, 4.0]))
    bias.noise.copy_(torch.tensor([0.81, 1.0]))
    columns = {"bias": torch.tensor([0.5, -0.5, 0.25]), "variance": torch.tensor([0.1, 0.2, 0.3])}
    return bias, ItemTable(columns, data.items.domain, torch.ones(3, dtype=torch.bool))


def test_the_user_bias_is_the_shrunken_mean_of_residuals():
    bias, table = installed(reg_user=3)
    state = bias.adapt(evidence((0, 5), (1, 4, 0.5)), table, 0)
    mean = (1 * (5 - 3 - 0.5) + 0.5 * (4 - 3 + 0.5)) / (1.5 + 3)
    torch.testing.assert_close(state, torch.tensor([[mean, 1 / 4.5]]))


def test_evidence_of_another_domain_counts_in_its_own_units():
    """A book rated 2 above expectation, on a scale twice as wide, is one step of generosity."""
    bias, table = installed(reg_user=1)
    state = bias.adapt(evidence((2, 4 + 2 * 0.25 + 2)), table, 0)
    torch.testing.assert_close(state[0, 0], torch.tensor(0.5))
    mean = bias.score(state, table).mean
    torch.testing.assert_close(mean, torch.tensor([[3 + 0.5 + 0.5, 3 - 0.5 + 0.5, 4 + 2 * (0.25 + 0.5)]]))


def test_std_adds_noise_user_and_item_variance():
    bias, table = installed(reg_user=4)
    scores = bias.score(bias.adapt(evidence(), table, 0), table)
    taste = 0.81 * (1 / 4 + 0.1)
    assert scores.taste_std is not None
    assert scores.std is not None
    torch.testing.assert_close(scores.taste_std[0, 0], torch.tensor(taste).sqrt())
    torch.testing.assert_close(scores.std[0, 0], torch.tensor(0.81 + taste).sqrt())


def test_draws_share_the_generosity_of_a_user():
    """Items drawn together move together: their covariance is the variance of the user's bias."""
    bias, table = installed(reg_user=2)
    states = bias.adapt(evidence(), table, 0)
    draws = bias.sample(states, table, 20_000, torch.Generator().manual_seed(0))[:, 0]  # (n, 3)
    covariance = torch.cov(draws.T)
    torch.testing.assert_close(covariance[0, 1], torch.tensor(0.81 / 2), atol=0.02, rtol=0)
    torch.testing.assert_close(covariance[0, 0], torch.tensor(0.81 * (1 / 2 + 0.1)), atol=0.02, rtol=0)


def test_a_new_item_is_as_good_as_its_content():
    ratings = [(u, i, 5 if i % 2 else 1) for u in range(20) for i in range(6)]
    features = torch.tensor([[-1.0], [1.0]]).repeat(3, 1)
    data = tiny(ratings, domain=[0] * 6, features=features)
    for prior, expected in ((True, 4.5), (False, 3.0)):
        bias = Bias(BiasConfig(reg_content=0.01, content_prior=prior), data.schema)
        table = bias.fit(data, FitOptions()).table
        grown = table.appended(bias.embed_items(ItemContent(torch.tensor([[1.0]]), [""]), 0), 0)
        score = bias.score(bias.adapt(evidence(), grown, 0), grown).mean[0, -1]
        assert score >= expected if prior else score == expected


def test_unknown_settings_are_refused():
    with pytest.raises(ValidationError):
        BiasConfig.model_validate({"reg_itme": 3})


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_laws_hold_with_attributes_in_the_prior(law):
    law(fit_case(Entry({"attribute_prior": True}, uses_attributes=True), Bias, make_world(2)))

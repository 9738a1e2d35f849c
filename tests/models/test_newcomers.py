"""Rows learnt while serving are what the fit would have made of the same ratings, where that can be found by hand."""

import torch

from models.datasets.schema import AttributeEncoder, Domain, Schema
from models.recommender import ItemEvidence, ItemTable
from models.recommenders.bayes import Bayes
from models.recommenders.bias import Bias
from models.recommenders.popularity import Popularity
from models.training.gaussian import pack, unpack
from models.training.newcomers import learnt_bias

SCHEMA = Schema(
    domains=[Domain(name="films", rating_min=1, rating_max=5)],
    user_attributes=AttributeEncoder(fields=[]),
    item_attributes=AttributeEncoder(fields=[]),
    kinds=["rating"],
)
ROW = torch.tensor([0])


def ratings(values: list[float], states: torch.Tensor, weights: list[float] | None = None) -> ItemEvidence:
    """Ratings of the first of one item."""
    given = torch.tensor(weights or [1.0] * len(values))
    return ItemEvidence(torch.zeros(len(values), dtype=torch.long), states, torch.tensor(values), given)


def table(**columns: list[float]) -> ItemTable:
    """A table of one item."""
    kept = {name: torch.tensor([column]) for name, column in columns.items()}
    return ItemTable(kept, torch.tensor([0]), torch.tensor([False]))


def test_a_bias_is_the_shrunken_mean_over_old_and_new_ratings() -> None:
    """Four ratings 1 above the mean, shrunken by 5, then 3 that are 2 above: (4 + 6) / (5 + 4 + 3)."""
    bias, evidence = torch.tensor([4 / 9]), ratings([2.0] * 3, torch.zeros(3, 1))
    learnt = learnt_bias(bias, torch.tensor([9.0]), evidence, evidence.values - bias)
    assert torch.allclose(learnt, torch.tensor([10 / 12]))


def test_popularity_learns_the_mean_that_a_fit_would_have_found() -> None:
    """A new item with ratings 5 and 4 and half a 5, in a domain whose mean is 3: (2 + 1 + 1) / (2.5 + 5)."""
    popularity = Popularity(Popularity.Config(reg=5.0), SCHEMA)
    popularity.domain_mean.fill_(3.0)
    evidence = ratings([5.0, 4.0, 5.0], torch.zeros(3, 1), [1.0, 1.0, 0.5])
    learnt = popularity.learn_items(table(bias=0.0, count=0.0), ROW, evidence)
    assert torch.allclose(learnt["bias"], torch.tensor([4 / 7.5]))


def test_bias_trusts_a_rater_whose_generosity_is_unknown_less() -> None:
    """With a generosity of variance 1 (in units of the noise) a rating is worth half of one by somebody known."""
    bias = Bias(Bias.Config(reg_item=5.0), SCHEMA)
    bias.mean.fill_(3.0)
    prior = table(bias=0.5, variance=0.2)
    known = bias.learn_items(prior, ROW, ratings([5.0], torch.tensor([[0.0, 0.0]])))
    unknown = bias.learn_items(prior, ROW, ratings([5.0], torch.tensor([[0.0, 1.0]])))
    assert torch.allclose(known["bias"], torch.tensor([0.5 + 1.5 / 6]))
    assert torch.allclose(known["variance"], torch.tensor([1 / 6]))
    assert torch.allclose(unknown["bias"], torch.tensor([0.5 + 0.75 / 5.5]))
    assert torch.allclose(unknown["variance"], torch.tensor([1 / 5.5]))


def test_bayes_learns_the_posterior_of_a_linear_model() -> None:
    """Raters known exactly: (b, v) has precision Σ^-1 + x x' / s² and its mean solves the normal equations."""
    bayes = Bayes(Bayes.Config(n_factors=1, choice_dispersion=None), SCHEMA)
    bayes.domain_mean.fill_(3.0)
    prior = torch.tensor([[1.0, 0.2], [0.2, 0.5]])
    row = ItemTable(
        {
            "mean": torch.tensor([[0.1, -0.3]]),
            "covariance": pack(prior)[None],
            "noise": torch.tensor([0.8]),
            "choice": torch.zeros(1, 2),
            "lift": torch.zeros(1, 3),
            "new": torch.ones(1),
        },
        torch.tensor([0]),
        torch.tensor([False]),
    )
    tastes, values = torch.tensor([[0.4, 1.0], [-0.2, -2.0]]), torch.tensor([4.5, 2.0])
    states = torch.cat([tastes, torch.zeros(2, 3), torch.zeros(2, 2)], dim=1)  # mean, no covariance, no choices
    learnt = bayes.learn_items(row, ROW, ratings(values.tolist(), states))
    x = torch.stack([torch.ones(2), tastes[:, 1]], dim=1)
    precision = torch.linalg.inv(prior) + x.T @ x / 0.8
    shift = torch.linalg.inv(prior) @ row["mean"][0] + x.T @ (values - 3.0 - tastes[:, 0]) / 0.8
    assert torch.allclose(unpack(learnt["covariance"], 2)[0], torch.linalg.inv(precision), atol=1e-6)
    assert torch.allclose(learnt["mean"][0], torch.linalg.solve(precision, shift), atol=1e-6)
    assert torch.allclose(learnt["new"], torch.linalg.inv(precision)[0, 0])  # of a variance of 1

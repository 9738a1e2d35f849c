"""What is expected of items that nobody has rated: right over ratings, and no more than content has shown to tell."""

import pytest
import torch
from torch import Tensor

from models.training.gaussian import FieldRegression
from models.training.new_items import NewItemPrior, expected_of_new

N_ITEMS, N_TAGS = 400, 6


def world(tells: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tags (n, F), biases (n,) and counts (n,): what is good is rated more often, and tags tell some of it."""
    generator = torch.Generator().manual_seed(seed)
    tags = (torch.rand(N_ITEMS, N_TAGS, generator=generator) < 0.3).double()
    effects = torch.tensor([0.5, -0.5, 0.4, -0.4, 0.3, -0.3], dtype=torch.float64)
    bias = tells * tags @ effects + 0.3 * torch.randn(N_ITEMS, generator=generator).double()
    counts = (3 + 1.5 * bias + 0.5 * torch.randn(N_ITEMS, generator=generator).double()).exp().round().clamp(min=1)
    return tags, bias, counts


def learnt(tags: Tensor, bias: Tensor, counts: Tensor) -> NewItemPrior:
    known = FieldRegression(1, [1, N_TAGS])
    exposure = counts.log1p() - (counts @ counts.log1p()) / counts.sum()
    features = torch.cat([exposure[:, None], tags], dim=1)
    for _ in range(30):
        known.update(features, bias[:, None], (0.1 / counts).sum()[None, None])
    return expected_of_new(known, features, bias, counts, (counts @ exposure.square()) / counts.sum())


def expected(prior: NewItemPrior, tags: Tensor) -> Tensor:
    return prior.weights[0, 0] + tags @ prior.weights[1:, 0]


@pytest.mark.parametrize("tells", [0.0, 1.0])
def test_the_level_is_that_of_ratings_not_of_items(tells: float) -> None:
    prior = learnt(*world(tells, seed=0))
    tags, bias, counts = world(tells, seed=1)
    error = (counts * (expected(prior, tags) - bias)).sum() / counts.sum()
    of_items = (counts * (bias.mean() - bias)).sum() / counts.sum()
    assert abs(error) < 0.35 * abs(of_items)


def test_content_tells_of_new_items_what_it_is_worth() -> None:
    prior = learnt(*world(1.0, seed=0))
    tags, bias, counts = world(1.0, seed=1)
    level = (counts * bias).sum() / counts.sum()
    squared = (counts * (expected(prior, tags) - bias).square()).sum() / counts.sum()
    assert squared < 0.7 * (counts * (level - bias).square()).sum() / counts.sum()


def test_of_content_that_tells_nothing_nothing_is_made() -> None:
    tags, bias, counts = world(0.0, seed=0)
    prior = learnt(tags, bias, counts)
    assert (tags @ prior.weights[1:, 0]).std() < 0.1 * bias.std()


def test_without_content_the_level_is_the_mean_rating() -> None:
    _, bias, counts = world(1.0, seed=0)
    known = FieldRegression(1, [1], use_features=False)
    known.update(counts[:, None], bias[:, None], torch.zeros(1, 1).double())
    prior = expected_of_new(known, counts[:, None], bias, counts, torch.tensor(0.0))
    assert float(prior.weights[0, 0]) == pytest.approx(float(counts @ bias / counts.sum()))

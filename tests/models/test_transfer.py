"""What transfers share: joint batches, losses, the epoch that is kept, reversed gradients, discrepancy of samples."""

import math

import pytest
import torch
from torch import Tensor, nn

from models.recommender import FitOptions, ItemTable
from models.recommenders.collective import Collective, CollectiveConfig
from models.recommenders.popularity import Popularity, PopularityConfig
from models.training.alignment import mmd, reversal_strength, reverse_gradient
from models.training.transfer import JointBatches, JointSettings, Ratings, keep_best, squared_error, train_jointly
from tests.models.tiny import tiny


def ratings(n: int, first: int = 0) -> Ratings:
    index = torch.arange(first, first + n)
    return Ratings(index, index, index.float(), torch.ones(n))


def test_ratings_are_in_steps_of_a_five_point_scale_around_the_mean_of_their_domain() -> None:
    """Books go from 0 to 8: two points are a step."""
    data = tiny([(0, 0, 5.0), (0, 1, 8.0), (1, 1, 4.0, 0.25)], domain=[0, 1])
    books = Ratings.of(data, 1, torch.tensor([5.0, 6.0]))
    assert books.values.tolist() == [1, -1]
    assert books.weights.tolist() == [1, 0.25]
    assert books.items.tolist() == [1, 1]


def test_an_epoch_goes_once_through_the_larger_domain_and_as_often_as_it_takes_through_the_smaller() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = JointBatches(ratings(10), ratings(3, first=100), batch_size=2, generator=generator)
    pairs = list(batches.epoch())
    assert len(pairs) == len(batches) == 5
    assert sorted(torch.cat([source.users for source, _ in pairs]).tolist()) == list(range(10))
    small = torch.cat([target.users for _, target in pairs]).tolist()
    assert set(small) == {100, 101, 102}
    assert len(small) >= 7


def test_a_domain_without_ratings_gives_empty_batches_whose_loss_is_nothing() -> None:
    batches = JointBatches(ratings(4), ratings(0), 2, torch.Generator().manual_seed(0))
    for _, target in batches.epoch():
        assert len(target) == 0
        assert squared_error(target.values, target) == 0


def test_the_error_is_a_weighted_mean() -> None:
    of = Ratings(torch.zeros(2).long(), torch.zeros(2).long(), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.5]))
    assert squared_error(torch.zeros(2), of).item() == pytest.approx((1 + 0.5 * 4) / 1.5)


@pytest.mark.parametrize(("alpha", "optimum"), [(0.0, 100.0), (1.0, 0.0), (0.25, 75.0)])
def test_alpha_weighs_the_domains_however_many_ratings_they_have(alpha: float, optimum: float) -> None:
    """A single number fitted to source values of 0 and target values of 100."""
    data = tiny([(u, d, 3.0) for u in range(4) for d in range(2)], domain=[0, 1])
    number = nn.Parameter(torch.zeros(1))
    host = Collective(CollectiveConfig(), data.schema)
    host.register_parameter("number", number)
    source = Ratings(torch.zeros(40).long(), torch.zeros(40).long(), torch.zeros(40), torch.ones(40))
    target = Ratings(torch.zeros(4).long(), torch.ones(4).long(), torch.full((4,), 100.0), torch.ones(4))
    settings = JointSettings(alpha=alpha, epochs=60, learning_rate=0.5, batch_size=4, reg=0)

    def loss(part: Ratings) -> Tensor:
        return squared_error(number.expand(len(part)), part)

    table = ItemTable({}, data.items.domain, torch.ones(2, dtype=torch.bool))
    batches = JointBatches(source, target, settings.batch_size, torch.Generator().manual_seed(0))
    fitted = train_jointly(
        host,
        [{"params": [number]}],
        batches,
        settings,
        FitOptions(),
        source_loss=loss,
        target_loss=loss,
        table=lambda: table,
    )
    assert number.item() == pytest.approx(optimum, abs=2)
    assert fitted.report.epochs == 60  # nothing to select by: the last one


def test_the_epoch_that_validation_users_liked_best_is_kept_and_the_fit_ends_soon_after() -> None:
    class Falling:
        """Errors 3, 2, 1, 2, 3, …"""

        calls = 0

        def measure(self, recommender: object, table: object) -> dict[str, float]:
            self.calls += 1
            return {"rmse": abs(self.calls - 3) + 1.0}

    data = tiny([(0, 0, 3.0), (1, 0, 4.0)], domain=[0])
    popularity = Popularity(PopularityConfig(), data.schema)
    table = ItemTable({}, data.items.domain, torch.ones(1, dtype=torch.bool))

    def epoch(number: int) -> dict[str, float]:
        popularity.domain_mean.fill_(number + 1)
        return {}

    options = FitOptions(validation=Falling())  # type: ignore[arg-type]
    fitted = keep_best(popularity, epoch, lambda: table, epochs=50, patience=2, options=options)
    assert fitted.report.epochs == 3
    assert len(fitted.report.history) == 5
    assert popularity.domain_mean.item() == 3


def test_a_reversed_gradient_is_the_gradient_turned_round_and_scaled() -> None:
    x = torch.tensor([2.0, -1.0], requires_grad=True)
    y = reverse_gradient(x, 0.5)
    assert torch.equal(y, x)
    (3 * y).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-1.5, -1.5]
    assert reversal_strength(0.0) == 0
    assert reversal_strength(0.5) < reversal_strength(1.0) < 1


def test_discrepancy_is_nothing_in_the_mean_for_samples_of_one_distribution_and_grows_with_their_distance() -> None:
    generator = torch.Generator().manual_seed(0)

    def sample(shift: float) -> Tensor:
        return torch.randn(200, 3, generator=generator) + shift

    same = [mmd(sample(0), sample(0)).item() for _ in range(10)]
    assert abs(sum(same) / 10) < 3e-3
    near, far = mmd(sample(0), sample(0.5)).item(), mmd(sample(0), sample(2.0)).item()
    assert max(same) < near < far


def test_discrepancy_by_hand_with_one_kernel() -> None:
    """Points 0, 0 and 1, 1: squared distances are 0 within and 1 across, 8 / 12 in the mean."""
    a, b = torch.zeros(2, 1), torch.ones(2, 1, requires_grad=True)
    value = mmd(a, b, bandwidths=[1.0])
    assert value.item() == pytest.approx(1 + 1 - 2 * math.exp(-1 / (8 / 12)))
    value.backward()
    assert b.grad is not None
    assert b.grad.isfinite().all()


def test_discrepancy_of_too_few_points_is_nothing_and_can_be_differentiated() -> None:
    x = torch.ones(1, 2, requires_grad=True)
    value = mmd(x, torch.zeros(5, 2))
    value.backward()
    assert value.item() == 0

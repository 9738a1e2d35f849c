"""Training: who is learnt from, who is validated on, and determinism on request."""

import pytest
import torch

from models.datasets.dataset import Dataset
from models.recommender import FitOptions
from models.training.train import deterministic_algorithms, train
from tests.models.cinema import read_cinema


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_cinema(tmp_path_factory.mktemp("data") / "cinema")


def test_users_named_for_validation_are_not_learnt_from(cinema: Dataset) -> None:
    held = torch.arange(20)
    without = cinema.where(~torch.isin(cinema.interactions.users, held))
    named = train("popularity", {}, cinema, FitOptions(), held=held)
    apart = train("popularity", {}, without, FitOptions(), held=torch.empty(0, dtype=torch.long))
    assert torch.equal(named.fitted.table["bias"], apart.fitted.table["bias"])
    assert named.metrics["rmse"] > 0
    assert apart.metrics == {}


def test_with_nobody_held_out_everybody_is_learnt_from(cinema: Dataset) -> None:
    everyone = train("popularity", {}, cinema, FitOptions(), held=torch.empty(0, dtype=torch.long))
    mean = float(cinema.interactions.values.mean())
    assert float(everyone.recommender.domain_mean[0]) == pytest.approx(mean, abs=1e-4)


def test_deterministic_mode_ends_with_the_fit_however_it_ends() -> None:
    def fails() -> None:
        assert torch.are_deterministic_algorithms_enabled()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), deterministic_algorithms():
        fails()
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_algorithms(False):
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("name", ["mf", "maml"])
def test_deterministic_fits_of_one_seed_are_equal_to_the_bit(cinema: Dataset, name: str) -> None:
    settings = {"epochs": 2}
    first, again = (train(name, settings, cinema, FitOptions(seed=3), deterministic=True) for _ in range(2))
    for key, value in first.recommender.state_dict().items():
        assert torch.equal(value, again.recommender.state_dict()[key])
    for key, column in first.fitted.table.columns.items():
        assert torch.equal(column, again.fitted.table.columns[key])

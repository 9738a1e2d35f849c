"""Who knows what: shares, habits, and what an answer says of other items."""

import torch
from torch import Tensor

from models.exposure import Exposure
from models.training.exposure import fit_exposure
from tests.models.tiny import tiny


def test_one_habit_by_hand() -> None:
    """Two items with share 1/2 and loading 1/4 each: the noise is 1/4 - 1/16 = 3/16, so that one known item moves the
    habit by (1/4)(1/2)(16/3) / (1 + (1/16)(16/3)) = 1/2, and the other's chance by 1/8."""
    exposure = Exposure(torch.tensor([0.5, 0.5]), torch.tensor([[0.25], [0.25]]))
    assert exposure.chances(rows(), rows()).tolist() == [0.5, 0.5]
    torch.testing.assert_close(exposure.chances(rows(0), rows())[1], torch.tensor(0.625))
    torch.testing.assert_close(exposure.chances(rows(), rows(0))[1], torch.tensor(0.375))


def test_a_user_who_knows_an_item_knows_those_of_its_camp() -> None:
    """Half the users know items 0 and 1, the others 2 and 3: shares of 1/2, and one answer tells the camp."""
    camps = [(user, item, 4.0) for user in range(10) for item in ((0, 1) if user < 5 else (2, 3))]
    exposure = fit_exposure(tiny(camps, [0, 0, 0, 0]), 2, seed=0)
    torch.testing.assert_close(exposure.share, torch.full((4,), 0.5))
    # Covariances of ±1/4 between all items: the root is one column of halves.
    torch.testing.assert_close(
        exposure.loadings @ exposure.loadings.T, camp() / 4, atol=1e-5, rtol=0, msg="L L' is the covariance"
    )
    for told in (exposure.chances(rows(0), rows()), exposure.chances(rows(), rows(2))):
        assert told[1] > 0.9
        assert told[3] < 0.1


def test_shares_are_of_the_users_of_the_domain_and_of_several_events_one_counts() -> None:
    """Films have two users and books one; a user who rated a film twice has met it once."""
    seen = [(0, 0, 5.0), (0, 0, 3.0, 0.25), (1, 1, 4.0), (2, 2, 4.0)]
    exposure = fit_exposure(tiny(seen, [0, 0, 1, 1]), 8, seed=0)
    assert exposure.share.tolist() == [0.5, 0.5, 1.0, 0.0]
    assert bool((exposure.loadings[2:] == 0).all())


def test_the_column_of_an_item_table_keeps_all() -> None:
    exposure = Exposure(torch.rand(3), torch.rand(3, 2))
    again = Exposure.unpacked(exposure.packed())
    assert torch.equal(again.share, exposure.share)
    assert torch.equal(again.loadings, exposure.loadings)


def rows(*items: int) -> Tensor:
    return torch.tensor(items, dtype=torch.long)


def camp() -> Tensor:
    side = torch.tensor([1.0, 1.0, -1.0, -1.0])
    return torch.outer(side, side)

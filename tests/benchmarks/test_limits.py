"""The error of a person's level is told apart from the rest, and what tells of levels from what does not."""

import torch
from torch import Tensor

from benchmarks.limits import errors, told_beforehand
from models.datasets.dataset import Dataset
from models.evaluation.exam import Exam, Group
from models.evaluation.predictors import Constant
from tests.models.tiny import tiny

N_USERS, N_ITEMS = 60, 20


def people(levels: Tensor, attributes: Tensor, noise: float) -> Dataset:
    """Everybody rates everything by their own level and by chance."""
    chance = noise * torch.randn(N_USERS, N_ITEMS, generator=torch.Generator().manual_seed(1))
    ratings = [(u, i, float(levels[u] + chance[u, i])) for u in range(N_USERS) for i in range(N_ITEMS)]
    return tiny(ratings, domain=[0] * N_ITEMS, attributes=attributes)


def line(data: Dataset) -> list[str]:
    """What is shown of everybody's ratings where the mean of all is the answer."""
    rows = [torch.arange(int(data.offsets[u]), int(data.offsets[u + 1])) for u in range(N_USERS)]
    group = Group.of_rows("k=0", data, 0, torch.arange(N_USERS), [row[:0] for row in rows], rows)
    return errors(Constant(data), Exam("kshot", "", data, data, [group]), group).split()


def explained(data: Dataset) -> float:
    """Share of the levels that all attributes together tell."""
    shown = next(line for line in told_beforehand(data) if line.startswith("all attributes "))
    return float(shown.split()[-1].rstrip("%")) / 100


def test_where_levels_are_all_that_differs_nothing_is_left_once_they_are_known() -> None:
    data = people(torch.linspace(2, 4, N_USERS), torch.zeros(N_USERS, 0), noise=0.0)
    *_, known, between = line(data)
    assert float(known) < 1e-3
    assert between == "100.0%"


def test_where_all_are_alike_nothing_is_between_them() -> None:
    """The split takes out what chance alone puts between people: here it is 0 but for the luck of the draw."""
    *_, known, between = line(people(torch.full((N_USERS,), 3.0), torch.zeros(N_USERS, 0), noise=0.5))
    assert abs(float(known) - 0.5) < 0.03
    assert abs(float(between.rstrip("%"))) < 2


def test_an_attribute_that_tells_explains_and_one_that_does_not_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    telling, silent = torch.randn(2, N_USERS, 1, generator=generator)
    levels = (3 + 0.5 * telling[:, 0]).clamp(1.5, 4.5)
    assert explained(people(levels, telling, noise=0.3)) > 0.8
    assert explained(people(levels, silent, noise=0.3)) < 0.05

"""Trees find what a recipe leaves where there is something, and next to nothing where there is only chance."""

import torch

from benchmarks.leftover import foretold, left_by, lines
from models.datasets.dataset import Dataset
from models.recipes import load
from tests.models.tiny import tiny

N_USERS, N_ITEMS = 50, 64


def world(taste: float) -> Dataset:
    """Ratings hang on an attribute of the person times one of the item, by `taste`, and on chance."""
    generator = torch.Generator().manual_seed(0)
    person, item = (torch.randint(0, 2, (n, 1), generator=generator) * 2.0 - 1 for n in (N_USERS, N_ITEMS))
    ratings = 3 + taste * person @ item.T + 0.3 * torch.randn(N_USERS, N_ITEMS, generator=generator)
    rows = [(u, i, float(ratings[u, i])) for u in range(N_USERS) for i in range(N_ITEMS)]
    return tiny(rows, domain=[0] * N_ITEMS, attributes=person, features=item)


def shown(data: Dataset) -> tuple[float, float, float]:
    """(RMSE of `bias` alone, RMSE with 80 trees, gain by the best multiple)."""
    left = left_by(load("bias"), data)
    alone, line = lines(data, left, foretold(data, left, when=False, rounds=(80,)), rounds=(80,))
    return float(alone.split()[-1]), float(line.split()[3]), float(line.split()[-2])


def test_trees_find_a_taste_that_hangs_on_attributes() -> None:
    alone, together, best = shown(world(taste=0.8))
    assert alone > 0.8
    assert together < 0.35
    assert best < -0.45


def test_trees_find_little_where_there_is_only_chance() -> None:
    """Only that items differ less than a few ratings of each seem to say."""
    alone, together, best = shown(world(taste=0.0))
    assert abs(together - alone) < 0.01
    assert best > -0.01

"""What the quality of choices says of new items: found in a world in which it does, and not where it does not."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.description import Description, DomainDescription
from models.datasets.folder import Tables, write
from models.training.quality import MOST_SHRINKAGE, Quality

USERS, ITEMS, CHOSEN = 300, 400, 20


def chosen(known_by: float, folder: Path) -> tuple[Dataset, Tensor]:
    """People who each choose around a place of their own on a scale of quality, or at random where `known_by` is 0."""
    generator = np.random.default_rng(0)
    bias = generator.normal(size=ITEMS)
    place = generator.normal(size=USERS)
    likely = np.exp(known_by * place[:, None] * bias)
    picks = [generator.choice(ITEMS, CHOSEN, replace=False, p=row / row.sum()) for row in likely]
    interactions = pl.DataFrame(
        {
            "user_id": np.repeat([f"u{u}" for u in range(USERS)], CHOSEN),
            "domain": ["films"] * (USERS * CHOSEN),
            "item_id": [str(i) for i in np.concatenate(picks)],
            "value": np.full(USERS * CHOSEN, 3.0),
        }
    )
    domains = {"films": DomainDescription(rating_min=1, rating_max=5)}
    data = write(Tables(Description(name="picks", domains=domains), interactions, None, None), folder)
    return data, torch.tensor([bias[int(item)] for item in data.items.ids])


def fit(data: Dataset, bias: Tensor, expected: Tensor) -> Quality:
    made = Quality(1)
    made.fit(data, bias, expected)
    return made


def test_people_who_choose_what_is_good_go_on_to(tmp_path: Path) -> None:
    data, bias = chosen(0.7, tmp_path)
    found = fit(data, bias, torch.zeros(data.n_items))
    assert float(found.usual[0]) == pytest.approx(float(bias[data.interactions.items].mean()))
    assert 0.5 < float(found.slope[0]) <= 1
    assert float(found.shrinkage[0]) < 10


def test_what_content_has_said_already_is_not_said_twice(tmp_path: Path) -> None:
    data, bias = chosen(0.7, tmp_path)
    whole = float(fit(data, bias, torch.zeros(data.n_items)).slope[0])
    assert float(fit(data, bias, bias / 2).slope[0]) == pytest.approx(whole / 2, abs=0.05)


def test_where_people_choose_at_random_it_says_next_to_nothing(tmp_path: Path) -> None:
    data, bias = chosen(0.0, tmp_path)
    found = fit(data, bias, torch.zeros(data.n_items))
    one = float(found.slope[0]) * CHOSEN / (CHOSEN + float(found.shrinkage[0]))  # of a mean
    assert one < 0.2


def test_without_ratings_it_says_nothing(tmp_path: Path) -> None:
    data, bias = chosen(0.7, tmp_path)
    nobody = data.where(torch.zeros(len(data.interactions), dtype=torch.bool))
    found = fit(nobody, bias, torch.zeros(data.n_items))
    assert (float(found.slope[0]), float(found.shrinkage[0])) == (0, MOST_SHRINKAGE)

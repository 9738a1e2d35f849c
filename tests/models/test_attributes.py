"""Pairs of which neither was seen, ratings that count alike, cells, and what a person's own ratings change."""

import pytest
import torch

from models.datasets.dataset import Dataset
from models.recommender import FitOptions, ItemContent, ItemTable
from models.recommenders.attributes import Attributes, AttributesConfig
from models.training.attribute_cells import Cells
from models.training.biases import BiasSettings, fit_biases
from tests.models.tiny import evidence, tiny


def two_camps() -> Dataset:
    """Half of the people love items of feature +1 and hate those of -1, the other half the reverse."""
    ratings = [(u, i, 5 if (u + i) % 2 == 0 else 1) for u in range(40) for i in range(20)]
    features = torch.tensor([[1.0], [-1.0]]).repeat(11, 1)  # the last two are untouched
    attributes = torch.tensor([[1.0], [-1.0]]).repeat(20, 1)
    return tiny(ratings, domain=[0] * 22, features=features, attributes=attributes)


@pytest.fixture(scope="module")
def camps() -> tuple[Attributes, ItemTable]:
    data = two_camps()
    attributes = Attributes(AttributesConfig(embedding_size=2, learning_rate=0.05, epochs=60), data.schema)
    table = attributes.fit(data, FitOptions()).table
    return attributes, table


def means(camps: tuple[Attributes, ItemTable], *events: tuple[int, float], person: float) -> torch.Tensor:
    attributes, table = camps
    with torch.no_grad():
        return attributes.score(attributes.adapt(evidence(*events, attributes=[person]), table, 0), table).mean[0]


def test_strangers_and_untouched_items_meet_by_what_they_are(camps: tuple[Attributes, ItemTable]) -> None:
    """Nobody rated the last two items and this person rated nothing: the score is in their attributes alone."""
    for person in (1.0, -1.0):
        plus, minus = means(camps, person=person)[-2:]
        assert person * (plus - minus) > 1


def test_of_a_person_without_attributes_no_taste_is_believed(camps: tuple[Attributes, ItemTable]) -> None:
    plus, minus = means(camps, person=0.0)[-2:]
    assert abs(plus - minus) < 0.3


def test_ratings_speak_against_attributes(camps: tuple[Attributes, ItemTable]) -> None:
    """Who says by attributes that they love +1, and by ratings that they hate it, is believed the ratings."""
    events = [(i, 1.0 if i % 2 == 0 else 5.0) for i in range(20)] * 4
    before, after = means(camps, person=1.0), means(camps, *events, person=1.0)
    assert before[-2] - before[-1] > 1
    assert after[-2] - after[-1] < 0


def test_the_users_bias_is_its_posterior_mean_where_tastes_are_out() -> None:
    data = tiny([(0, 0, 3)], domain=[0, 0])
    attributes = Attributes(AttributesConfig(embedding_size=1, reg_user=2), data.schema)
    attributes.mean.fill_(3.0)
    attributes.generosity.fill_(0.5)
    columns = {"semantic": torch.zeros(2, 1), "bias": torch.tensor([1.0, 0.0]), "count": torch.zeros(2)}
    table = ItemTable(columns, data.items.domain, torch.ones(2, dtype=torch.bool))
    with torch.no_grad():
        attributes.person.weight.zero_()
        state = attributes.adapt(evidence((0, 5.0), (1, 4.0)), table, 0)  # residuals 1 and 1
    assert state[0].tolist() == pytest.approx([(1 + 1 + 2 * 0.5) / (2 + 2), 1 / (2 + 2), 0.0])


def test_a_new_items_row_is_its_content(camps: tuple[Attributes, ItemTable]) -> None:
    attributes, table = camps
    grown = table.appended(attributes.embed_items(ItemContent(torch.tensor([[1.0]]), ["new"]), 0), 0)
    torch.testing.assert_close(means((attributes, grown), person=1.0)[-1], means(camps, person=1.0)[-2])


def test_people_who_share_attributes_are_one_row_of_cells() -> None:
    ratings = [(0, 0, 2.0), (1, 0, 5.0, 0.5), (2, 0, 1.0), (2, 1, 4.0)]
    data = tiny(ratings, domain=[0, 0], attributes=torch.tensor([[1.0], [1.0], [0.0]]))
    cells = Cells.of(data, data.interactions.values)
    found = {
        (float(cells.attributes[p, 0]), i): (v, w)
        for p, i, v, w in zip(
            *(getattr(cells, name).tolist() for name in ("profiles", "items", "values", "weights")), strict=True
        )
    }
    assert found == {(1.0, 0): (pytest.approx(3.0), 1.5), (0.0, 0): (1.0, 1.0), (0.0, 1): (4.0, 1.0)}
    parts = list(cells.batches(2, torch.Generator().manual_seed(0)))
    assert [len(part) for part in parts] == [2, 1]
    assert sum(float(part.weights.sum()) for part in parts) == 3.5


def test_content_speaks_for_the_mean_rating_or_for_the_mean_item() -> None:
    """Two items of the same content, one with 30 ratings of 5, one with one of 1: what is a third worth?"""
    ratings = [(u, 0, 5.0) for u in range(30)] + [(30, 1, 1.0)] + [(u, 2, 3.0) for u in range(31)]
    data = tiny(ratings, domain=[0] * 3, features=torch.tensor([[1.0], [1.0], [0.0]]))
    worth = {}
    for weighting in ("items", "ratings"):
        settings = BiasSettings.model_validate(
            {"content_weighting": weighting, "reg_content": 0.01, "reg_item": 0.01, "reg_user": 1000.0}
        )
        biases = fit_biases(data, settings)
        worth[weighting] = float(biases.mean[0] + (torch.tensor([1.0, 1.0]) @ biases.content)[0])
    assert worth["ratings"] == pytest.approx((30 * 5 + 1) / 31, abs=0.1)
    assert worth["items"] == pytest.approx(3, abs=0.1)

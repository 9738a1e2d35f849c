"""Hand-computed means, shrunken biases and ridge regressions."""

import torch

from models.training.biases import BiasSettings, fit_biases, item_design, units, user_design
from models.training.statistics import domain_means, item_counts, ridge, shrunken_item_biases
from tests.models.tiny import BOOKS, FILMS, tiny


def test_domain_means_weigh_events_and_fall_back_on_the_middle_of_the_scale():
    data = tiny([(0, 0, 5), (0, 1, 2), (1, 1, 4, 0.5)], domain=[0, 0, 1])
    torch.testing.assert_close(domain_means(data), torch.tensor([(5 + 2 + 0.5 * 4) / 2.5, 4.0]))


def test_item_counts_are_sums_of_weights():
    data = tiny([(0, 0, 5), (1, 0, 4, 0.25)], domain=[0, 0])
    assert item_counts(data).tolist() == [1.25, 0]


def test_item_biases_shrink_by_reg_ratings_of_zero():
    data = tiny([(0, 0, 5), (1, 0, 4), (0, 1, 3)], domain=[0, 0, 0])
    biases = shrunken_item_biases(data, torch.tensor([4.0]), reg=2.0)
    torch.testing.assert_close(biases, torch.tensor([(1 + 0) / (2 + 2), -1 / (1 + 2), 0.0]))


def test_ridge_solves_its_normal_equations():
    generator = torch.Generator().manual_seed(0)
    x, y, w = (torch.randn(shape, generator=generator) for shape in ((20, 3), (20, 2), (20,)))
    w = w.abs()
    b = ridge(x, y, w, reg=0.7)
    torch.testing.assert_close(x.T @ (w[:, None] * (y - x @ b)), 0.7 * b, atol=1e-4, rtol=1e-4)


def test_a_unit_is_a_step_of_a_five_point_scale():
    assert units(tiny([(0, 0, 3)], domain=[0, 1]).schema).tolist() == [1, (BOOKS.rating_max - BOOKS.rating_min) / 4]
    assert FILMS.rating_max - FILMS.rating_min == 4


def test_designs_have_a_constant_for_each_domain_and_for_everybody():
    x = item_design(torch.tensor([[7.0], [8.0]]), torch.tensor([1, 0]), 2)
    assert x.tolist() == [[7, 0, 1], [8, 1, 0]]
    assert user_design(torch.tensor([[2.0]])).tolist() == [[2, 1]]


def test_biases_are_each_others_shrunken_means_at_the_end():
    """At the fixed point every bias is the shrunken mean of what the other side leaves, clicks at their weight."""
    data = tiny([(0, 0, 5), (0, 1, 4), (1, 0, 3), (1, 2, 1), (2, 1, 4, 0.25), (2, 2, 2)], domain=[0, 0, 0])
    found = fit_biases(data, BiasSettings(reg_item=2, reg_user=3, content_prior=False))
    seen = data.interactions
    rest = seen.values - found.mean[0] - found.user[seen.users]
    for item in range(3):
        of = seen.items == item
        expected = (seen.weights * rest)[of].sum() / (seen.weights[of].sum() + 2)
        torch.testing.assert_close(found.item[item], expected, atol=1e-3, rtol=1e-3)
    rest = seen.values - found.mean[0] - found.item[seen.items]
    for user in range(3):
        of = seen.users == user
        expected = (seen.weights * rest)[of].sum() / (seen.weights[of].sum() + 3)
        torch.testing.assert_close(found.user[user], expected, atol=1e-3, rtol=1e-3)


def test_content_moves_items_of_few_ratings_towards_their_like():
    """Two well-rated items with a feature make a new item with it good, and one without it bad."""
    ratings = [(u, i, 5 if i < 2 else 1) for u in range(20) for i in range(4)]
    data = tiny(ratings, domain=[0] * 6, features=torch.tensor([[1.0], [1.0], [-1.0], [-1.0], [1.0], [-1.0]]))
    item = fit_biases(data, BiasSettings(reg_content=1e-3)).item
    assert item[4] > 1.5
    assert item[5] < -1.5
    assert fit_biases(data, BiasSettings(content_prior=False)).item[4] == 0


def test_attributes_are_the_prior_of_users_of_few_ratings():
    ratings = [(u, i, 5 if u % 2 else 1) for u in range(10) for i in range(8)]
    data = tiny(ratings, domain=[0] * 8, n_users=12, attributes=torch.tensor([[-1.0], [1.0]]).repeat(6, 1))
    user = fit_biases(data, BiasSettings(attribute_prior=True, reg_attributes=1e-3)).user
    assert user[10] < -1.5
    assert user[11] > 1.5

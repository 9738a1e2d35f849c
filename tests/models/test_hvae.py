"""HVAE: the algebra of its layers, the likelihoods by hand, and what its settings change."""

from math import exp, log, log1p
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from models.recommender import FitOptions, ItemTable
from models.recommenders.ease import Ease, EaseConfig
from models.recommenders.hvae import Hvae, HvaeConfig
from models.training.ground import base_table
from models.training.hierarchical import Gaussian, Hierarchy
from models.training.likelihoods import Bernoulli, GaussianRatings, Multinomial
from models.training.shallow import ShallowPath
from models.training.validation import Validation
from tests.laws.world import make_world
from tests.models.tiny import tiny

SMALL: dict[str, Any] = {
    "liked_above": 0.5,
    "hidden_size": 12,
    "upper_size": 6,
    "lower_size": 4,
    "epochs": 3,
    "batch_size": 50,
}


def test_divergence_and_density_by_hand():
    standard = Gaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    moved = Gaussian(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, log(4)]]))
    # (1 + 1 - 1 - 0) / 2 of the first, (4 - 1 - log 4) / 2 of the second
    assert float(moved.divergence(standard)) == pytest.approx(0.5 + (3 - log(4)) / 2)
    assert float(moved.divergence(moved)) == pytest.approx(0)
    expected = torch.distributions.Normal(moved.mean, torch.tensor([[1.0, 2.0]])).log_prob(torch.tensor([[0.5, -1.0]]))
    torch.testing.assert_close(moved.log_density(torch.tensor([[0.5, -1.0]])), expected.sum(1))


def test_the_divergence_of_the_hierarchy_is_that_of_its_layers():
    """With q(z_1) independent of z_2 and a standard p(z_1 | z_2), it is the sum of two closed forms."""
    torch.manual_seed(0)
    hierarchy = Hierarchy(2, 5, (3, 2))
    hierarchy.reset_parameters()
    bottleneck, attributes = torch.randn(4, 5), torch.randn(4, 2)
    _, divergence = hierarchy.draw(bottleneck, attributes)
    expected = torch.zeros(4)
    for layer in hierarchy.layers:
        posterior = layer.posterior.gaussian(torch.tanh(bottleneck))
        expected += posterior.divergence(Gaussian(torch.zeros_like(posterior.mean), torch.zeros_like(posterior.mean)))
    torch.testing.assert_close(divergence, expected)


def test_each_layer_has_a_projection_of_the_attributes_of_its_own():
    torch.manual_seed(0)
    hierarchy = Hierarchy(2, 5, (3, 2))
    upper, lower = hierarchy.layers
    assert upper.attributes.weight is not lower.attributes.weight
    with torch.no_grad():
        upper.attributes.weight.zero_()
        lower.above.weight.zero_()
    bottleneck = torch.randn(1, 5)
    one, other = (hierarchy.encode(bottleneck, torch.tensor([row])) for row in ([0.0, 1.0], [1.0, 0.0]))
    assert torch.equal(one[:, :3], other[:, :3])
    assert not torch.equal(one[:, 3:], other[:, 3:])


def test_the_vamp_prior_is_the_mean_of_posteriors_of_its_pseudo_inputs():
    torch.manual_seed(0)
    hierarchy = Hierarchy(0, 5, (3,), n_pseudo_inputs=1)
    hierarchy.reset_parameters()
    bottleneck = hierarchy.pseudo_inputs.detach().expand(4, -1)
    _, divergence = hierarchy.draw(bottleneck, torch.zeros(4, 0))
    torch.testing.assert_close(divergence, torch.zeros(4), atol=1e-5, rtol=0)  # posterior and prior are one


def test_the_multinomial_likelihood_by_hand():
    likelihood = Multinomial(tiny([(0, 0, 5)], domain=[0]).schema, 0.625)
    weights = torch.tensor([[1.0, 0.0, 0.25]])
    loss = likelihood.loss(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.0, 0.0, 2.0]), weights, weights)
    total = exp(1) + 1 + exp(2)
    assert float(loss) == pytest.approx(-(log(exp(1) / total) + 0.25 * log(exp(2) / total)))


def test_the_bernoulli_likelihood_looks_at_so_many_items_that_are_not_liked():
    likelihood = Bernoulli(tiny([(0, 0, 5)], domain=[0]).schema, 0.625, n_negatives=3)
    torch.manual_seed(0)
    weights = torch.zeros(400, 101)
    weights[:, 0] = 1
    loss = likelihood.loss(torch.zeros(400, 101), torch.zeros(101), weights, weights)
    assert float(loss.mean()) == pytest.approx((1 + 3) * log(2), rel=0.05)
    all_others = Bernoulli(tiny([(0, 0, 5)], domain=[0]).schema, 0.625, n_negatives=1000)
    loss = all_others.loss(torch.tensor([[2.0, -1.0]]), torch.zeros(2), torch.eye(1, 2), torch.eye(1, 2))
    assert float(loss) == pytest.approx(log1p(exp(-2)) + log1p(exp(-1)))


def test_gaussian_histories_are_what_biases_leave_and_new_users_are_read_the_same_way():
    data = make_world(2).training
    likelihood = GaussianRatings(data.schema)
    histories = likelihood.histories(data)
    assert histories.weights.nnz == len(data.interactions)
    user = int(data.interactions.users[0])
    rows = data.evidence(torch.tensor([user]))
    table = ItemTable({"bias": histories.bias}, data.items.domain, histories.bias != 0)
    read, own = likelihood.read(rows, table)
    learnt = torch.from_numpy(histories.values[user].toarray()[0])[rows.items[0]]
    torch.testing.assert_close(read[0], learnt, atol=0.02, rtol=0)  # biases of the data are a sweep older
    assert own.shape == (1, 1)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, "preference"),
        ({"likelihood": "bernoulli"}, "preference"),
        ({"likelihood": "gaussian"}, "rating"),
        ({"lower_size": 0, "tied": False, "normalisation": 1.0}, "preference"),
        ({"gated": True, "n_pseudo_inputs": 8}, "preference"),
        ({"shallow": True}, "preference"),
        ({"shallow": True, "n_folds": 1, "likelihood": "bernoulli"}, "preference"),
    ],
)
def test_every_variant_learns(settings: dict[str, Any], kind: str) -> None:
    world = make_world(1)
    hvae = Hvae(HvaeConfig(**{**SMALL, "epochs": 10, "beta": 0.02, **settings}), world.data.schema)
    assert hvae.kind == kind
    assert hvae.role == {"preference": "ranking", "rating": "collaborative"}[kind]
    history = hvae.fit(world.training, FitOptions()).report.history
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_shallow_path_is_ease_and_people_learn_beside_one_that_has_not_met_them() -> None:
    world = make_world(1)
    data, config = world.training, EaseConfig(liked_above=0.5, reg=20.0)
    likes = Ease(config, data.schema).likes
    kept = torch.from_numpy(likes.matrix(data).sum(axis=0)).flatten().nonzero().flatten()
    path = ShallowPath(config, data.schema, n_folds=2)
    columns, beside = path.fit(data, kept, FitOptions())
    users = torch.arange(data.n_users)[torch.bincount(data.interactions.users, minlength=data.n_users) > 0]
    shown = torch.from_numpy(likes.matrix(data)[users.numpy()][:, kept.numpy()].toarray())
    said = beside.scores(users, shown)
    for fold in (0, 1):
        others = data.where(beside.fold_of[data.interactions.users] != fold)
        ease = Ease(config, data.schema)
        table = ease.fit(others, FitOptions()).table
        rows = (beside.fold_of[users] == fold).nonzero().flatten()
        alone = ease.score(ease.adapt(data.evidence(users[rows]), table, 0), table, kept).mean
        torch.testing.assert_close(said[rows], alone, atol=1e-4, rtol=1e-3)
    with torch.no_grad():
        path.slope.fill_(2.0)
        table = ItemTable(columns, data.items.domain, table.trained)
        states = path.adapt(data.evidence(users), table, 0)
        chances = path.ease.score(states, base_table(table)).mean.clamp(min=0)
        torch.testing.assert_close(path.score(states, table, None), 2 * (0.01 + chances).log())


def test_ratings_have_no_shallow_path() -> None:
    with pytest.raises(ValidationError, match="likes, not ratings"):
        HvaeConfig(shallow=True, likelihood="gaussian")


def test_the_epoch_with_the_best_lists_is_kept():
    world = make_world(1)
    validation = Validation.draw(world.data, world.held, seed=0)
    hvae = Hvae(HvaeConfig(**{**SMALL, "epochs": 8}), world.data.schema)
    fitted = hvae.fit(world.training, FitOptions(validation=validation))
    reached = [epoch["ndcg@100"] for epoch in fitted.report.history]
    assert reached[fitted.report.epochs - 1] == max(reached)
    hvae.eval()
    assert validation.measure(hvae, fitted.table)["ndcg@100"] == pytest.approx(max(reached))


def test_what_content_suggests_is_nearer_to_what_was_learnt_of_an_item_than_of_others():
    world = make_world(1)
    hvae = Hvae(HvaeConfig(**SMALL), world.data.schema)
    table = hvae.fit(world.training, FitOptions()).table
    suggested = hvae.embed_items(world.data.items.content, 0)["encoder"][table.trained]
    learnt = table["encoder"][table.trained]
    alike = torch.cosine_similarity(suggested[:, None], learnt[None], dim=2)
    assert alike.diagonal().mean() > alike.mean() + 0.2
    untouched = hvae.embed_items(world.data.items.content.rows((~table.trained).nonzero().flatten()), 0)
    torch.testing.assert_close(table["encoder"][~table.trained], untouched["encoder"])

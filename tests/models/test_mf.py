"""Fold-in, the three penalties, and what content gives items without ratings."""

from itertools import islice

import pytest
import torch
from torch import Tensor

from models.recommender import Evidence, FitOptions, ItemTable
from models.recommenders.mf import Mf, MfConfig
from models.training.biases import BiasSettings, fit_biases
from models.training.factorisation import (
    KtlfPenalty,
    Problem,
    alternating_least_squares,
    fold_in,
    ktlf_descent,
    soft_impute,
    trace_norm,
)
from models.training.validation import Validation
from tests.laws.entries import Entry
from tests.laws.laws import LAWS, fit_case
from tests.laws.world import make_world
from tests.models.tiny import evidence, tiny


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(values: Tensor) -> Problem:
    """A problem in which everybody rated everything and biases are none."""
    n_users, n_items = values.shape
    users, items = torch.meshgrid(torch.arange(n_users), torch.arange(n_items), indexing="ij")
    nothing = torch.zeros(n_items)
    return Problem(
        users.flatten(),
        items.flatten(),
        values.flatten(),
        torch.ones(values.numel()),
        nothing,
        torch.zeros(n_users),
        nothing,
    )


def world_problem() -> Problem:
    data = make_world(1).training
    return Problem.of(data, fit_biases(data, BiasSettings()))


def test_fold_in_is_ridge_regression():
    """At the solution the gradient of the penalised squared error is zero, for each user by itself."""
    x, y, w = normal(4, 9, 3), normal(4, 9, seed=1), normal(4, 9, seed=2).abs()
    penalty = torch.tensor([0.5, 2.0, 3.0])
    folded = fold_in(x, y, w, penalty)
    error = y - (x @ folded[:, :, None])[:, :, 0]
    torch.testing.assert_close((x.mT @ (w * error)[:, :, None])[:, :, 0], penalty * folded, atol=1e-4, rtol=1e-4)


def test_a_half_click_counts_half():
    """Two events of weight one half are one event of weight one."""
    data = tiny([(0, 0, 5), (0, 1, 3), (1, 0, 2), (1, 1, 4)], domain=[0, 0])
    mf = Mf(MfConfig(n_factors=2), data.schema)
    table = mf.fit(data, FitOptions()).table
    once, twice = (mf.adapt(e, table, 0) for e in (evidence((0, 5)), evidence((0, 5, 0.5), (0, 5, 0.5))))
    torch.testing.assert_close(once, twice)


def test_alternating_least_squares_ends_where_the_gradient_is_zero():
    problem, reg, reg_user, reg_item = world_problem(), 3.0, 2.0, 4.0
    sweeps = alternating_least_squares(problem, 2, reg, reg_user, reg_item, torch.Generator().manual_seed(0))
    found = next(islice(sweeps, 400, None))
    item, q, p = (t.double().requires_grad_() for t in (found.item_bias, found.items, found.users))
    user = torch.zeros(len(p), dtype=torch.double)  # the users' biases, solved for
    rest = problem.values - item[problem.items] - (p[problem.users] * q[problem.items]).sum(1)
    n = torch.zeros_like(user).index_add_(0, problem.users, problem.weights.double())
    user = torch.zeros_like(user).index_add_(0, problem.users, problem.weights * rest) / (n + reg_user)
    loss = (problem.weights * (rest - user[problem.users]).square()).sum() + reg_user * user.square().sum()
    loss = loss + reg_item * (item - problem.item_prior).square().sum() + reg * (p.square().sum() + q.square().sum())
    for gradient in torch.autograd.grad(loss, [item, q, p]):
        assert gradient.abs().max() < 1e-3  # of a loss near two thousand, in single precision


def test_trace_penalty_soft_thresholds_singular_values():
    """With nothing missing the answer is known: every singular value less reg, or zero."""
    values = normal(12, 8)
    found = next(islice(soft_impute(whole(values), 8, 1.5, torch.Generator().manual_seed(0)), 300, None))
    left, singular, right = torch.linalg.svd(values, full_matrices=False)
    expected = left * (singular - 1.5).clamp(min=0) @ right
    torch.testing.assert_close(found.users @ found.items.T, expected, atol=1e-3, rtol=1e-3)


def test_folding_in_agrees_with_the_trace_fit():
    """A training user folded in gets the factors of the fit: trace norm and Frobenius norms are the same penalty."""
    values = normal(12, 8)
    found = next(islice(soft_impute(whole(values), 8, 1.5, torch.Generator().manual_seed(0)), 300, None))
    folded = fold_in(found.items.expand(12, -1, -1), values, torch.ones(12, 8), torch.full((8,), 1.5))
    torch.testing.assert_close(folded @ found.items.T, found.users @ found.items.T, atol=1e-3, rtol=1e-3)


def test_trace_norm_is_the_sum_of_singular_values():
    p, q = normal(9, 3), normal(7, 3, seed=1)
    torch.testing.assert_close(trace_norm(p, q), torch.linalg.matrix_norm(p @ q.T, "nuc"))


def test_the_ktlf_penalty_by_hand():
    """|P|^2 = 4, |Q|^2 = 1, |P Q'|_* = 2; the start had trace norm 4 and squared norms 10."""
    penalty = KtlfPenalty(3, 5, trace_target=0.25, user_target=0.1, item_target=0.2)
    found = penalty(torch.tensor([[2.0]]), torch.tensor([[1.0]]), torch.tensor(4.0), torch.tensor(10.0))
    user, item = 0.4, 0.1
    norms = ((user + item - 2 * 0.2) * item + (user + item - 2 * 0.1) * user) / 2
    torch.testing.assert_close(found, torch.tensor(3 * (2 / 4 - 0.25) ** 2 + 5 * norms))


def test_the_ktlf_descent_goes_down():
    problem = world_problem()
    start = next(islice(soft_impute(problem, 3, 4.0, torch.Generator().manual_seed(0)), 5, None))
    penalty = KtlfPenalty(0.1, 0.1, 1.0, 0.5, 0.5)
    trace, norm = trace_norm(start.users, start.items), start.users.square().sum() + start.items.square().sum()

    def loss(p: Tensor, q: Tensor) -> float:
        error = problem.residual() - (p[problem.users] * q[problem.items]).sum(1)
        return float((problem.weights * error.square()).sum() / problem.weights.sum() + penalty(p, q, trace, norm))

    losses = [loss(f.users, f.items) for f in islice(ktlf_descent(problem, start, penalty, 0.01), 5)]
    assert losses[0] < loss(start.users, start.items)
    assert losses == sorted(losses, reverse=True)


def test_items_without_ratings_lean_on_content():
    """An untouched item gets the factors of items with its content, or none where that is switched off."""
    world = make_world(1)
    for content_factors in (True, False):
        mf = Mf(MfConfig(n_factors=3, reg=4, content_factors=content_factors), world.data.schema)
        table = mf.fit(world.training, FitOptions()).table
        untouched = table["factors"][~table.trained]
        assert len(untouched) >= 2
        assert bool((untouched != 0).any()) == content_factors


def test_the_epoch_kept_is_the_best_on_validation():
    world = make_world(1)
    validation = Validation.draw(world.data, world.held, 0)
    mf = Mf(MfConfig(n_factors=8, reg=0.3, epochs=12), world.data.schema)
    fitted = mf.fit(world.training, FitOptions(validation=validation))
    history = [metrics["rmse"] for metrics in fitted.report.history]
    assert history[fitted.report.epochs - 1] == min(history)
    assert validation.measure(mf, fitted.table)["rmse"] == min(history)


def test_state_is_bias_and_factors():
    """The score is the domain's mean and, in its units, both biases and the inner product."""
    data = tiny([(0, 0, 3)], domain=[0, 1])
    mf = Mf(MfConfig(n_factors=2), data.schema)
    mf.mean.copy_(torch.tensor([3.0, 4.0]))
    columns = {"bias": torch.tensor([0.1, 0.2]), "factors": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    table = ItemTable(columns, data.items.domain, torch.ones(2, dtype=torch.bool))
    mean = mf.score(torch.tensor([[0.5, 0.1, -0.2]]), table).mean
    torch.testing.assert_close(mean, torch.tensor([[3 + 0.1 + 0.5 - 0.3, 4 + 2 * (0.2 + 0.5 - 0.5)]]))


def test_nobody_is_folded_into_the_prior():
    world = make_world(1)
    mf = Mf(MfConfig(n_factors=3), world.data.schema)
    table = mf.fit(world.training, FitOptions()).table
    nothing: Evidence = world.evidence(world.held, 0)
    assert torch.equal(mf.adapt(nothing, table, 0), torch.zeros(len(world.held), 4))


@pytest.mark.parametrize("penalty", ["trace", "ktlf"])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_laws_hold_for_the_other_penalties(law, penalty):
    settings = {"n_factors": 3, "reg": 4.0, "penalty": penalty, "attribute_prior": True, "epochs": 10}
    law(fit_case(Entry(settings, uses_attributes=True), Mf, make_world(2)))

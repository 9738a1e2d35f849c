"""What MAML's modes promise beyond the laws."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch.func import functional_call, grad

from models.layers import with_constant
from models.recommender import FitOptions
from models.recommenders.maml import Maml
from models.training.heads import Head
from models.training.inner_loop import Support
from models.training.learners import Everything, Learner, Predictor
from models.training.validation import Validation
from tests.laws.entries import Entry
from tests.laws.laws import LAWS, Case, fit_case
from tests.laws.world import World, make_world

QUICK = {
    "epochs": 2,
    "embedding_size": 6,
    "input_size": 8,
    "tower_sizes": (7,),
    "predictor_sizes": (9, 5),
    "steps": 3,
    "warm_start": False,
}
MODES = [
    {"solver": "ridge"},
    {"solver": "gradient"},
    {"solver": "gradient", "meta_sgd": True, "multi_step_loss": True},
    {"adapt": "predictor"},
    {"adapt": "predictor", "meta_sgd": True},
    {"adapt": "predictor", "first_order": True, "multi_step_loss": True},
    {"adapt": "all"},
    {"adapt": "all", "meta_sgd": True, "first_order": True},
]
ITEM_MODES = [{"task": "item"}, {"task": "item", "solver": "gradient", "meta_sgd": True, "multi_step_loss": True}]


@pytest.fixture(name="world", scope="module")
def _world() -> World:
    return make_world(2)


LAWFUL = [
    {"solver": "gradient"},
    {"adapt": "predictor", "tower_sizes": (16,), "epochs": 20},
    {"task": "item", "tower_sizes": (16,), "epochs": 30},
]


@cache
def _case(mode: int) -> Case:
    settings = {"embedding_size": 8, "batch_size": 16, **LAWFUL[mode]}
    learns_items = settings.get("task") != "item"
    return fit_case(Entry(settings=settings, uses_attributes=True, learns_items=learns_items), Maml, make_world(2))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("mode", range(len(LAWFUL)), ids=lambda mode: str(LAWFUL[mode]))
def test_every_mode_keeps_the_laws(law: Callable[[Case], None], mode: int) -> None:
    law(_case(mode))


def _tasks(learner: Learner, n_attributes: int) -> tuple[Support, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(4, 6, generator=generator)
    weights[1, 2:] = 0
    weights[2] = 0
    support = Support(
        torch.randn(4, 6, learner.row_size, generator=generator), torch.randn(4, 6, generator=generator), weights
    )
    attributes = with_constant(torch.randn(4, n_attributes, generator=generator))
    return support, attributes, torch.randn(4, learner.user_size, generator=generator)


@pytest.mark.parametrize("settings", [*MODES, *ITEM_MODES], ids=str)
def test_every_mode_fits_and_serves_without_gradients(world, settings):
    recommender = Maml(Maml.Config(**QUICK, **settings), world.data.schema)
    table = recommender.fit(world.training, FitOptions()).table
    evidence = world.mixed_evidence()
    with torch.no_grad():
        before = recommender.score(recommender.adapt(evidence.emptied(), table, 0), table).mean
        after = recommender.score(recommender.adapt(evidence, table, 0), table).mean
    assert not after.requires_grad
    changed = ~torch.isclose(before, after).all(dim=1)
    assert torch.equal(changed, evidence.mask.any(dim=1))


@pytest.mark.parametrize("settings", MODES, ids=str)
def test_states_are_the_adapted_weights(world, settings):
    learner = Maml(Maml.Config(**QUICK, **settings), world.data.schema).tasks.learner
    fast = learner.adapt(*_tasks(learner, world.data.schema.user_attributes.width))[-1]
    unpacked = learner.unpack(learner.pack(fast))
    assert [tuple(part.shape[1:]) for part in unpacked] == learner.shapes
    for part, again in zip(fast, unpacked, strict=True):
        assert torch.equal(part.expand_as(again), again)


@pytest.mark.parametrize("settings", [{"adapt": "predictor"}, {"adapt": "predictor", "meta_sgd": True}], ids=str)
def test_the_folded_predictor_is_the_plain_one(world, settings):
    """Adapting the folded network gives the predictions of adapting MLP([u, v]) as it stands, by torch.func."""
    learner = Maml(Maml.Config(**QUICK, **settings), world.data.schema).tasks.learner
    assert isinstance(learner, Predictor)
    with torch.no_grad():
        for rate in learner.rates:
            rate.uniform_(0.05, 0.2)
    support, attributes, shift = _tasks(learner, world.data.schema.user_attributes.width)
    users = learner.user_tower(attributes) + shift
    rows = torch.randn(5, learner.row_size, generator=torch.Generator().manual_seed(1))
    folded = learner.predict(learner.adapt(support, attributes, shift)[-1], rows)
    named = dict(learner.predictor.named_parameters())
    rates = dict(zip(named, learner.rates, strict=True)) if learner.rates else dict.fromkeys(named, 0.1)

    def plain(weights, user, items):
        pairs = torch.cat([user.expand(len(items), -1), items], dim=1)
        return functional_call(learner.predictor, weights, (pairs,)).squeeze(-1)

    def loss(weights, user, items, y, w):
        return (w * (plain(weights, user, items) - y).square()).sum() / (w.sum() + learner.reg)

    for u in range(4):
        weights = named
        for _ in range(learner.steps):
            slopes = grad(loss)(weights, users[u], support.inputs[u], support.targets[u], support.weights[u])
            weights = {name: weights[name] - rates[name] * slopes[name] for name in weights}
        torch.testing.assert_close(folded[u], plain(weights, users[u], rows), rtol=1e-4, atol=1e-5)


def test_adapting_everything_is_plain_gradient_descent(world):
    """Towers and predictor move as they do when each user's own copy is trained by autograd."""
    learner = Maml(Maml.Config(**QUICK, adapt="all"), world.data.schema).tasks.learner
    assert isinstance(learner, Everything)
    support, attributes, shift = _tasks(learner, world.data.schema.user_attributes.width)
    rows = torch.randn(5, learner.row_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        batched = learner.predict(learner.adapt(support, attributes, shift)[-1], rows)
    for u in range(4):
        weights = dict(learner.network.named_parameters())
        for _ in range(learner.steps):
            predicted = functional_call(learner.network, weights, (support.inputs[u], attributes[u], shift[u]))
            w = support.weights[u]
            loss = (w * (predicted - support.targets[u]).square()).sum() / (w.sum() + learner.reg)
            slopes = torch.autograd.grad(loss, list(weights.values()))
            weights = {n: p - 0.1 * g for (n, p), g in zip(weights.items(), slopes, strict=True)}
        alone = functional_call(learner.network, weights, (rows, attributes[u], shift[u]))
        torch.testing.assert_close(batched[u], alone, rtol=1e-4, atol=1e-5)


def test_gradient_steps_on_the_head_approach_its_least_squares(world):
    """What the closed form solves, steps approach: the support error falls with every step."""
    learner = Maml(Maml.Config(**QUICK, solver="gradient", inner_learning_rate=0.05), world.data.schema).tasks.learner
    assert isinstance(learner, Head)
    support, attributes, shift = _tasks(learner, world.data.schema.user_attributes.width)
    errors = [
        (support.weights * (learner.predict(fast, support.inputs) - support.targets).square()).sum()
        for fast in learner.adapt(support, attributes, shift)
    ]
    assert all(later < earlier for earlier, later in pairwise(errors))


def test_uncertainty_shrinks_with_evidence_and_draws_have_it(world):
    recommender = Maml(Maml.Config(**QUICK), world.data.schema)
    table = recommender.fit(world.training, FitOptions()).table
    with torch.no_grad():
        little, much = (recommender.adapt(world.evidence(world.held[:5], size), table, 0) for size in (2, 12))
        unsure, sure = recommender.score(little, table).taste_std, recommender.score(much, table).taste_std
        draws = recommender.sample(little, table, 4000, torch.Generator().manual_seed(0))
    assert unsure is not None
    assert sure is not None
    assert (sure < unsure).all()
    torch.testing.assert_close(draws.std(dim=0), unsure, rtol=0.08, atol=1e-4)


def test_without_uncertainty_the_mean_is_the_same(world):
    states = {}
    for uncertainty in (True, False):
        recommender = Maml(Maml.Config(**QUICK, uncertainty=uncertainty), world.data.schema)
        table = recommender.fit(world.training, FitOptions()).table
        scores = recommender.score(recommender.adapt(world.mixed_evidence(), table, 0), table)
        assert (scores.std is not None) == uncertainty
        states[uncertainty] = scores.mean
    torch.testing.assert_close(states[True], states[False])


def test_a_warm_start_begins_near_the_truth(world):
    """After one epoch, answers are nearer to the truth than those of a start at random."""
    error = {}
    for warm_start in (True, False):
        recommender = Maml(Maml.Config(epochs=1, embedding_size=3, warm_start=warm_start), world.data.schema)
        table = recommender.fit(world.training, FitOptions()).table
        with torch.no_grad():
            mean = recommender.score(recommender.adapt(world.evidence(world.held, 12), table, 0), table).mean
        unseen = world.unseen(0)
        error[warm_start] = (mean - world.truth[world.held])[unseen].square().mean()
    assert error[True] < error[False]


def test_errors_are_as_large_as_expected(world):
    """Squared errors of held-out ratings, each over its own predicted variance, are one in the mean."""
    recommender = Maml(Maml.Config(embedding_size=3), world.data.schema)
    table = recommender.fit(world.training, FitOptions()).table
    ratios = []
    for task in Validation.draw(world.data, world.held, seed=0).tasks:
        with torch.no_grad():
            scores = recommender.score(recommender.adapt(task.support, table, task.domain), table)
        assert scores.std is not None
        error = (scores.mean.gather(1, task.query_items) - task.query_values) / scores.std.gather(1, task.query_items)
        ratios.append(error[task.query_mask].square())
    assert 0.7 < float(torch.cat(ratios).mean()) < 1.4


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ValidationError, match="solver = gradient"):
        Maml.Config(solver="ridge", meta_sgd=True)
    with pytest.raises(ValidationError, match="items adapt their head"):
        Maml.Config(task="item", adapt="predictor")

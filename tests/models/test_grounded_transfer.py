"""Transfer networks on a ground: their parts, by hand, and what they carry over on a world with known truth."""

from dataclasses import replace

import pytest
import torch

from models.recommender import FitOptions, Recommender
from models.recommenders.adversarial import Adversarial
from models.recommenders.bayes import Bayes
from models.recommenders.cross_gnn import CrossGnn, CrossGnnConfig, Edges, Propagation
from models.recommenders.no_overlap import NoOverlap
from models.recommenders.two_tower import TwoTower
from models.training.alignment import domain_loss
from models.training.domains import Direction, hide_identities, overlapping_users, without
from models.training.grounded_transfer import GroundedTransfer, Known
from models.training.habits import HABITS
from tests.laws.world import World, make_world
from tests.models.tiny import evidence

FORTH = Direction(0, 1)
SMALL = {"embedding_size": 8, "epochs": 4, "batch_size": 25, "learning_rate": 3e-3}
KINDS: list[type[GroundedTransfer]] = [Adversarial, TwoTower, NoOverlap, CrossGnn]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(2)


def made(kind: type[GroundedTransfer], world: World, **settings: object) -> GroundedTransfer:
    return kind(kind.Config.model_validate(SMALL | settings), world.data.schema)


def known(opinions: list[float], in_target: list[bool], rows: torch.Tensor) -> Known:
    support = evidence(*[(i, 3.0) for i in range(len(opinions))])
    habits = torch.arange(3.0 * HABITS).view(1, 3, HABITS)
    return Known(support, rows[None], torch.tensor([opinions]), torch.tensor([in_target]), habits)


def loss(world: World, recommender: Recommender, hidden: bool) -> float:
    """RMSE to the truth about books for 60 people with a history of films; everybody else is two people if `hidden`."""
    users = overlapping_users(world.data, FORTH)
    training = without(world.data, users[:60], FORTH.target)
    if hidden:
        training = hide_identities(training, users[60:], FORTH.target)
    table = recommender.fit(training, FitOptions()).table
    recommender.eval().requires_grad_(False)
    mean = recommender.score(recommender.adapt(training.evidence(users[:60]), table, 1), table).mean
    return float((mean - world.truth[users[:60]])[:, world.data.items.domain == 1].square().mean().sqrt())


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_of_films_tells_more_of_what_somebody_thinks_of_books_than_how_generous_they_are(
    world: World, kind: type[GroundedTransfer]
) -> None:
    biases = Bayes(Bayes.Config(n_factors=0), world.data.schema)
    assert loss(world, made(kind, world), hidden=False) < loss(world, biases, hidden=False)


def test_people_are_told_from_their_histories_where_nobody_is_known_in_both(world: World) -> None:
    biases = Bayes(Bayes.Config(n_factors=0), world.data.schema)
    assert loss(world, made(NoOverlap, world, epochs=10), hidden=True) < loss(world, biases, hidden=True)


def test_known_within_a_domain_is_that_domain_alone_and_turning_changes_the_domains() -> None:
    both = known([0.5, -1.0, 2.0], [False, True, False], torch.eye(3))
    assert both.within(target=True).weights.tolist() == [[0.0, 1.0, 0.0]]
    assert both.within(target=False).pooled(both.rows, 2.0).tolist() == [[0.25, 0.0, 0.25]]
    assert torch.equal(both.within(target=True).habits[:, 0], both.habits[:, 2])
    assert not both.within(target=True).habits[:, 1].any()
    assert torch.equal(both.turned().within(target=True).weights, both.within(target=False).weights)
    assert torch.equal(both.turned().habits[:, 1], both.habits[:, 2])


def test_before_training_taste_is_the_shrunken_sum_of_opinions_in_all_but_the_graph(world: World) -> None:
    """s sum_j e_j x_j / (n + s) on the half of the rows that is made of opinions; two towers shrink each domain."""
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    one = known([0.5, -1.0, 2.0], [False, False, False], rows)
    one = replace(
        one, evidence=replace(one.evidence, attributes=torch.zeros(1, world.data.schema.user_attributes.width))
    )
    expected = 25 * (0.5 * rows[0] - rows[1] + 2 * rows[2]) / 28
    for kind in (Adversarial, TwoTower, NoOverlap):
        recommender = made(kind, world).eval()
        recommender.begin()
        torch.testing.assert_close(recommender.encode(one)[0, 4:], expected[4:])


GRAPH = Edges(
    people=torch.tensor([0, 0, 1]),
    items=torch.tensor([0, 1, 1]),
    opinions=torch.tensor([1.0, -2.0, 3.0]),
    n_people=2,
    degrees=torch.tensor([1.0, 2.0]),
)
"""Two people, two items; the first person rated both."""


@pytest.mark.parametrize(
    ("variant", "first"),
    [
        ("lightgcn", 1 / (6 * 5) ** 0.5 * 1 - 2 / (6 * 6) ** 0.5 * 10),
        ("gcn", 0.8 * (1 / (6 * 5) ** 0.5 * 1 - 2 / (6 * 6) ** 0.5 * 10)),  # below zero, behind the leak
        ("sage", (1 - 20) / 6),
        ("gat", (2 / 6) * (0.5 * 1 - 0.5 * 20)),  # attention begins even
    ],
)
def test_what_flows_to_a_person_by_hand(variant: str, first: float) -> None:
    """Items at 1 and 10, shrinkage 4: the first person has degree 2, the items 1 and 2."""
    config = CrossGnnConfig.model_validate({"variant": variant, "embedding_size": 2, "shrinkage": 4.0})
    propagation = Propagation(config)
    propagation.reset_parameters()
    flow = propagation(GRAPH, torch.tensor([[1.0, 0.0], [10.0, 0.0]]), torch.zeros(2, 2))
    torch.testing.assert_close(flow[0], torch.tensor([first, 0.0]))


def test_a_graph_without_some_people_has_the_others_edges_and_turned_it_goes_from_people_to_items() -> None:
    rest = GRAPH.without(torch.tensor([0]))
    assert rest.items.tolist() == [1]
    back = GRAPH.turned()
    assert (back.n_people, back.degrees.tolist()) == (2, [2.0, 1.0])
    assert back.to_people(back.opinions).tolist() == [1.0, 1.0]


def test_what_flows_to_somebody_does_not_depend_on_the_order_of_the_evidence(world: World) -> None:
    recommender = made(CrossGnn, world, epochs=1)
    table = recommender.fit(world.training, FitOptions()).table
    recommender.eval().requires_grad_(False)
    one = world.evidence(world.held[:1], 5)
    state = recommender.adapt(one, table, 1)
    order = torch.randperm(one.items.shape[1], generator=torch.Generator().manual_seed(0))
    parts = {n: v[:, order] for n, v in vars(one).items() if n != "attributes"}
    torch.testing.assert_close(recommender.adapt(type(one)(**parts, attributes=one.attributes), table, 1), state)


def test_a_discriminator_learns_to_tell_and_what_is_before_it_learns_the_opposite() -> None:
    weight = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(weight.weight, -1.0)
    source, target = torch.tensor([[1.0]], requires_grad=True), torch.tensor([[-1.0]], requires_grad=True)
    torch.autograd.backward(domain_loss(weight, source, target, done=1.0))
    assert source.grad is not None
    assert weight.weight.grad is not None
    assert weight.weight.grad.item() > 0  # descent makes the weight more negative: it tells them better
    assert source.grad.item() > 0  # descent moves the source towards the target
    nothing = domain_loss(weight, source[:0], target, done=1.0)
    assert nothing.item() == 0


def test_fine_tuning_leaves_all_but_the_chosen_layers_as_they_are(world: World) -> None:
    plain = made(Adversarial, world, epochs=1, fine_tuning=0)
    tuned = made(Adversarial, world, epochs=1, fine_tuning=2, fine_tuned=["predictor"])
    for recommender in (plain, tuned):
        recommender.fit(world.training, FitOptions())
    before, after = plain.state_dict(), tuned.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"predictor.weight"}


def test_the_source_model_teaches_only_where_it_was_trained(world: World) -> None:
    """Without a first stage there is nobody to learn from, and mu is idle."""
    tables = [
        made(NoOverlap, world, epochs=2, pretraining=0, distillation_weight=mu).fit(world.training, FitOptions()).table
        for mu in (0.0, 1.0)
    ]
    assert torch.equal(tables[0]["place"], tables[1]["place"])

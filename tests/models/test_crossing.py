"""Crossings and the transfers made of them: profiles and losses by hand, and what is carried over on a known world."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.layers import Correction, PairEncoder, with_constant
from models.recommender import FitOptions
from models.recommenders.feature_transfer import FeatureTransfer
from models.recommenders.instance_transfer import InstanceTransfer, log_density_ratio
from models.recommenders.mf import Mf
from models.recommenders.parameter_transfer import ParameterTransfer
from models.recommenders.relation_transfer import RelationTransfer
from models.recommenders.shared import Shared
from models.registry import RECOMMENDERS
from models.training.crossing import Course, Crossing, Meeting
from models.training.domains import Direction, evidence_in, overlapping_users, without
from models.training.habits import HABITS
from models.training.profiles import History
from tests.laws.world import World, make_world
from tests.models.tiny import evidence, tiny

FORTH = Direction(0, 1)
NETWORKS = ("shared", "feature_transfer", "relation_transfer", "parameter_transfer")
SMALL = {"embedding_size": 8, "epochs": 8, "batch_size": 16}


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(2)


def cold(world: World) -> tuple[Dataset, Tensor]:
    """The data without what 60 people did with books, and those people."""
    users = overlapping_users(world.data, FORTH)[:60]
    return without(world.data, users, FORTH.target), users


def history() -> History:
    """One user: films with rows (1, 0) and (0, 2) rated 1 and 3 above what anyone is told, a book rated 1 below."""
    rows = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]]])
    surprise = torch.tensor([[1.0, 3.0, -1.0]])
    known = evidence((0, 4.0), (1, 5.0), (2, 2.0))
    there = torch.tensor([[False, False, True]])
    return History(known, rows, there, surprise + 0.5, surprise, surprise - 0.5, torch.zeros(1, 3))


def test_a_profile_is_of_one_domain_and_shrunken_by_five_ratings() -> None:
    """Films: 2 + 5 ratings' worth; level (1 + 3) / 7. Habits: level .5 above the surprise."""
    source, target = history().profiles()[0]
    assert source.shape == (3 * 2 + HABITS,)
    level = 4 / 7
    residuals = [0.5 / 7, 2.5 * 2 / 7]
    own = [(1 - level) / 7, (3 - level) * 2 / 7]
    choices = [1 / 7, 2 / 7]
    torch.testing.assert_close(source[:6], torch.tensor([*residuals, *own, *choices]))
    torch.testing.assert_close(source[6:8], torch.tensor([5 / 7, 4 / 7]))  # level and generosity
    torch.testing.assert_close(target[:2], torch.tensor([-1.5 * 4 / 6, -1.5 * 4 / 6]))


def test_the_profile_of_a_domain_in_which_nothing_is_known_is_nothing() -> None:
    alone = replace(history(), in_target=torch.zeros(1, 3, dtype=torch.bool))
    assert alone.profiles()[0, 1].abs().max() == 0


def test_pairs_know_products_of_users_and_items() -> None:
    """relu(W [u; v; u * K v] + b), spelt out."""
    encoder = PairEncoder(2, 3, 4)
    users, items = torch.randn(5, 2), torch.randn(7, 3)
    found = encoder(users, items)
    product = users[:, None] * encoder.keys(items)  # (B, Q, U)
    expected = (encoder.user(users)[:, None] + encoder.item(items) + encoder.product(product)).relu()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(encoder(users, items.expand(5, 7, 3)), expected)


def build(name: str, data: Dataset, **settings: object) -> Crossing:
    kind = RECOMMENDERS[name]
    recommender = kind(kind.Config.model_validate({**SMALL, **settings}), data.schema)
    assert isinstance(recommender, Crossing)
    return recommender


@pytest.mark.parametrize("name", NETWORKS)
def test_before_it_is_trained_a_network_says_what_its_base_says(world: World, name: str) -> None:
    crossing = build(name, world.training)
    course = Course(crossing, world.training, FitOptions())
    table, known = course.item_table(), world.evidence(world.held, 4)
    mean = crossing.score(crossing.adapt(known, table, 1), table).mean
    base = crossing.ground.base
    torch.testing.assert_close(mean, base.score(base.adapt(known, course.table, 1), course.table).mean)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_history_of_films_tells_more_of_books_than_biases_do(world: World, name: str) -> None:
    """The base is the network's own, which sees the same history."""
    training, users = cold(world)
    crossing = build(name, world.data, epochs=20, learning_rate=5e-3)
    table = crossing.fit(training, FitOptions()).table
    crossing.eval().requires_grad_(False)
    known = training.evidence(users)
    states = crossing.adapt(known, table, 1)
    books = world.data.items.domain == 1
    own, truth = crossing.score(states, table).mean[:, books], world.truth[users][:, books]
    moves = crossing.deviation(states[:, crossing.ground.state_size :], table, slice(None))[:, books]
    base = own - crossing.ground.unit[1] * moves
    assert (own - truth).square().mean() < 0.98 * (base - truth).square().mean()


def meeting(crossing: Crossing) -> Meeting:
    """Two films and a book are asked of one user, who is known by nothing."""
    nobody = replace(
        history(),
        evidence=evidence(),
        **{
            name: tensor[:, :0]
            for name, tensor in vars(history()).items()
            if isinstance(tensor, Tensor) and name != "rows"
        },
        rows=torch.zeros(1, 0, crossing.config.embedding_size),
    )
    rows = torch.randn(1, 3, crossing.config.embedding_size, generator=torch.Generator().manual_seed(0))
    return Meeting(
        nobody,
        rows,
        torch.tensor([[False, False, True]]),
        torch.tensor([[1.0, 2.0, 3.0]]),
        torch.tensor([[1.0, 0.5, 1.0]]),
    )


def two_domains() -> Dataset:
    return tiny([(u, i, 3.0 + (u + i) % 3) for u in range(6) for i in range(6)], domain=[0, 0, 0, 1, 1, 1])


def test_the_loss_weighs_the_domains_by_alpha() -> None:
    """Networks that say nothing err by the values: (1 + .5 * 4) / 1.5 in the source, 9 in the target."""
    crossing = build("shared", two_domains())
    course = Course(crossing, two_domains(), FitOptions())
    for alpha in (0.0, 0.3, 1.0):
        expected = alpha * (1 + 0.5 * 4) / 1.5 + (1 - alpha) * 9
        assert course.loss(meeting(crossing), alpha).item() == pytest.approx(expected, rel=1e-5)


def test_shared_and_own_codes_are_kept_apart_by_how_much_they_are_alike() -> None:
    """|S' T|² / (H M)² of each domain, spelt out."""
    crossing = build("feature_transfer", two_domains(), orthogonality=2.0)
    assert isinstance(crossing, FeatureTransfer)
    assert crossing.shared is not None
    asked, users = meeting(crossing), torch.randn(1, crossing.config.user_size)
    shared = crossing.shared(users, asked.rows)[0]  # (3, H)
    films = shared[:2].T @ crossing.source(users, asked.rows)[0, :2] / 2
    books = shared[2:].T @ crossing.target(users, asked.rows)[0, 2:]
    expected = 2.0 * (films.square().mean() + books.square().mean())
    torch.testing.assert_close(crossing.penalty(users, asked), expected)


def test_relations_are_carried_over_to_the_target_alone_and_unchanged_at_first() -> None:
    crossing = build("relation_transfer", two_domains())
    assert isinstance(crossing, RelationTransfer)
    assert crossing.carried is not None
    torch.nn.init.normal_(crossing.predictor.linears()[-1].weight)
    users, rows = torch.randn(4, crossing.config.user_size), torch.randn(2, crossing.config.embedding_size)
    films, books = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    torch.testing.assert_close(crossing.predict(users, rows, films), crossing.predict(users, rows, books))
    torch.nn.init.ones_(crossing.carried.linears()[-1].bias)
    relation = crossing.relation(users, rows)
    torch.testing.assert_close(crossing.predict(users, rows, films), crossing.predictor(relation).squeeze(-1))
    torch.testing.assert_close(crossing.predict(users, rows, books), crossing.predictor(relation + 1).squeeze(-1))


def test_without_transfer_a_relation_knows_nothing_of_the_source(world: World) -> None:
    crossing = build("relation_transfer", world.data, is_transfer=False, epochs=3)
    table = crossing.fit(world.training, FitOptions()).table
    known, size = world.evidence(world.held, 6), crossing.ground.state_size
    films, nothing = evidence_in(known, table, 0), known.emptied()
    torch.testing.assert_close(crossing.adapt(films, table, 1)[:, size:], crossing.adapt(nothing, table, 1)[:, size:])
    whole = build("relation_transfer", world.data, epochs=3)
    table = whole.fit(world.training, FitOptions()).table
    difference = whole.adapt(films, table, 1)[:, size:] - whole.adapt(nothing, table, 1)[:, size:]
    assert difference.abs().max() > 1e-3


def test_frozen_layers_are_those_that_the_source_has_taught(world: World) -> None:
    """Taught by the source alone, the layers are the same whether the target fine-tunes the others or not."""
    taught: list[ParameterTransfer] = []
    for epochs in (2, 4):
        crossing = build("parameter_transfer", world.data, frozen=["users", "pairs"], epochs=2, target_share=epochs / 4)
        assert isinstance(crossing, ParameterTransfer)
        crossing.fit(world.training, FitOptions())
        taught.append(crossing)
    half, whole = taught
    for name in ("users", "pairs"):
        for a, b in zip(half.layers[name].parameters(), whole.layers[name].parameters(), strict=True):
            assert torch.equal(a, b)
            assert not a.requires_grad
    tuned = zip(half.layers["predictor"].parameters(), whole.layers["predictor"].parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in tuned)


def test_the_embedding_of_a_twin_is_what_a_target_item_begins_with() -> None:
    data = two_domains()
    data = replace(data, items=replace(data.items, same_as={0: 3, 3: 0}))
    begun = []
    for carry in (False, True):
        crossing = build("parameter_transfer", data, carry_items=carry, epochs=1, warm_learning_rate=1e-9)
        begun.append(crossing.fit(data, FitOptions()).table["row"])
    plain, carried = begun
    content = plain[3] - plain[0]
    assert not torch.allclose(carried[3], plain[3], atol=1e-4)
    torch.testing.assert_close(plain[[0, 1, 2, 4, 5]], carried[[0, 1, 2, 4, 5]], atol=1e-5, rtol=0)
    assert content.abs().max() > 1e-4


def test_corrections_say_nothing_at_first() -> None:
    assert Correction([3, 4, 2])(torch.randn(5, 3)).abs().max() == 0


def test_the_density_ratio_of_two_normal_distributions_is_linear_in_its_logarithm() -> None:
    """N(1, 1) over N(0, 1): log ratio x - 1/2."""
    generator = torch.Generator().manual_seed(0)
    target, source = torch.randn(4000, generator=generator) + 1, torch.randn(4000, generator=generator)
    x = torch.cat([target, source])[:, None]
    found = log_density_ratio(x, torch.ones(8000), torch.arange(8000) < 4000, reg=1e-6)
    torch.testing.assert_close(found, torch.tensor([-0.5, 1.0]), atol=0.08, rtol=0)
    often = torch.where(torch.arange(8000) < 4000, 7.0, 1.0)  # how much there is of a domain tells nothing
    torch.testing.assert_close(
        log_density_ratio(x, often, torch.arange(8000) < 4000, reg=1e-6), found, atol=1e-3, rtol=0
    )
    assert log_density_ratio(x, often, torch.zeros(8000, dtype=torch.bool), reg=1e-6).abs().max() == 0


def test_unweighed_instances_are_plain_factorisation(world: World) -> None:
    data, settings = world.training, {"n_factors": 3, "reg": 5.0, "epochs": 4}
    config = InstanceTransfer.Config.model_validate(settings | {"reweight": False, "rounds": 1})
    weighed = InstanceTransfer(config, data.schema).fit(data, FitOptions()).table
    plain = Mf(Mf.Config.model_validate(settings), data.schema).fit(data, FitOptions()).table
    assert (weighed["worth"] == 1).all()
    torch.testing.assert_close(weighed["factors"], plain["factors"])


def test_rounds_take_weight_from_source_items_only_and_most_from_the_worst() -> None:
    """Film 0 is rated at random; the other films, and books, as each user always rates."""
    generator = torch.Generator().manual_seed(0)
    events = []
    for user in range(60):
        level = 2.0 + 2.0 * (user % 2)
        events.append((user, 0, float(torch.randint(1, 6, (1,), generator=generator))))
        events += [(user, item, level) for item in range(1, 5)] + [(user, item, 2 * level - 2) for item in range(5, 9)]
    data = tiny(events, domain=[0] * 5 + [1] * 4)

    class Third:
        """Likes the last round best."""

        calls = 0

        def measure(self, recommender: object, table: object) -> dict[str, float]:
            self.calls += 1
            return {"rmse": 1 / self.calls}

    config = InstanceTransfer.Config(n_factors=1, epochs=3, reweight=False, rounds=2)
    recommender = InstanceTransfer(config, data.schema)
    worth = recommender.fit(data, FitOptions(validation=Third())).table["worth"]  # type: ignore[arg-type]
    assert (worth[5:] == 1).all()
    assert worth[0] < worth[1:5].min() < 1


def test_what_a_rating_is_worth_counts_when_people_are_folded_in() -> None:
    data = two_domains()
    recommender = InstanceTransfer(InstanceTransfer.Config(n_factors=1, epochs=2, rounds=1), data.schema)
    table = recommender.fit(data, FitOptions()).table
    worthless = replace(table, columns=table.columns | {"worth": 1e-6 * torch.ones(6)})
    known = evidence((0, 5.0), (1, 5.0))
    assert recommender.adapt(known, worthless, 1).abs().max() < 1e-3 < recommender.adapt(known, table, 1).abs().max()


def test_the_joint_predictor_is_one_for_both_domains() -> None:
    crossing = build("shared", two_domains())
    assert isinstance(crossing, Shared)
    torch.nn.init.normal_(crossing.predictor.linears()[-1].weight)
    users, rows = torch.randn(3, crossing.config.user_size), torch.randn(2, crossing.config.embedding_size)
    films = crossing.predict(users, rows, torch.zeros(2, dtype=torch.bool))
    assert torch.equal(films, crossing.predict(users, rows, torch.ones(2, dtype=torch.bool)))


def test_attributes_have_a_say_where_nothing_is_known() -> None:
    crossing = build("shared", two_domains())
    assert isinstance(crossing, Shared)
    profiles = torch.zeros(1, 2, crossing.scale.shape[1])
    constant = crossing.embeddings.attributes(with_constant(torch.zeros(1, 0)))
    torch.testing.assert_close(crossing.embed_users(profiles, torch.zeros(1, 0)), crossing.user_projection(constant))

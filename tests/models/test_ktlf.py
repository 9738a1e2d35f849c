"""KTLF: what each of its steps is to do, by hand and on a world with known truth."""

from dataclasses import replace

import pytest
import torch

from models.recommender import FitOptions
from models.recommenders.bayes_transfer import BayesTransfer, BayesTransferConfig
from models.recommenders.ktlf import Ktlf, KtlfConfig
from models.training.actions import Actions, MeanPooling
from models.training.adversarial_autoencoder import AdversarialAutoencoder
from models.training.anchors import anchored_map, expected_opinions
from models.training.domains import Direction, evidence_in, hide_identities, only, overlapping_users, without
from models.training.latent_transfer import LatentTransfer, Shape
from models.training.sequence_decoder import (
    NearestItems,
    SequenceDecoder,
    free_running,
    reconstruction_error,
    scheduled,
)
from models.training.unpaired import batches_of, split_history
from tests.laws.world import World, make_world

FORTH = Direction(0, 1)
SMALL = {"n_factors": 3, "iterations": 20, "rank": 3, "length": 12, "hidden_size": 8, "n_steps": 4, "batch_size": 64}


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(2)


def ktlf(world: World, **settings: object) -> Ktlf:
    return Ktlf(KtlfConfig.model_validate(SMALL | settings), world.data.schema)


def loss(recommender: BayesTransfer, world: World, alone: bool = False) -> float:
    """Error against the truth of 60 people in books, where nothing is known of them; `alone`: nor in films."""
    users = overlapping_users(world.data, FORTH)[:60]
    training = without(world.data, users, FORTH.target)
    table = recommender.fit(training, FitOptions()).table
    recommender.eval().requires_grad_(False)
    evidence = training.evidence(users)
    mean = recommender.means(recommender.adapt(evidence.emptied() if alone else evidence, table, 1), table)
    return float((mean - world.truth[users])[:, world.data.items.domain == 1].square().mean().sqrt())


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_history_elsewhere_tells_of_newcomers_though_nobody_is_known_in_both(world: World, epochs: int) -> None:
    hidden = BayesTransfer(BayesTransferConfig(n_factors=3, iterations=20), world.data.schema)
    assert loss(ktlf(world, paired_weight=0, epochs=epochs), world) < 0.95 * loss(hidden, world, alone=True)


def test_people_who_are_in_both_tell_more(world: World) -> None:
    assert loss(ktlf(world, epochs=0), world) < loss(ktlf(world, paired_weight=0, epochs=0), world)


def test_without_training_and_low_rank_it_is_the_bayesian_transfer(world: World) -> None:
    """What a linear map tells, at full rank, is what the factor model of the target was told."""
    plain = BayesTransfer(BayesTransferConfig(n_factors=3, iterations=20), world.data.schema)
    carried = ktlf(world, epochs=0, use_low_rank=False)
    means = []
    for recommender in (plain, carried):
        table = recommender.fit(world.training, FitOptions()).table
        films = evidence_in(world.evidence(world.held, 12), table, 0)
        means.append(recommender.means(recommender.adapt(films, table, 1), table))
    torch.testing.assert_close(means[1], means[0], atol=2e-3, rtol=0)


def test_unpaired_fits_do_not_see_who_is_who(world: World) -> None:
    """Hiding the identities of everybody beforehand changes nothing."""
    data = world.training
    hidden = hide_identities(data, overlapping_users(data, FORTH), FORTH.target)
    first, second = (ktlf(world, paired_weight=0, epochs=1) for _ in range(2))
    tables = [r.fit(d, FitOptions()).table for r, d in ((first, data), (second, hidden))]
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert all(torch.equal(tables[0][name], tables[1][name]) for name in tables[0].columns)


def test_nobody_is_moved_further_than_the_bounds(world: World) -> None:
    """However long training lasts: three moves of a bound each, two of them in units of the codes."""
    moved = []
    for epochs in (0, 3):
        recommender = ktlf(world, paired_weight=0, epochs=epochs, bound=0.05, learning_rate=0.1, adversary_weight=10)
        table = recommender.fit(world.training, FitOptions()).table
        films = evidence_in(world.evidence(world.held, 8), table, 0)
        size = recommender.target.size
        moved.append(recommender.adapt(films, table, 1)[:, recommender.source.state_size :][:, :size])
    up = recommender.network.up.abs().sum(1)
    assert not torch.allclose(moved[1], moved[0], atol=1e-4)
    assert ((moved[1] - moved[0]).abs() <= 0.05 * (2 * up + 1) + 1e-4).all()


def test_without_a_history_in_the_source_nothing_is_told(world: World) -> None:
    recommender = ktlf(world, epochs=1)
    table = recommender.fit(world.training, FitOptions()).table
    books = evidence_in(world.evidence(world.held, 5), table, 1)
    _, told = recommender._encoding(books, table)
    assert torch.equal(told, torch.zeros_like(told))
    here = recommender._adapt_target(books, table)
    torch.testing.assert_close(recommender.adapt(books, table, 1)[:, recommender.source.state_size :], here)


def test_sequences_that_are_generated_lie_in_the_target_and_name_nothing_twice(world: World) -> None:
    recommender = ktlf(world, epochs=1)
    table = recommender.fit(world.training, FitOptions()).table
    films = evidence_in(world.evidence(world.held, 5), table, 0)
    told = recommender.generate(films, table, 6)
    assert told.shape == (len(world.held), 6)
    assert (table.domain[told] == 1).all()
    assert all(len(set(row)) == 6 for row in told.tolist())
    with pytest.raises(ValueError, match="there are"):
        recommender.generate(films, table, len(table))


@pytest.mark.parametrize("left_out", ["use_autoencoder", "use_lstm", "use_low_rank", "use_decoder"])
def test_each_step_can_be_left_out(world: World, left_out: str) -> None:
    recommender = ktlf(world, epochs=1, **{left_out: False})
    table = recommender.fit(world.training, FitOptions()).table
    assert recommender.means(recommender.adapt(world.evidence(world.held, 3), table, 1), table).isfinite().all()


def test_the_anchored_map_makes_expected_opinions_alike() -> None:
    """Who likes old films there likes them here, though the two catalogues' factors point another way."""
    there = expected_opinions(torch.tensor([[0.4, 0.0], [0.1, 2.0]]), torch.tensor(1.0))
    assert there.tolist() == [[1.0, 0.0], [0.0, 2.0]]  # the bias of items is everybody's
    here = expected_opinions(torch.tensor([[0.0, 0.0], [0.0, -4.0]]), torch.tensor(0.5))
    features = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    found = anchored_map(there, here, features, torch.tensor([3.0, 3.0]), reg=0.0)
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.0], [0.0, -0.5]]))
    drawn = anchored_map(there, here, features, torch.tensor([3.0, 3.0]), reg=0.25)
    torch.testing.assert_close(drawn, torch.tensor([[1.0, 0.0], [0.0, -8 / 16.25]]))


@pytest.mark.parametrize(("counts", "kept", "stretch"), [((1.0, 1.0), 0, 3.0), ((1.0, 16.0), 1, 1.0)])
def test_the_shared_space_is_the_best_of_its_rank(counts: tuple[float, float], kept: int, stretch: float) -> None:
    """Of a map that stretches one direction by three and another by one, rank one keeps the first, unless ratings go by
    the second far more."""
    shape = Shape(2, 0, 4, 2, 1, 4, 0.1, use_lstm=True, use_autoencoder=True, use_decoder=True)
    network = LatentTransfer(shape)
    told = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    network.start(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), told, torch.diag(torch.tensor(counts)))
    codes = network.encode(told, told[:, :0], torch.zeros(4, 0, 4), torch.zeros(4, dtype=torch.long))
    assert codes.shape == (4, 1)
    torch.testing.assert_close(codes.abs(), torch.ones(4, 1), atol=1e-5, rtol=0)  # unit variance
    torch.testing.assert_close(network(codes, 3)[:, kept], stretch * told[:, kept], atol=1e-5, rtol=0)
    torch.testing.assert_close(network(codes, 3)[:, 1 - kept], torch.zeros(4), atol=1e-5, rtol=0)


def test_actions_are_read_from_the_newest_on_with_what_they_were(world: World) -> None:
    evidence = world.evidence(world.held[:3], 6)
    expected = torch.full_like(evidence.values, 3.0)
    actions = Actions.of(evidence, expected, torch.full_like(expected, 2.0), len(world.data.schema.kinds), last=4)
    assert actions.counts.tolist() == [4, 4, 4]
    last = evidence.mask.sum(1) - 1
    newest = evidence.values.gather(1, last[:, None])[:, 0]
    torch.testing.assert_close(actions.opinions[:, 3], (newest - 3) / 2)
    embedded = actions.embedded(torch.ones(world.data.n_items, 2))
    assert embedded.shape == (3, 4, Actions.width(2, len(world.data.schema.kinds)))
    torch.testing.assert_close(embedded[..., 2:4], actions.opinions[..., None].expand(-1, -1, 2))


def test_pooled_actions_have_no_order() -> None:
    pooling = MeanPooling(0, 3, 5, 2)
    torch.nn.init.normal_(pooling.out.weight)
    inputs = torch.randn(2, 4, 3)
    whole, turned = pooling(inputs[:, 0, :0], inputs), pooling(inputs[:, 0, :0], inputs.flip(1))
    torch.testing.assert_close(whole[:, -1], turned[:, -1])
    assert not torch.allclose(whole[:, 1], turned[:, 1])


def test_teachers_show_the_truth_as_often_as_they_are_told_to() -> None:
    decoder, codes, truth = SequenceDecoder(2, 3, 4), torch.randn(5, 2), torch.randn(5, 6, 3)
    generator = torch.Generator().manual_seed(0)
    free = decoder(codes, 6).steps
    torch.testing.assert_close(decoder(codes, 6, scheduled(truth, 0.0, generator)).steps, free)
    forced = decoder(codes, 6, scheduled(truth, 1.0, generator)).steps
    torch.testing.assert_close(forced[:, 0], free[:, 0])  # the first step has nothing before it
    assert not torch.allclose(forced[:, 1:], free[:, 1:])
    torch.testing.assert_close(decoder(codes, 2, free_running).steps, free[:, :2])


def test_reconstruction_counts_what_was_there() -> None:
    said, truth = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 3.0], [9.0, 9.0]]])
    assert reconstruction_error(said, truth, torch.tensor([[True, False]])).item() == 5.0
    assert reconstruction_error(said, truth, torch.tensor([[False, False]])).item() == 0.0


def test_the_nearest_item_that_was_not_named_yet_stands_for_what_was_said() -> None:
    nearest = NearestItems(torch.tensor([[0.0], [1.0], [5.0]]), 1)
    said = torch.tensor([[0.9, 0.3]])
    stands = [nearest(step, said).tolist() for step in range(3)]
    assert torch.cat(nearest.chosen).tolist() == [1, 0, 2]
    torch.testing.assert_close(torch.tensor(stands[0]), torch.tensor([[1.0, 0.3]]))


def test_the_autoencoder_begins_as_the_identity_and_its_adversary_makes_codes_alike() -> None:
    """Codes that lie to one side of the others are moved towards them, and the others stay."""
    torch.manual_seed(0)
    autoencoder = AdversarialAutoencoder(1, 2, 0, 16, bound=2.0)
    autoencoder.reset_parameters()
    codes, others = torch.randn(64, 1) - 1.0, torch.randn(64, 1)
    assert torch.equal(autoencoder(codes), codes)
    autoencoder.leave_open(codes, 2 * others)
    assert autoencoder.open.item() == pytest.approx(((2 * others).var() - codes.var()).sqrt().item(), rel=1e-5)
    autoencoder.leave_open(others, others)
    generator, optimizer = torch.Generator().manual_seed(0), torch.optim.Adam(autoencoder.parameters(), lr=0.02)
    for _ in range(80):
        nothing = codes[:, :0]
        optimizer.zero_grad()
        torch.autograd.backward(
            autoencoder.adversarial_loss(autoencoder(codes), nothing, others, nothing, 1.0, generator)
        )
        optimizer.step()
    before, after = (float((c.detach().mean() - others.mean()).abs()) for c in (codes, autoencoder(codes)))
    assert after < 0.5 * before


def test_batches_begin_again_for_the_smaller_side_and_are_empty_of_nobody() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat(list(batches_of(torch.tensor([4, 7, 9]), 3, 2, generator)))
    assert sorted(drawn.tolist()) == [4, 4, 7, 7, 9, 9]
    assert [len(b) for b in batches_of(torch.empty(0, dtype=torch.long), 3, 2, generator)] == [0, 0, 0]


def test_what_is_asked_is_not_known(world: World) -> None:
    books = only(world.training, 1)
    users = overlapping_users(world.training, FORTH)[:20]
    known, asked = split_history(books, users, torch.Generator().manual_seed(0), 0.2)
    whole = books.evidence(users)
    assert torch.equal(known.mask.sum(1) + asked.mask.sum(1), whole.mask.sum(1))
    n = whole.mask.sum(1)
    assert torch.equal(asked.mask.sum(1), (0.2 * n).round().long())
    everything, _ = split_history(books, users, torch.Generator().manual_seed(0), 1.0)
    assert not everything.mask.any()


def test_a_time_that_is_not_known_is_read_as_no_time_gone_by(world: World) -> None:
    evidence = world.evidence(world.held[:2], 4)
    untimed = replace(evidence, times=torch.full_like(evidence.times, torch.nan))
    actions = Actions.of(untimed, untimed.values, torch.ones_like(untimed.values), len(world.data.schema.kinds), 4)
    assert (actions.context[..., 1] == 0).all()

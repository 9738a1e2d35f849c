"""Sequences are read in order and no further than they go; inner loops by hand; a walk whose next step is known."""

from functools import cache

import pytest
import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.recommender import FitOptions, ItemTable
from models.recommenders.mecos import Mecos, MecosConfig
from models.training.inner_loop import Support, descend_linear
from models.training.next_items import NextItems
from models.training.sequence import SequenceEncoder, after
from models.training.sequence_ratings import SequenceRatings, in_order
from models.training.windows import Windows
from tests.laws.entries import Entry
from tests.laws.laws import LAWS, Case, fit_case
from tests.laws.world import make_world
from tests.models.tiny import evidence, tiny

N_ITEMS = 8


def encoder() -> SequenceEncoder:
    torch.manual_seed(0)
    made = SequenceEncoder(n_attributes=1, input_size=3, hidden_size=4, size=2)
    torch.nn.init.normal_(made.out.weight)
    return made.requires_grad_(False)


def test_an_encoding_depends_on_nothing_that_comes_after():
    inputs, attributes = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1)), torch.ones(2, 1)
    whole = encoder()(attributes, inputs)
    for n in range(6):
        torch.testing.assert_close(encoder()(attributes, inputs[:, :n])[:, n], whole[:, n])
    torch.testing.assert_close(after(whole, torch.tensor([0, 3])), torch.stack([whole[0, 0], whole[1, 3]]))


def test_a_sequence_read_backwards_is_another_and_attributes_come_first():
    inputs, made = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1)), encoder()
    assert not torch.allclose(made(torch.ones(1, 1), inputs)[:, -1], made(torch.ones(1, 1), inputs.flip(1))[:, -1])
    assert not torch.allclose(made(torch.ones(1, 1), inputs[:, :0]), made(torch.zeros(1, 1), inputs[:, :0]))


def test_training_begins_with_encodings_that_say_nothing():
    made = SequenceEncoder(n_attributes=0, input_size=3, hidden_size=4, size=2)
    assert not made(torch.zeros(1, 0), torch.ones(1, 2, 3)).any()


def test_one_linear_step_by_hand():
    """From zero: rate * 2 / (n + reg) * sum of w e phi."""
    support = Support(torch.tensor([[[1.0, 0.0], [2.0, 1.0]]]), torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0, 0.5]]))
    before, found = descend_linear(torch.zeros(1, 2), support, torch.tensor([1.0, 10.0]), 1, reg=0.5)
    assert not before.any()
    torch.testing.assert_close(found, 2 / 2.0 * torch.tensor([[3.0 - 1.0, 10 * -0.5]]))


def sequence_ratings(steps: int) -> SequenceRatings:
    config = MecosConfig(embedding_size=4, hidden_size=3, base="bias", steps=steps, inner_reg=8.0)
    made = SequenceRatings(config, walks().schema)
    torch.manual_seed(0)
    made.reset_parameters()
    return made.requires_grad_(False)


def theta(made: SequenceRatings, opinions: Tensor) -> Tensor:
    """With rows whose half of opinions is 1."""
    rows = torch.ones(1, opinions.shape[1], 4)
    return made.theta(torch.zeros(1, 0), rows, made.feature(rows), opinions, torch.ones(opinions.shape[:2]))


def test_without_steps_the_sequence_alone_speaks():
    made, opinions = sequence_ratings(steps=0), torch.tensor([[[2.0, 2.0]]])
    assert not theta(made, opinions).any()  # its encoder says nothing yet
    assert theta(sequence_ratings(steps=1), opinions).any()


def test_training_begins_at_the_covariance_of_opinions():
    """One opinion e on an item with f moves another item by e f . f', however many steps that takes, to first order."""
    made = sequence_ratings(steps=1)
    moved = made.feature(torch.tensor([0.0, 0.0, 0.3, -0.1])) @ theta(made, torch.tensor([[[2.0, 2.0]]]))[0]
    torch.testing.assert_close(moved, torch.tensor(2.0 * (0.3 - 0.1)))


def test_episodes_are_put_in_order_of_time():
    known = evidence((0, 1), (1, 1), (2, 1), (3, 1, 0.0))
    known.times[0] = torch.tensor([30.0, torch.nan, 10.0, 5.0], dtype=torch.float64)
    assert in_order(known).tolist() == [[1, 2, 0, 3]]  # unknown times first, padding last


@cache
def walks() -> Dataset:
    """Everybody walks from item to item in a circle, from wherever they begin."""
    ratings = [(user, (user + step) % N_ITEMS, 3.0 + step % 2) for user in range(64) for step in range(6)]
    return tiny(ratings, domain=[0] * N_ITEMS)


@cache
def walked() -> tuple[Mecos, ItemTable]:
    config = MecosConfig(
        objective="next_item",
        embedding_size=8,
        hidden_size=16,
        steps=1,
        epochs=40,
        batch_size=16,
        embedding_dropout=0.0,
        learning_rate=0.02,
        warm_learning_rate=0.02,
    )
    recommender = Mecos(config, walks().schema)
    table = recommender.fit(walks(), FitOptions()).table
    recommender.requires_grad_(False)
    return recommender, table


@pytest.mark.parametrize("first", range(N_ITEMS))
def test_the_next_step_of_a_walk_is_known(first: int):
    recommender, table = walked()
    known = evidence((first, 3.0), ((first + 1) % N_ITEMS, 4.0), ((first + 2) % N_ITEMS, 3.0))
    scores = recommender.score(recommender.adapt(known, table, 0), table)
    assert scores.kind == recommender.kind == "preference"
    assert recommender.role == "ranking"
    assert int(scores.mean.argmax()) == (first + 3) % N_ITEMS


def test_an_inner_step_towards_what_was_chosen_by_hand():
    """theta + rate n / (n + reg) (mean of the chosen rows - sum_i p_i x_i)."""
    config = MecosConfig(objective="next_item", embedding_size=2, steps=1, inner_learning_rate=0.5, inner_reg=3.0)
    made = NextItems(config, walks().schema).requires_grad_(False)
    rows, bias = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]), torch.tensor([0.3, -0.2, 0.0])
    start = torch.tensor([[0.1, -0.4]])
    chosen = torch.tensor([0, 2])
    found = made.inner_loop(start, rows[chosen][None], bias[chosen][None], torch.ones(1, 2), rows, bias)
    expected = (rows @ start[0] + bias).softmax(0) @ rows
    torch.testing.assert_close(found, start + 0.5 * 2 / (2 + 3.0) * (rows[chosen].mean(0) - expected))


def test_what_was_liked_weighs_as_any_other_before_training():
    made = NextItems(MecosConfig(objective="next_item", embedding_size=2), walks().schema)
    torch.testing.assert_close(made.echoes(torch.tensor([-2.0, 0.0, 2.0])), torch.ones(3))


def test_windows_are_parts_of_histories_and_ask_only_behind_the_cut():
    data = make_world(1).data
    windows = Windows(data, length=9, n_targets=4, generator=torch.Generator().manual_seed(0))
    users = torch.cat(list(windows.batches(64)))
    assert torch.equal(users.sort().values, torch.arange(data.n_users))
    window = windows.draw(users)
    starts = set()
    for i, user in enumerate(users.tolist()):
        whole = data.interactions.items[int(data.offsets[user]) : int(data.offsets[user + 1])].tolist()
        part = window.history.items[i].tolist()
        start = next(s for s in range(len(whole)) if whole[s : s + 9] == part)
        starts.add(start > 0)
        asked = window.places[i][window.weights[i] > 0]
        assert len(asked)
        assert int(asked.min()) >= int(window.cut[i]) >= 0
        assert int(asked.max()) < 9
    assert starts == {True, False}


@cache
def without_steps() -> Case:
    settings = {"base": "bias", "n_folds": 1, "steps": 0, "embedding_size": 8, "hidden_size": 16, "epochs": 25}
    return fit_case(Entry(settings={**settings, "batch_size": 16}, uses_attributes=True), Mecos, make_world(1))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_sequences_without_steps_on_biases_keep_the_laws(law):
    law(without_steps())

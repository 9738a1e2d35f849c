"""Attention by hand, what a state keeps, the ground it stands on, and twins, which factors cannot tell apart."""

from functools import cache

import pytest
import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.recommender import Evidence, FitOptions, ItemTable
from models.recommenders.matching import Attention, Matching, MatchingConfig
from models.training.biases import BiasSettings, fit_biases
from models.training.co_rating import co_opinion_vectors, co_rating_vectors
from models.training.ground import Ground, GroundSettings, base_table
from tests.laws.entries import Entry
from tests.laws.laws import LAWS, fit_case
from tests.laws.world import make_world
from tests.models.tiny import evidence, tiny

N_PAIRS, N_USERS = 12, 200


def attention(nothing: float = 0.0) -> Attention:
    """One head of one dimension that passes rows through and hands residuals on."""
    made = Attention(MatchingConfig(embedding_size=2, n_heads=1, head_size=1), n_attributes=0)
    made.reset_parameters()
    with torch.no_grad():
        made.query.weight.fill_(1.0)
        made.key.weight.fill_(1.0)
        made.value.weight[:, 0] = 1.0
        made.nothing.fill_(nothing)
    return made


def deviation(queries: list[float], keys: list[float], residuals: list[float], weights: list[float]) -> Tensor:
    """What is added for each query, from a support of one user."""
    opinions = torch.tensor([[[e, e] for e in residuals]]).view(1, -1, 2)
    found = attention().deviation(
        torch.tensor(queries)[None, :, None],
        torch.zeros(1, 1),
        torch.tensor(keys)[None, :, None],
        opinions,
        torch.tensor([weights]),
    )
    return found[0].detach()


@cache
def twins() -> Dataset:
    """Films in pairs: who likes one likes the other as much, and all pairs are independent of each other."""
    generator = torch.Generator().manual_seed(0)
    liked = torch.rand(N_USERS, N_PAIRS, generator=generator) < 0.5
    ratings = [
        (user, 2 * pair + half, 5.0 if liked[user, pair] else 1.0)
        for user in range(N_USERS)
        for pair in range(N_PAIRS)
        for half in (0, 1)
        if torch.rand(1, generator=generator) < 0.8
    ]
    return tiny(ratings, domain=[0] * (2 * N_PAIRS))


@cache
def matched(max_support: int = 24) -> tuple[Matching, ItemTable]:
    """Matching on biases, fitted on twins."""
    settings = {"base": "bias", "n_folds": 1, "embedding_size": 20, "max_support": max_support}
    config = MatchingConfig(**settings, epochs=15, batch_size=16, learning_rate=0.01)
    recommender = Matching(config, twins().schema)
    table = recommender.fit(twins(), FitOptions()).table
    recommender.eval().requires_grad_(False)
    return recommender, table


def score(known: Evidence, max_support: int = 24) -> Tensor:
    recommender, table = matched(max_support)
    return recommender.score(recommender.adapt(known, table, 0), table).mean[0]


def test_attention_by_hand():
    """exp(s) / (exp(z) + sum exp(s)) with z = 0: query 0 sees two equal keys and nothing, a third each."""
    found = deviation([0.0, 1.0], [0.0, 2.0], [1.5, -3.0], [1.0, 1.0])
    e2 = torch.tensor(2.0).exp()
    torch.testing.assert_close(found, torch.stack([torch.tensor(-0.5), (1.5 - 3.0 * e2) / (2.0 + e2)]))


def test_two_halves_are_one_whole():
    """Events of weight one half, twice, weigh what one of weight one does; less weight moves less."""
    halves = deviation([0.3], [1.0, 1.0], [2.0, 2.0], [0.5, 0.5])
    whole = deviation([0.3], [1.0], [2.0], [1.0])
    half = deviation([0.3], [1.0], [2.0], [0.5])
    torch.testing.assert_close(halves, whole)
    assert 0 < half < whole


def test_nothing_similar_moves_nothing():
    """A support unlike the item leaves it where the base has it."""
    assert deviation([5.0], [-5.0], [2.0], [1.0]).abs() < 1e-4


def test_the_signed_head_sums_opinions():
    """sum_j w_j (f_i . f_j) e_j, with f the second half of rows and e what the base leaves unexplained."""
    made = attention().requires_grad_(False)
    rows, opinions = torch.tensor([[[9.0, 2.0], [9.0, -1.0]]]), torch.tensor([[[1.5, 7.0], [-2.0, 7.0]]])
    pull = made.pull(evidence((0, 5.0, 1.0), (1, 2.0, 0.5)), made.signed(rows), opinions)
    torch.testing.assert_close(pull, torch.tensor([[1.5 * 2.0 - 0.5 * 2.0 * -1.0]]))


def test_a_twin_is_found():
    """Of two films that are liked or disliked together one tells what the other is worth, and nothing of the rest."""
    liked, disliked = score(evidence((0, 5))), score(evidence((0, 1)))
    difference = liked - disliked
    assert difference[1] > 1.5
    assert difference[1] > 2 * difference[2:].max()


def test_the_newest_are_kept():
    """A state holds `max_support` interactions; of older ones only the base knows."""
    recommender, table = matched(2)
    known = evidence((0, 5), (4, 5), (8, 1), (12, 5))
    state = recommender.adapt(known, table, 0)
    rows, weights = state[0, -8:-6], state[0, -2:]
    assert rows.tolist() == [12, 8]  # the newest first
    assert weights.tolist() == [1, 1]


def test_the_order_of_the_support_is_no_matter():
    """Up to what a state keeps."""
    torch.testing.assert_close(score(evidence((0, 5), (4, 1), (9, 3))), score(evidence((9, 3), (0, 5), (4, 1))))


def test_a_biased_ground_by_hand():
    """Residuals are ratings less mean, item and user bias; before that, less the user's own level."""
    data = twins()
    biases = fit_biases(data, BiasSettings())
    recommender, table = matched()
    known = evidence((0, 5), (3, 2))
    ground = base_table(table)
    states = recommender.ground.base.adapt(known, ground, 0)
    opinions = recommender.ground.opinions(states, ground, known)[0]
    surprise = torch.tensor([5.0, 2.0]) - biases.mean - biases.item[[0, 3]]
    expected = surprise - surprise.sum() / (2 + 5)
    torch.testing.assert_close(opinions, torch.stack([expected, expected], dim=1))


def test_folds_practise_with_what_others_taught():
    """Every interaction is in one fold, and its base is the one fitted on all the others."""
    data = make_world(1).training
    settings = GroundSettings(n_folds=3)
    ground = Ground(settings, data.schema)
    folds = ground.folds(data, ground.fit(data, FitOptions()), FitOptions())
    assert sum(len(fold.data.interactions) for fold in folds) == len(data.interactions)
    for fold in folds:
        users = torch.unique(fold.data.interactions.users)
        others = data.where(~torch.isin(data.interactions.users, users))
        assert len(others.interactions) + len(fold.data.interactions) == len(data.interactions)
        torch.testing.assert_close(fold.table["bias"], fit_biases(others, BiasSettings()).item)


def test_items_stand_where_their_raters_are():
    """Two circles of people who share one film: films of a circle lie together, those of the other opposite."""
    ratings = [(user, item, 3.0) for user in range(40) for item in range(7) if item == 6 or item // 3 == user % 2]
    vectors = co_rating_vectors(tiny(ratings, domain=[0] * 7), 3)
    cosine = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=2)
    assert cosine[:3, :3].min() > 0.9
    assert cosine[:3, 3:6].max() < 0


def test_items_are_like_those_that_are_thought_of_alike():
    """f_i . f_j is the sum of the products of two items' residuals over their raters and the belief in none, 600."""
    users, items = torch.arange(50).repeat_interleave(2), torch.tensor([0, 1] * 50)
    residuals = torch.randn(50, generator=torch.Generator().manual_seed(0)).repeat_interleave(2)
    vectors = co_opinion_vectors(users, items, residuals, n_items=3, size=4)
    # The covariance matrix [[0, c], [c, 0]] has the eigenvalue c with (1, 1) / sqrt(2), and -c, which is left out.
    c = residuals[::2].square().sum() / (50 + 600)
    torch.testing.assert_close(vectors @ vectors.T, c / 2 * torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 0]]))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_ground_of_biases_keeps_the_laws(law):
    entry = Entry(settings={"base": "bias", "n_folds": 1, "embedding_size": 8, "epochs": 10, "batch_size": 16})
    law(fit_case(entry, Matching, make_world(2)))

"""Prototypes by hand: where likes and dislikes lie, and what follows from distances."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from models.recommender import FitOptions
from models.recommenders.prototypical import Prototypes, Prototypical, PrototypicalConfig
from tests.laws.world import make_world
from tests.models.tiny import evidence

BELIEF = 2.0


def prototypes(n_attributes: int = 0) -> Prototypes:
    """In two dimensions, with T = s = 1 and κ = 2."""
    made = Prototypes(PrototypicalConfig(embedding_size=2), n_attributes)
    made.reset_parameters()
    with torch.no_grad():
        made.log_belief.fill_(math.log(BELIEF))
        made.log_temperature.zero_()
        made.spread.fill_(1.0)
    return made.requires_grad_(False)


def place(*events: tuple[float, float, float, float]) -> Tensor:
    """p+ and p-, (2, 2), of a user with (x, y, opinion, weight) events."""
    rows = torch.tensor(events).view(1, -1, 4)
    known = evidence(*[(0, 3.0, event[3]) for event in events])
    return prototypes().place(known, rows[..., :2], rows[..., 2]).view(2, 2)


def test_prototypes_are_weighted_means():
    """softmax(±1) over two items, worth two ratings beside two of belief in the origin."""
    liked, disliked = place((1.0, 0.0, 1.0, 1.0), (0.0, 1.0, -1.0, 1.0))
    share = 1 / (1 + math.exp(-2))
    torch.testing.assert_close(liked, 2 / (2 + BELIEF) * torch.tensor([share, 1 - share]))
    torch.testing.assert_close(disliked, 2 / (2 + BELIEF) * torch.tensor([1 - share, share]))


def test_two_halves_are_one_whole():
    """Events of weight one half, twice, place prototypes where one of weight one does."""
    whole = place((1.0, 2.0, 0.7, 1.0), (0.5, -1.0, -1.0, 1.0))
    halves = place((1.0, 2.0, 0.7, 0.5), (1.0, 2.0, 0.7, 0.5), (0.5, -1.0, -1.0, 1.0))
    torch.testing.assert_close(halves, whole)


def test_ratings_follow_from_squared_distances():
    """tanh of half the difference of squared distances: nearer to what is liked is better."""
    liked, disliked = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    points = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.3, -0.4]])
    found = prototypes().deviation(torch.cat([liked, disliked])[None], points)[0]
    difference = (points - disliked).square().sum(1) - (points - liked).square().sum(1)
    torch.testing.assert_close(found, torch.tanh(difference / 2))


def test_of_strangers_attributes_tell():
    """Without interactions prototypes are what attributes say, and all alike without either."""
    made = prototypes(n_attributes=1)
    made.liked.weight.copy_(torch.tensor([[0.5, 2.0], [0.0, -1.0]]))
    stranger = made.place(evidence(attributes=[3.0]), torch.zeros(1, 0, 2), torch.zeros(1, 0))
    torch.testing.assert_close(stranger, torch.tensor([[6.5, -3.0, 0.0, 0.0]]))


def test_opposite_opinions_move_scores_apart_along_true_tastes():
    """Turned around, the same ratings give other scores; the difference goes with what people truly like."""
    world = make_world(1)
    config = PrototypicalConfig(embedding_size=8, epochs=10, batch_size=16)
    recommender = Prototypical(config, world.data.schema)
    table = recommender.fit(world.training, FitOptions()).table
    recommender.requires_grad_(False)
    known = world.evidence(world.held, 12)
    low, high = (float(bound[0]) for bound in world.data.schema.scales())
    turned = replace(known, values=torch.where(known.mask, low + high - known.values, 0))
    told, mistold = (recommender.means(recommender.adapt(e, table, 0), table) for e in (known, turned))
    own_taste = (told - mistold) - (told - mistold).mean(0)
    truth = world.truth[world.held]
    assert float((own_taste * (truth - truth.mean(0))).mean()) > 0

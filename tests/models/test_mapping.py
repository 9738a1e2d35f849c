"""Mapping and collective factorisation: what is carried over, by hand and on a world with known truth."""

from dataclasses import replace

import pytest
import torch

from models.datasets.dataset import Dataset
from models.recommender import FitOptions
from models.recommenders.collective import Collective, CollectiveConfig
from models.recommenders.mapping import Mapping, MappingConfig
from models.recommenders.mf import Mf
from models.training.domains import Direction, evidence_in, overlapping_users, without
from models.training.train import train
from tests.laws.world import World, make_world
from tests.models.tiny import evidence, tiny

FORTH = Direction(0, 1)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(2)


def cold(world: World) -> tuple[Dataset, torch.Tensor]:
    """The data without what 60 people did with books, and those people."""
    users = overlapping_users(world.data, FORTH)[:60]
    return without(world.data, users, FORTH.target), users


def loss(world: World, recommender: Mapping | Collective | Mf, training: Dataset, users: torch.Tensor) -> float:
    table = recommender.fit(training, FitOptions()).table
    recommender.eval().requires_grad_(False)
    mean = recommender.score(recommender.adapt(training.evidence(users), table, 1), table).mean
    books = world.data.items.domain == 1
    return float((mean - world.truth[users])[:, books].square().mean().sqrt())


@pytest.mark.parametrize("kind", ["linear", "mlp", "bridge"])
def test_a_history_of_films_tells_what_somebody_thinks_of_books(world: World, kind: str) -> None:
    """Against the same factorisation of books, which knows nothing of the people in question."""
    training, users = cold(world)
    carried = Mapping(MappingConfig.model_validate({"n_factors": 3, "kind": kind, "epochs": 3}), world.data.schema)
    books = training.where(world.data.items.domain[training.interactions.items] == 1)
    alone = Mf(Mf.Config(n_factors=3, epochs=15), world.data.schema)
    assert loss(world, carried, training, users) < loss(world, alone, books, users)


def test_collective_factors_are_shared_and_carry_over(world: World) -> None:
    training, users = cold(world)
    shared = Collective(CollectiveConfig(n_factors=3, epochs=15), world.data.schema)
    books = training.where(world.data.items.domain[training.interactions.items] == 1)
    alone = Mf(Mf.Config(n_factors=3, epochs=15), world.data.schema)
    assert loss(world, shared, training, users) < loss(world, alone, books, users)


def test_at_one_half_and_equal_penalties_collective_is_plain_factorisation(world: World) -> None:
    data = world.training
    settings = {"n_factors": 3, "reg": 5.0, "epochs": 4}
    shared = Collective(CollectiveConfig.model_validate(settings | {"reg_source": 5.0, "reg_target": 5.0}), data.schema)
    plain = Mf(Mf.Config.model_validate(settings), data.schema)
    for a, b in zip(
        shared.fit(data, FitOptions()).table.columns.values(),
        plain.fit(data, FitOptions()).table.columns.values(),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_a_larger_penalty_on_a_domain_makes_its_items_smaller(world: World) -> None:
    sizes = []
    for reg in (4.0, 40.0):
        config = CollectiveConfig(n_factors=3, epochs=6, reg_target=reg)
        table = Collective(config, world.data.schema).fit(world.training, FitOptions()).table
        sizes.append(table["factors"][table.domain == 1].norm().item())
    assert sizes[1] < 0.8 * sizes[0]


def test_alpha_near_one_makes_what_was_done_in_the_target_tell_next_to_nothing(world: World) -> None:
    recommender = Collective(CollectiveConfig(n_factors=3, epochs=4, alpha=0.999), world.data.schema)
    table = recommender.fit(world.training, FitOptions()).table
    known = world.evidence(world.held, 12)
    books = evidence_in(known, table, 1)
    moved = recommender.adapt(books, table, 1).abs().mean()
    assert moved < 0.1 * recommender.adapt(known, table, 1).abs().mean()


def test_the_linear_map_is_the_weighted_ridge_regression_of_target_vectors(world: World) -> None:
    """Recomputed from the two factorisations."""
    mapping = Mapping(MappingConfig(n_factors=2, sweeps=3, reg_map=7.0), world.data.schema)
    data, table = world.training, mapping.fit(world.training, FitOptions()).table
    users = overlapping_users(data, FORTH)
    nothing_mapped = replace(data.evidence(users), attributes=data.user_attributes[users])
    source = mapping.adapt(evidence_in(nothing_mapped, table, 0), table, 1)[:, :3].double()
    mapping.user_map.linear.zero_()
    known = evidence_in(nothing_mapped, table, 1)
    target = mapping.adapt(known, table, 1)[:, 3:].double()
    n = known.weights.sum(1).double()
    design = torch.cat([torch.ones(len(users), 1), source], dim=1).double()
    weighted = design * (n / (n + mapping.config.reg))[:, None]
    expected = torch.linalg.solve(weighted.T @ design + 7.0 * torch.eye(4).double(), weighted.T @ target)
    again = Mapping(mapping.config, world.data.schema)
    again.fit(world.training, FitOptions())
    torch.testing.assert_close(again.user_map.linear.double(), expected, atol=1e-4, rtol=1e-3)


def test_without_target_ratings_the_state_is_where_the_map_put_the_user_and_ratings_move_it_on(world: World) -> None:
    mapping = Mapping(MappingConfig(n_factors=2, sweeps=3), world.data.schema)
    table = mapping.fit(world.training, FitOptions()).table
    known = world.evidence(world.held, 6)
    films = evidence_in(known, table, 0)
    state = mapping.adapt(films, table, 1)
    mapped = torch.cat([torch.ones(len(state), 1), state[:, :3]], dim=1) @ mapping.user_map.linear
    torch.testing.assert_close(state[:, 3:], mapped)
    assert not torch.allclose(mapping.adapt(known, table, 1)[:, 3:], mapped, atol=1e-3)


def test_an_item_that_nobody_rated_in_the_target_takes_over_what_its_twin_says() -> None:
    """Books that are films: loved films are loved books. Book 7 has no rating; its twin is a loved film."""
    events = []
    for user in range(40):
        for item in range(8):
            liked = item % 2
            events.append((user, item, 5.0 if liked else 2.0))
            if item != 7:
                events.append((user, 8 + item, 8.0 if liked else 2.0))
    data = tiny(events, domain=[0] * 8 + [1] * 8)
    twins = {i: 8 + i for i in range(8)} | {8 + i: i for i in range(8)}
    data = replace(data, items=replace(data.items, same_as=twins))
    known = evidence((0, 2.0))
    scores = []
    for map_items in (False, True):
        mapping = Mapping(MappingConfig(n_factors=1, sweeps=5, map_items=map_items), data.schema)
        table = mapping.fit(data, FitOptions()).table
        scores.append(mapping.score(mapping.adapt(known, table, 1), table).mean[0, 15].item())
    unknown, mapped = scores
    assert mapped > unknown + 1


def test_a_map_is_chosen_on_people_who_are_cold_in_the_target(world: World) -> None:
    trained = train("mapping", {"kind": "bridge", "n_factors": 2, "epochs": 2}, world.data, FitOptions())
    assert {"rmse@0", "rmse@1", "rmse@5"} <= set(trained.metrics)
    assert trained.recommender.role == "transfer"

"""The cross-domain protocol: who is cold, what stays, what is asked; domains, directions and hidden identities."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.datasets.dataset import Dataset
from models.datasets.fetch import fetch
from models.datasets.folder import read
from models.datasets.schema import Schema
from models.evaluation.comparison import compare, joined
from models.evaluation.crossdomain import SHOTS, Crossing, SourceBias, cross
from models.evaluation.draws import FOLDER_VARIABLE, DrawsError
from models.evaluation.measure import measure
from models.evaluation.predictors import Constant
from models.evaluation.protocols import PROTOCOLS, ProtocolOptions
from models.evaluation.run import CROSS_DOMAIN_BASELINES, Plan, evaluate
from models.evaluation.sitting import Sitting
from models.evaluation.tables import tables
from models.recipes import load
from models.recommender import ItemTable
from models.training.domains import (
    Direction,
    TransferSettings,
    domain_of,
    evidence_in,
    hide_identities,
    only,
    overlapping_items,
    overlapping_users,
    without,
)
from models.training.train import held_in_target
from models.training.validation import Validation
from tests.laws.world import make_world
from tests.models.folders import two_domains
from tests.models.tiny import BOOKS, FILMS, evidence, tiny

FORTH = Direction(0, 1)
DOUBAN = Path(os.environ.get(FOLDER_VARIABLE, "nowhere")) / "douban_book_music"


@pytest.fixture(scope="module")
def world() -> Dataset:
    """200 people who rate films and books."""
    return make_world(2).data


def asked_pairs(data: Dataset, domain: int | None = None) -> set[tuple[int, int]]:
    seen = data.interactions
    keep = torch.ones(len(seen), dtype=torch.bool) if domain is None else domain_of(data) == domain
    return set(zip(seen.users[keep].tolist(), seen.items[keep].tolist(), strict=True))


@pytest.mark.parametrize("beta", [0.2, 0.8])
def test_cold_users_keep_their_source_and_lose_all_of_the_target(world: Dataset, beta: float) -> None:
    exam = cross(world, Crossing(FORTH, beta), seed=1)
    cold = set(exam.groups[0].users.tolist())
    both = overlapping_users(world, FORTH)
    assert abs(len(cold) - beta * len(both)) <= 1
    learnt, everything = exam.training.interactions, world.interactions
    target = world.items.domain[learnt.items] == 1
    assert not cold & set(learnt.users[target].tolist())
    of_cold = torch.isin(everything.users, exam.groups[0].users) & (domain_of(world) == 0)
    assert int((torch.isin(learnt.users, exam.groups[0].users) & ~target).sum()) == int(of_cold.sum())


def test_all_that_a_cold_user_rated_in_the_target_is_asked_and_their_source_is_the_evidence(world: Dataset) -> None:
    exam = cross(world, Crossing(FORTH, 0.5), seed=0)
    group = exam.groups[0]
    ratings = world.where(world.interactions.kinds == 0)
    wanted = {pair for pair in asked_pairs(ratings, 1) if pair[0] in set(group.users.tolist())}
    found = {
        (user, item) for i, user in enumerate(group.users.tolist()) for item in group.items[i][group.mask[i]].tolist()
    }
    assert found == wanted
    assert (world.items.domain[group.support.items][group.support.mask] == 0).all()


def test_reference_draws_are_numpys_from_ids_in_the_order_of_text(world: Dataset) -> None:
    exam = cross(world, Crossing(FORTH, 0.5, reference_draws=True), seed=3)
    both = overlapping_users(world, FORTH)
    ids = sorted(world.user_ids[user] for user in both.tolist())
    drawn = np.random.default_rng(3).choice(ids, len(ids) // 2, replace=False)
    assert {world.user_ids[user] for user in exam.groups[0].users.tolist()} == set(drawn)
    assert exam.validation_users is not None
    assert not {world.user_ids[user] for user in exam.validation_users.tolist()} & set(drawn)


@pytest.mark.skipif(not DOUBAN.is_dir(), reason=f"{FOLDER_VARIABLE} names no folder with Douban's ratings")
@pytest.mark.parametrize(
    ("beta", "always_five", "item_mean"),
    [
        (0.2, (0.980, 1.394), (0.686, 0.861)),
        (0.5, (0.940, 1.351), (0.687, 0.862)),
        (0.8, (0.946, 1.354), (0.709, 0.895)),
    ],
)
def test_reference_draws_give_the_figures_that_the_goals_on_douban_stand_beside(
    beta: float, always_five: tuple[float, float], item_mean: tuple[float, float], tmp_path: Path
) -> None:
    fetch("douban-book-music", tmp_path / "douban", source=DOUBAN)
    data = read(tmp_path / "douban")
    direction = Direction.named(data.schema, "book", "music")
    errors: dict[str, list[np.ndarray]] = {"five": [], "mean": []}
    for seed in range(3):
        exam = cross(data, Crossing(direction, beta, reference_draws=True), seed)
        group = exam.groups[0]
        truth, known = group.values.numpy(), group.mask.numpy()
        told = SourceBias(exam.training, direction, with_user=False).answer(group).mean.clip(1, 5)
        errors["five"].append((5 - truth)[known])
        errors["mean"].append((told - truth)[known])
    for name, expected in (("five", always_five), ("mean", item_mean)):
        pooled = np.concatenate(errors[name])
        found = (np.abs(pooled).mean(), np.square(pooled).mean() ** 0.5)
        assert found == pytest.approx(expected, abs=0.00051)


def test_few_target_ratings_are_shown_and_no_longer_asked_the_query_is_the_same_for_every_k(world: Dataset) -> None:
    exam = cross(world, Crossing(FORTH, 0.5), seed=0)
    _, *few = exam.groups
    assert [group.label for group in few] == [f"50%, k={k}" for k in SHOTS]
    for k, group in zip(SHOTS, few, strict=True):
        assert torch.equal(group.items, few[0].items)
        shown = (world.items.domain[group.support.items] == 1) & group.support.mask
        assert shown.sum(1).tolist() == [k] * len(group)
        for i in range(len(group)):
            asked = set(group.items[i][group.mask[i]].tolist())
            assert not asked & set(group.support.items[i][group.support.mask[i]].tolist())


def test_validation_users_are_in_both_domains_and_never_asked(world: Dataset) -> None:
    exam = cross(world, Crossing(FORTH, 0.5), seed=0)
    validation = exam.validation_users
    assert validation is not None
    assert set(validation.tolist()) <= set(overlapping_users(world, FORTH).tolist())
    assert not any(set(validation.tolist()) & set(group.users.tolist()) for group in exam.groups)
    assert set(validation.tolist()) <= set(exam.training.interactions.users.tolist())


def test_hidden_identities_leave_nobody_to_learn_a_transfer_from_but_validation_users(world: Dataset) -> None:
    exam = cross(world, Crossing(FORTH, 0.5, hidden=1.0), seed=0)
    assert exam.validation_users is not None
    assert overlapping_users(exam.training, FORTH).tolist() == exam.validation_users.tolist()
    alone = [group for group in exam.groups if "alone" in group.label]
    assert [group.label for group in alone] == [f"50%, 100% hidden, alone, k={k}" for k in SHOTS]
    for k, group in zip(SHOTS, alone, strict=True):
        assert group.support_sizes.tolist() == [k] * len(group)
    assert len(exam.training.interactions) == len(cross(world, Crossing(FORTH, 0.5), seed=0).training.interactions)


def test_the_catalogue_is_what_was_learnt_of_the_target(world: Dataset) -> None:
    exam = cross(world, Crossing(FORTH, 0.2), seed=0)
    assert (world.items.domain[exam.catalogue] == 1).all()


def test_too_few_shared_users_and_unknown_domains_are_refused() -> None:
    data = tiny([(0, 0, 3.0), (0, 1, 4.0), (1, 0, 3.0)], domain=[0, 1])
    with pytest.raises(DrawsError, match="only 1 users"):
        PROTOCOLS["crossdomain"](data, ProtocolOptions())
    with pytest.raises(DrawsError, match="no domain 'music'"):
        PROTOCOLS["crossdomain"](data, ProtocolOptions(source="music"))


def test_source_bias_by_hand() -> None:
    """Books go from 0 to 8, so a step of films is two of books. User 0 gave films 5 where others gave 3."""
    data = tiny([(0, 0, 5.0), (1, 0, 3.0), (1, 1, 8.0), (2, 1, 4.0)], domain=[0, 1])
    shown = evidence((0, 5.0))
    plain = SourceBias(data, FORTH, with_user=False).scores(shown, 1, torch.tensor([1]))
    assert plain.mean.item() == pytest.approx(6.0)  # the item's deviation from the mean of books is 0
    moved = SourceBias(data, FORTH).scores(shown, 1, torch.tensor([1]))
    assert moved.mean.item() == pytest.approx(6.0 + 2 * (5 - 4) / (1 + 5))


def test_list_figures_look_for_liked_items_among_everything_that_was_learnt(world: Dataset) -> None:
    """Whoever scores everything the same ranks by id; errors are those of a constant."""
    exam = cross(world, Crossing(FORTH, 0.5), seed=0)
    group = exam.groups[0]
    figures = {n: t.value for n, t in measure(Constant(exam.training), exam, group).items()}
    liked = group.mask & (group.values >= 7.5)
    first = exam.catalogue.nonzero().flatten()[:10].tolist()
    hits = [len(set(group.items[i][liked[i]].tolist()) & set(first)) for i in range(len(group))]
    most = [min(10, int(n)) for n in liked.sum(1)]
    recall = np.mean([h / m for h, m in zip(hits, most, strict=True) if m])
    assert figures["list recall@10"] == pytest.approx(recall)


def test_draws_stand_side_by_side_and_a_figure_is_their_mean(world: Dataset) -> None:
    draws = []
    for seed in (0, 1):
        exam = cross(world, Crossing(FORTH, 0.2), seed)
        sitting = Sitting(exam)
        sitting.add_simple_rows([seed])
        draws.append((exam, sitting.entries))
    rows = {row.name: row for row in compare(draws, ["constant"])}
    one = [measure(Constant(exam.training), exam, exam.groups[0])["rmse"].value for exam, _ in draws]
    assert rows["constant"].cells["20%"].figures["rmse"] == pytest.approx(np.mean(one), abs=1e-6)
    assert rows["random"].cells["20%"].against["constant"]["rmse"].low > 0
    again = joined(
        [list(rows.values()), [row.model_copy(update={"cells": {"50%": row.cells["20%"]}}) for row in rows.values()]]
    )
    assert set(again[0].cells) == {"20%", "20%, k=1", "20%, k=3", "20%, k=5", "50%"}


def test_a_report_has_the_rows_that_make_it_honest(world: Dataset) -> None:
    settings = {"bayes": {"n_factors": 1, "iterations": 2}, "bayes_biases": {"iterations": 2}}
    plan = Plan("crossdomain", [], seeds=[0, 1], betas=[0.2, 0.8], hidden=[0, 1], settings=settings)
    report = evaluate(world, plan).report
    names = {row.name for row in report.rows}
    assert {"constant", "item mean (plain)", "item mean + source user bias", *CROSS_DOMAIN_BASELINES} <= names
    assert len(report.groups) == 2 * (4 + 7)
    assert set(report.row("bayes").cells["80%"].against) == set(CROSS_DOMAIN_BASELINES)
    figures = report.row("bayes").cells["20%"].figures
    assert {"rmse", "mae", "ndcg@10", "list ndcg@10", "list recall@10"} <= set(figures)


def test_a_direction_is_named_or_found() -> None:
    schema = Schema(domains=[FILMS, BOOKS])
    assert Direction.named(schema) == Direction(0, 1)
    assert Direction.named(schema, target="films") == Direction(1, 0)
    assert Direction.of(TransferSettings(source="books"), schema) == Direction(1, 0)
    assert Direction(0, 1).reversed == Direction(1, 0)
    for source, target, said in (("films", "films", "itself"), ("music", None, "no domain 'music'")):
        with pytest.raises(ValueError, match=said):
            Direction.named(schema, source, target)
    with pytest.raises(ValueError, match="needs two domains"):
        Direction.named(Schema(domains=[FILMS]))


def test_users_and_items_of_both_domains(tmp_path: Path) -> None:
    """Ann rated films and a book; bob clicked and viewed; Seven is a film and a book."""
    data = two_domains(tmp_path / "d")
    assert [data.user_ids[u] for u in overlapping_users(data, FORTH)] == ["ann", "bob"]
    pairs = overlapping_items(data, FORTH)
    assert [(data.items.ids[a], data.items.ids[b]) for a, b in pairs.tolist()] == [("7", "7")]
    assert overlapping_items(data, FORTH.reversed).tolist() == pairs.flip(1).tolist()
    assert (domain_of(only(data, 1)) == 1).all()
    cold = without(data, torch.tensor([data.user_ids.index("ann")]), 1)
    assert len(cold.interactions) == len(data.interactions) - 1


def test_hiding_an_identity_moves_one_domain_to_a_new_user_with_the_same_attributes(world: Dataset) -> None:
    hidden = hide_identities(world, torch.tensor([3, 7]), 1)
    assert hidden.user_ids[-2:] == ["user3@books", "user7@books"]
    assert hidden.user_attributes[-2:].equal(world.user_attributes[[3, 7]])
    assert asked_pairs(only(hidden, 0)) == asked_pairs(only(world, 0))
    moved = {(len(world.user_ids) if user == 3 else user, item) for user, item in asked_pairs(world, 1) if user == 3}
    assert {pair for pair in asked_pairs(hidden, 1) if pair[0] == world.n_users} == moved
    assert 3 not in overlapping_users(hidden, FORTH).tolist()


def test_evidence_of_one_domain_is_what_is_left_in_the_same_order() -> None:
    table = ItemTable({}, torch.tensor([0, 1, 0, 1]), torch.ones(4, dtype=torch.bool))
    mixed = evidence((0, 3.0), (1, 6.0), (3, 7.0), (2, 4.0))
    books = evidence_in(mixed, table, 1)
    assert books.items.tolist() == [[1, 3]]
    assert books.values.tolist() == [[6, 7]]
    assert evidence_in(evidence((0, 3.0)), table, 1).items.shape == (1, 0)


def test_validation_of_a_transfer_shows_the_source_and_asks_about_the_target(world: Dataset) -> None:
    users = overlapping_users(world, FORTH)[:20]
    tasks = Validation.draw_transfer(world, users, FORTH, seed=0, sizes=(0, 2)).tasks
    assert [task.support_size for task in tasks] == [0, 2]
    for task in tasks:
        assert (world.items.domain[task.query_items][task.query_mask] == 1).all()
        shown = (world.items.domain[task.support.items] == 1) & task.support.mask
        assert int(shown.sum(1).max()) == task.support_size
        for i in range(len(task.query_items)):
            query = set(task.query_items[i][task.query_mask[i]].tolist())
            assert not query & set(task.support.items[i][task.support.mask[i]].tolist())
    assert torch.equal(tasks[0].query_items, tasks[1].query_items)


def test_users_to_validate_on_are_from_both_domains_or_from_the_target(world: Dataset) -> None:
    both = set(overlapping_users(world, FORTH).tolist())
    assert set(held_in_target(world, FORTH, 0).tolist()) <= both
    nobody = hide_identities(world, overlapping_users(world, FORTH), 1)
    held = held_in_target(nobody, FORTH, 0)
    assert len(held)
    assert (held >= world.n_users).all()


def test_a_row_may_sit_the_first_draw_alone_and_is_compared_on_it(world: Dataset) -> None:
    settings = {"bayes": {"n_factors": 1, "iterations": 2}, "bayes_biases": {"iterations": 2}}
    plan = Plan("crossdomain", ["collective", "mf"], seeds=[0, 1], repeat=["mf"], betas=[0.2, 0.8], settings=settings)
    report = evaluate(world, plan).report
    repeated, once = report.row("mf"), report.row("collective")
    assert (repeated.seeds, once.seeds) == ([0, 1], [0])
    assert set(repeated.cells) == set(once.cells) == set(report.groups)
    difference = once.cells["20%"].against["bayes_biases"]["rmse"].difference
    alone = evaluate(world, replace(plan, seeds=[0], repeat=None, betas=[0.2])).report
    assert difference == alone.row("collective").cells["20%"].against["bayes_biases"]["rmse"].difference
    headline = tables(report)[0]
    names = [row[0] for row in headline.rows]
    assert {"mf", "collective (1 draw)"} <= set(names)


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_where_identities_are_hidden_validation_users_teach_nobody_who_is_who(world: Dataset, hidden: float) -> None:
    """Recipes that learn from everyone learn from them as well, unless they are the only ones known in both domains."""
    exam = cross(world, Crossing(FORTH, 0.5, hidden), seed=0)
    recipe = load("bayes").model_copy(update={"settings": {"n_factors": 1, "iterations": 2}})
    assert recipe.learns_from_everyone
    sitting = Sitting(exam)
    sitting.add_recipe(recipe, [0])
    sitting.add_target_only(recipe, [0])
    judged = {name: bool(entry.validation) for name, entry in sitting.entries.items()}
    assert judged == {"bayes": bool(hidden), "bayes (target only)": False}

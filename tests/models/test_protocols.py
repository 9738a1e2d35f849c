"""Protocols: nothing that is asked was there to learn from, and the published draws are read as published."""

import json
from pathlib import Path

import pytest
import torch

from models.datasets.dataset import Dataset
from models.evaluation.draws import DrawsError, Lookup, draw_by_seed
from models.evaluation.exam import Exam, Group
from models.evaluation.protocols import PROTOCOLS, QUERY_SIZE, SHOTS, ProtocolOptions
from tests.models.cinema import N_USERS, read_cinema
from tests.models.tiny import tiny

BY_SEED = ("kshot", "zeroshot", "itemcold", "time", "loo", "foldin")
COLD_USERS = [0, 1, 2]


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_cinema(tmp_path_factory.mktemp("data") / "cinema")


@pytest.fixture(scope="module")
def draws(cinema: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the form of the published draws: one k-shot question and one of each quarter."""

    def films(user: int, cold: bool) -> list[str]:
        rows = torch.arange(int(cinema.offsets[user]), int(cinema.offsets[user + 1]))
        titles = [cinema.items.titles[i] for i in cinema.interactions.items[rows].tolist()]
        return [title for title in titles if title.endswith("(1999)") == cold]

    user = [cinema.user_ids.index(f"1m_{number}") for number in range(N_USERS)]
    warm = films(user[0], cold=False)
    published = {
        "kshot": [[0, warm[:10], warm[10:][::-1][:20]]],
        "melu": [
            ["user_cold", 0, 0, warm[3:13]],
            ["item_cold", 5, 0, films(user[5], cold=True)[:4]],
            ["both_cold", 1, 0, films(user[1], cold=True)[:4]],
        ],
    }
    folder = tmp_path_factory.mktemp("draws")
    (folder / "draws.json").write_text(json.dumps(published))
    (folder / "melu_split.json").write_text(json.dumps({"cold_users": COLD_USERS}))
    return folder / "draws.json"


def pairs(exam: Exam) -> set[tuple[int, int]]:
    """(user, item) of everything that recommenders may learn from."""
    seen = exam.training.interactions
    return set(zip(seen.users.tolist(), seen.items.tolist(), strict=True))


@pytest.mark.parametrize("protocol", BY_SEED)
def test_no_answer_is_in_the_training_data_nor_in_the_support(cinema: Dataset, protocol: str) -> None:
    exam = PROTOCOLS[protocol](cinema, ProtocolOptions(seed=3))
    learnt = pairs(exam)
    for group in exam.groups:
        assert len(group)
        for i in range(len(group)):
            asked = set(group.items[i][group.mask[i]].tolist())
            assert asked
            assert not {(int(group.users[i]), item) for item in asked} & learnt
            assert not asked & set(group.support.items[i][group.support.mask[i]].tolist())


@pytest.mark.parametrize("protocol", BY_SEED)
def test_the_same_seed_asks_the_same_questions(cinema: Dataset, protocol: str) -> None:
    first, again = (PROTOCOLS[protocol](cinema, ProtocolOptions(seed=4)) for _ in range(2))
    for a, b in zip(first.groups, again.groups, strict=True):
        assert torch.equal(a.items, b.items)
        assert torch.equal(a.support.items, b.support.items)


def test_kshot_asks_the_same_of_the_same_users_with_ever_more_support(cinema: Dataset) -> None:
    exam = PROTOCOLS["kshot"](cinema, ProtocolOptions())
    assert [group.label for group in exam.groups] == [f"k={k}" for k in SHOTS]
    fewer: list[set[int]] = []
    for k, group in zip(SHOTS, exam.groups, strict=True):
        assert torch.equal(group.items, exam.groups[0].items)
        assert group.items.shape[1] == QUERY_SIZE
        assert group.support_sizes.tolist() == [k] * len(group)
        support = [set(row.tolist()) for row in group.support.items]
        assert all(a <= b for a, b in zip(fewer, support, strict=False))
        fewer = support
    assert not set(exam.training.interactions.users.tolist()) & set(exam.groups[0].users.tolist())


def test_support_is_evidence_oldest_first(cinema: Dataset) -> None:
    for protocol in ("kshot", "itemcold", "time"):
        for group in PROTOCOLS[protocol](cinema, ProtocolOptions()).groups:
            times = group.support.times.nan_to_num(nan=torch.inf)
            assert (times.diff(dim=1).nan_to_num(nan=0) >= 0).all()


def test_values_are_what_the_users_rated(cinema: Dataset) -> None:
    rated = {
        (user, item): value
        for user, item, value in zip(
            *(getattr(cinema.interactions, n).tolist() for n in ("users", "items", "values")), strict=True
        )
    }
    group = PROTOCOLS["kshot"](cinema, ProtocolOptions()).groups[-1]
    for i, user in enumerate(group.users.tolist()):
        assert group.values[i].tolist() == [rated[user, item] for item in group.items[i].tolist()]


def test_itemcold_hides_items_from_everybody(cinema: Dataset) -> None:
    exam = PROTOCOLS["itemcold"](cinema, ProtocolOptions())
    learnt = set(exam.training.interactions.items.tolist())
    known, new = exam.groups
    for group in exam.groups:
        assert not set(group.items[group.mask].tolist()) & learnt
        assert set(group.support.items[group.support.mask].tolist()) <= learnt
    training_users = set(exam.training.interactions.users.tolist())
    assert set(known.users.tolist()) <= training_users
    assert not set(new.users.tolist()) & training_users


def test_time_asks_about_what_came_after_all_that_was_learnt(cinema: Dataset) -> None:
    exam = PROTOCOLS["time"](cinema, ProtocolOptions())
    end = exam.training.interactions.times.max()
    when = {
        (user, item): time
        for user, item, time in zip(
            *(getattr(cinema.interactions, n).tolist() for n in ("users", "items", "times")), strict=True
        )
    }
    for group in exam.groups:
        for i, user in enumerate(group.users.tolist()):
            asked = [when[user, item] for item in group.items[i][group.mask[i]].tolist()]
            assert min(asked) > end
            shown = group.support.times[i][group.support.mask[i]]
            assert not len(shown) or float(shown.max()) < min(asked)


def test_loo_holds_back_the_last_interaction_of_each_user(cinema: Dataset) -> None:
    exam = PROTOCOLS["loo"](cinema, ProtocolOptions())
    (group,) = exam.groups
    last = cinema.interactions.items[cinema.offsets[1:] - 1]
    assert group.items[:, 0].tolist() == last.tolist()


def test_foldin_shows_four_fifths_of_the_likes_of_users_nobody_learnt_from(cinema: Dataset) -> None:
    exam = PROTOCOLS["foldin"](cinema, ProtocolOptions(seed=98765))
    (group,) = exam.groups
    assert exam.validation_users is not None
    assert float(exam.training.interactions.values.min()) > 3.5
    assert not set(group.users.tolist()) & set(exam.training.interactions.users.tolist())
    assert set(exam.validation_users.tolist()) <= set(exam.training.interactions.users.tolist())
    total = group.support_sizes + group.mask.sum(1)
    assert torch.equal(group.support_sizes, (0.8 * total.double()).long())
    assert exam.catalogue[group.items[group.mask]].all()


def test_published_draws_name_users_by_number_and_items_by_title(cinema: Dataset, draws: Path) -> None:
    exam = PROTOCOLS["kshot"](cinema, ProtocolOptions(draws=draws))
    published = json.loads(draws.read_text())["kshot"][0]
    group = exam.groups[2]  # k = 3
    assert cinema.user_ids[int(group.users[0])] == "1m_0"
    assert [cinema.items.titles[i] for i in group.items[0].tolist()] == published[1]
    assert {cinema.items.titles[i] for i in group.support.items[0].tolist()} == set(published[2][:3])


def test_published_training_is_warm_users_times_warm_items(cinema: Dataset, draws: Path) -> None:
    for protocol in ("kshot", "melu"):
        seen = PROTOCOLS[protocol](cinema, ProtocolOptions(draws=draws)).training.interactions
        learnt_users = {cinema.user_ids[user] for user in seen.users.tolist()}
        assert learnt_users == {f"1m_{n}" for n in range(N_USERS) if n not in COLD_USERS}
        assert all(cinema.items.titles[item].endswith("(1990)") for item in set(seen.items.tolist()))


def test_a_quarters_support_is_all_the_rest_of_that_quarter(cinema: Dataset, draws: Path) -> None:
    exam = PROTOCOLS["melu"](cinema, ProtocolOptions(draws=draws))
    for group, cold in zip(exam.groups, (False, True, True), strict=True):
        user = int(group.users[0])
        rows = torch.arange(int(cinema.offsets[user]), int(cinema.offsets[user + 1]))
        history = {
            item
            for item in cinema.interactions.items[rows].tolist()
            if cinema.items.titles[item].endswith("(1999)") == cold
        }
        assert set(group.support.items[0].tolist()) == history - set(group.items[0].tolist())


def test_zeroshot_puts_the_questions_of_melu_without_a_support(cinema: Dataset, draws: Path) -> None:
    with_support, without = (PROTOCOLS[name](cinema, ProtocolOptions(draws=draws)) for name in ("melu", "zeroshot"))
    assert pairs(without) == pairs(with_support)
    for group, same in zip(without.groups, with_support.groups, strict=True):
        assert group.label == same.label
        assert torch.equal(group.items, same.items)
        assert torch.equal(group.support.attributes, same.support.attributes)
        assert group.support.items.shape == (len(group), 0)


def test_zeroshot_by_seed_hides_users_items_and_both(cinema: Dataset) -> None:
    exam = PROTOCOLS["zeroshot"](cinema, ProtocolOptions())
    users = set(exam.training.interactions.users.tolist())
    items = set(exam.training.interactions.items.tolist())
    for group, cold_user, cold_item in zip(exam.groups, (True, False, True), (False, True, True), strict=True):
        assert all((user not in users) == cold_user for user in group.users.tolist())
        assert all((item not in items) == cold_item for item in group.items[group.mask].tolist())
        assert not group.support_sizes.any()


def test_draws_that_the_data_does_not_answer_are_refused(cinema: Dataset, draws: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "draws.json"
    (tmp_path / "melu_split.json").write_text(json.dumps({"cold_users": COLD_USERS}))
    for published in ([[0, ["No such film (1990)"], []]], [[9999, [], []]]):
        wrong.write_text(json.dumps({"kshot": published, "melu": []}))
        with pytest.raises(DrawsError, match="does not have"):
            PROTOCOLS["kshot"](cinema, ProtocolOptions(draws=wrong))
    with pytest.raises(DrawsError, match="cannot be read"):
        PROTOCOLS["kshot"](cinema, ProtocolOptions(draws=tmp_path / "nothing.json"))


def test_the_lookup_finds_the_latest_of_two_ratings_and_refuses_one_that_is_not_there() -> None:
    data = tiny([(0, 0, 2.0), (0, 1, 3.0), (0, 0, 5.0), (1, 1, 1.0)], domain=[0, 0])
    lookup = Lookup(data)
    assert data.interactions.values[lookup.rows(0, [1, 0])].tolist() == [3.0, 5.0]
    with pytest.raises(DrawsError):
        lookup.rows(1, [0])


def test_users_without_the_ratings_for_a_question_are_not_asked() -> None:
    data = tiny([(0, item, 3.0) for item in range(4)] + [(1, 0, 3.0), (1, 1, 4.0)], domain=[0] * 4)
    drawn = draw_by_seed(data, torch.tensor([0, 1]), 0, query_size=2, support_size=2, seed=0)
    assert [draw.user for draw in drawn] == [0]
    assert set(drawn[0].query.tolist()) | set(drawn[0].support.tolist()) == {0, 1, 2, 3}


def test_a_limited_exam_keeps_all_questions_of_the_users_it_keeps(cinema: Dataset) -> None:
    whole = PROTOCOLS["kshot"](cinema, ProtocolOptions())
    limited = whole.limited(4, seed=1)
    kept = set(limited.groups[0].users.tolist())
    assert len(kept) == 4
    for group, full in zip(limited.groups, whole.groups, strict=True):
        assert set(group.users.tolist()) == kept
        assert len(group) == sum(user in kept for user in full.users.tolist())
    assert isinstance(limited.groups[0], Group)

"""The next-item protocol: what is cold stays cold, and what is asked came next."""

import pytest
import torch

from models.datasets.dataset import Dataset
from models.evaluation.draws import DrawsError
from models.evaluation.exam import Exam
from models.evaluation.measure import measure
from models.evaluation.nextitem import ASKED, HISTORY, NEAREST, RUN, SEQUENCES, NearestToSupport, next_item_exam
from models.evaluation.protocols import PROTOCOLS, ProtocolOptions
from models.evaluation.run import Plan, evaluate
from tests.models.cinema import read_cinema
from tests.models.tiny import evidence, tiny


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_cinema(tmp_path_factory.mktemp("data") / "cinema")


@pytest.fixture(scope="module")
def exam(cinema: Dataset) -> Exam:
    return PROTOCOLS["nextitem"](cinema, ProtocolOptions(seed=5))


def history(data: Dataset, user: int) -> list[int]:
    return data.interactions.items[int(data.offsets[user]) : int(data.offsets[user + 1])].tolist()


def test_no_answer_is_in_the_training_data_nor_in_the_support(exam: Exam) -> None:
    learnt = set(exam.training.interactions.users.tolist())
    for group in exam.groups:
        assert not learnt & set(group.users.tolist())
        for i in range(len(group)):
            assert int(group.items[i, 0]) not in group.support.items[i][group.support.mask[i]].tolist()


def test_the_same_seed_asks_the_same_questions(cinema: Dataset, exam: Exam) -> None:
    again = next_item_exam(cinema, seed=5)
    assert again.description == exam.description
    for a, b in zip(exam.groups, again.groups, strict=True):
        assert torch.equal(a.items, b.items)
        assert torch.equal(a.support.items, b.support.items)


def test_users_show_the_beginning_of_their_history_and_are_asked_what_came_next(cinema: Dataset, exam: Exam) -> None:
    cold = torch.cat([group.candidates for group in exam.groups if group.candidates is not None]).tolist()
    for k, group in zip(SEQUENCES, exam.groups[:3], strict=True):
        assert group.label == f"users, K={k}"
        assert torch.equal(group.users, exam.groups[0].users)
        for i, user in enumerate(group.users.tolist()):
            warm = [item for item in history(cinema, user) if item not in cold]
            assert group.support.items[i].tolist() == warm[: k * RUN]
            assert group.items[i].tolist() == [warm[k * RUN]]


def test_of_a_cold_item_training_knows_k_interactions(cinema: Dataset, exam: Exam) -> None:
    counts = torch.bincount(exam.training.interactions.items, minlength=cinema.n_items)
    for k, group in zip(SEQUENCES, exam.groups[3:], strict=True):
        assert group.candidates is not None
        assert counts[group.candidates].tolist() == [k] * len(group.candidates)
        assert torch.isin(group.items, group.candidates).all()
        assert int(torch.bincount(group.items[:, 0]).max()) <= ASKED


def test_people_are_asked_about_a_cold_item_from_what_they_did_just_before(cinema: Dataset, exam: Exam) -> None:
    for group in exam.groups[3:]:
        for i, user in enumerate(group.users.tolist()):
            whole = history(cinema, user)
            at = whole.index(int(group.items[i, 0]))
            shown = group.support.items[i][group.support.mask[i]].tolist()
            assert shown == whole[max(0, at - HISTORY) : at]
            assert len(shown) >= RUN


def test_a_cold_item_is_ranked_among_those_as_cold(exam: Exam) -> None:
    """Whoever puts the right candidate last is found at its end."""
    group = exam.groups[-1]
    assert group.candidates is not None
    figures = {n: t.value for n, t in measure(NearestToSupport(exam.training), exam, group).items()}
    assert 1 / len(group.candidates) <= figures["mrr"] <= 1
    assert figures["hit@10"] == 1.0  # fewer than ten candidates: all of them are in the list


def test_the_nearest_are_those_that_the_same_people_touch() -> None:
    ratings = [(user, item, 3.0) for user in range(40) for item in range(7) if item == 6 or item // 3 == user % 2]
    nearest = NearestToSupport(tiny(ratings, domain=[0] * 7))
    score = nearest.scores(evidence((0, 3.0)), 0, torch.arange(7)).mean[0]
    assert score[1:3].min() > 0.9
    assert score[3:6].max() < 0
    assert not nearest.scores(evidence(), 0, torch.arange(7)).mean.any()


def test_histories_that_are_too_short_are_refused() -> None:
    with pytest.raises(DrawsError, match="interactions"):
        next_item_exam(tiny([(user, item, 3.0) for user in range(6) for item in range(4)], domain=[0] * 4), seed=0)


def test_the_report_has_popularity_and_the_nearest_to_compare_with(cinema: Dataset) -> None:
    report = evaluate(cinema, Plan("nextitem", [], limit=4)).report
    assert report.baselines == ("popularity", NEAREST)
    cell = report.row("bias").cells["users, K=3"]
    assert cell.against[NEAREST].keys() == {"hit@10", "ndcg@10", "mrr"}
    assert "By chance: users, K=1: HR@10" in report.description

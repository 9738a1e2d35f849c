"""Sitting an exam: totals, comparisons, the learnt blend, the service asked over HTTP."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from torch import Tensor

from models.blend import BlendPart
from models.datasets.dataset import Dataset
from models.evaluation.blend import Stack, ask, fit_blend, joined, stacked_weights
from models.evaluation.comparison import compare
from models.evaluation.exam import Exam, Group
from models.evaluation.measure import measure
from models.evaluation.predictors import Constant, MostPopular, Predictor
from models.evaluation.protocols import PROTOCOLS, ProtocolOptions
from models.evaluation.ranking_blend import Choices, fit_ranking, fitted_to_lists
from models.evaluation.run import EvaluationError, Plan, evaluate, trained_for
from models.evaluation.served import ServedError, ServedPredictor, question_body
from models.evaluation.sitting import Sitting
from models.evaluation.yardsticks import PlainBias
from models.recipes import Recipe, load
from models.recommender import Evidence, Scores
from tests.models.cinema import read_cinema
from tests.models.tiny import tiny


class Fixed(Predictor):
    """Scores an item by a number of its own, whoever asks."""

    def __init__(self, scores: list[float], std: float | None = None) -> None:
        self.by_item = torch.tensor(scores)
        self.std = std

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        mean = self.by_item[positions].expand(support.batch_size, -1)
        return Scores(mean, None if self.std is None else torch.full_like(mean, self.std))


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_cinema(tmp_path_factory.mktemp("data") / "cinema")


def exam_of(data: Dataset, query: list[Tensor], support: list[Tensor], how: Any = "rating") -> Exam:
    users = torch.arange(len(query))
    return Exam("test", "", data, data, [Group.of_rows("all", data, 0, users, support, query)], how)


def test_the_figures_of_two_users_by_hand() -> None:
    data = tiny([(0, 0, 5.0), (0, 1, 3.0), (1, 0, 2.0), (1, 2, 1.0)], domain=[0, 0, 0])
    exam = exam_of(data, [torch.tensor([0, 1]), torch.tensor([2, 3])], [torch.tensor([]).long()] * 2)
    measured = measure(Fixed([6.0, 4.0, 3.0], std=1.0), exam, exam.groups[0])
    figures = {name: totals.value for name, totals in measured.items()}
    # Errors, 6 clipped to 5: 0, 1, 3, 2. Not clipped for the interval: 1, 1, 4, 2, of which two are within 1.645.
    assert figures["rmse"] == pytest.approx((14 / 4) ** 0.5)
    assert figures["mae"] == pytest.approx(1.5)
    assert figures["mse"] == pytest.approx(3.5)
    assert figures["coverage@90%"] == pytest.approx(0.5)
    assert figures["nll"] == pytest.approx(0.5 * np.log(2 * np.pi) + (1 + 1 + 16 + 4) / 8)
    # Both lists are in the right order; only user 0 has anything rated 4 or more, and it comes first.
    assert figures["ndcg@5"] == pytest.approx(1.0)
    assert figures["first success"] == pytest.approx(0.5)
    assert figures["precision@5"] == pytest.approx((1 / 5 + 0) / 2)
    assert figures["recall@5"] == pytest.approx(1.0)  # over the user who has any
    assert figures["hit@5"] == pytest.approx(0.5)


def test_a_ranking_leaves_out_the_support_and_cannot_find_what_nobody_could_learn() -> None:
    data = tiny([(0, 0, 5.0), (0, 1, 5.0), (0, 2, 5.0), (1, 3, 5.0)], domain=[0] * 5)
    exam = exam_of(data, [torch.tensor([1, 2])], [torch.tensor([0])], how="ranking")
    # Order: 0 (shown already), 3, 2, 1; item 4 has the highest score, but is not in the catalogue.
    figures = {n: t.value for n, t in measure(Fixed([9.0, 1.0, 2.0, 3.0, 10.0]), exam, exam.groups[0]).items()}
    ideal = 1 + 1 / np.log2(3)
    assert figures["ndcg@100"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(4)) / ideal)
    assert figures["recall@20"] == 1.0
    assert figures["hit@10"] == 1.0
    assert figures["precision@10"] == pytest.approx(0.2)


def test_the_constant_row_is_the_training_mean_and_the_popular_row_counts() -> None:
    data = tiny([(0, 0, 5.0), (1, 0, 3.0), (1, 1, 1.0)], domain=[0, 0])
    nobody = data.evidence(torch.tensor([0])).emptied()
    everything = torch.arange(2)
    assert Constant(data).scores(nobody, 0, everything).mean.tolist() == [[3.0, 3.0]]
    popular = MostPopular(data).scores(nobody, 0, everything).mean[0]
    assert popular[0] > popular[1]


def test_the_plain_yardstick_by_hand() -> None:
    data = tiny([(0, 0, 5.0), (1, 0, 5.0), (1, 1, 2.0)], domain=[0, 0])
    yardstick = PlainBias(data, item_reg=2.0, user_reg=1.0)
    # mean 4; b_0 = 2 / 4, b_1 = -2 / 3; user 0: (5 - 4 - 0.5) / (1 + 1) = 0.25
    scores = yardstick.scores(data.evidence(torch.tensor([0])), 0, torch.arange(2)).mean[0]
    assert scores.tolist() == pytest.approx([4.75, 4 + 0.25 - 2 / 3])


def test_the_yardstick_knows_unrated_items_by_their_content() -> None:
    features = torch.tensor([[1.0], [1.0], [0.0], [0.0], [1.0]])
    ratings = [(user, item, 5.0 if item < 2 else 1.0) for user in range(50) for item in range(4)]
    data = tiny(ratings, domain=[0] * 5, features=features)
    nobody = data.evidence(torch.tensor([0])).emptied()
    scores = PlainBias(data, content_reg=0.1).scores(nobody, 0, torch.arange(5)).mean[0]
    assert scores[4] == pytest.approx(float(scores[0]), abs=0.3)


def test_a_row_of_several_seeds_is_their_mean_and_its_differences_pair_the_same_users(cinema: Dataset) -> None:
    exam = PROTOCOLS["kshot"](cinema, ProtocolOptions())
    sitting = Sitting(exam)
    n = cinema.n_items
    for seed, value in enumerate((3.0, 4.0)):
        sitting.add("system", Fixed([value] * n), seed)
    sitting.add("bias", Fixed([3.0] * n), 0)
    system, _ = compare([(sitting.exam, sitting.entries)], sitting.exam.baselines)
    cell = system.cells["k=0"]
    truth = exam.groups[0].values.double()
    mse = [float((truth - value).square().mean()) for value in (3.0, 4.0)]
    assert cell.figures["mse"] == pytest.approx(np.mean(mse), abs=1e-6)
    assert cell.spread["mse"] == pytest.approx(np.std(mse, ddof=1), abs=1e-6)
    difference = cell.against["bias"]["rmse"]
    assert difference.difference == pytest.approx(np.mean(mse) ** 0.5 - mse[0] ** 0.5, abs=1e-6)
    assert difference.low <= difference.difference <= difference.high


def stack_of(predictions: np.ndarray, ratings: np.ndarray) -> Stack:
    users, nothing = np.arange(len(ratings)), np.full_like(predictions, np.nan)
    return Stack(users, predictions, nothing, ratings, np.zeros(predictions.shape[1]))


def test_weights_are_the_convex_least_squares() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(3.5, 1, size=4000)
    parts = np.stack([truth + random.normal(0, 1, 4000), truth + random.normal(0, 2, 4000)], 1)
    both = np.array([True, True])
    (weights,) = stacked_weights([stack_of(parts, truth)], both, 0.0)
    assert weights.sum() == pytest.approx(1.0)
    assert weights == pytest.approx([0.8, 0.2], abs=0.02)  # inverse variances 1 and 1/4


def test_a_part_that_only_harms_gets_nothing_and_an_empty_bucket_takes_its_neighbours_weights() -> None:
    truth = np.random.default_rng(1).normal(3.5, 1, size=500)
    parts = np.stack([truth, np.full(500, 9.0) - truth], 1)
    full, empty = stack_of(parts, truth), stack_of(np.zeros((0, 2)), np.zeros(0))
    for weights in stacked_weights([empty, full, empty], np.array([True, True]), 0.0):
        assert weights == pytest.approx([1.0, 0.0], abs=1e-3)


def test_a_preference_moves_ratings_by_its_slope_and_takes_no_share() -> None:
    random = np.random.default_rng(2)
    rating, preference = random.normal(3.5, 1, size=2000), random.normal(0, 1, size=2000)
    stacks = [stack_of(np.stack([rating, preference], 1), rating + 0.3 * preference)]
    (weights,) = stacked_weights(stacks, np.array([True, False]), 0.0)
    assert weights == pytest.approx([1.0, 0.3], abs=1e-3)


def two_parts() -> list[tuple[BlendPart, Predictor]]:
    return [
        (BlendPart(role="collaborative", digest="a", recommender="one"), Fixed([3.0] * 120)),
        (BlendPart(role="content", digest="b", recommender="other"), Fixed([4.0] * 120)),
    ]


def told_of(errors: np.ndarray, ratings: np.ndarray) -> list[Stack]:
    """The same answers in every bucket: ratings (M,) and two parts' errors (M, 2)."""
    return [stack_of(ratings[:, None] + errors, ratings) for _ in range(7)]


def test_where_mixing_does_not_certainly_help_the_best_part_answers_alone(cinema: Dataset) -> None:
    random = np.random.default_rng(3)
    ratings, own, others = random.normal(3.5, 1, 2000), *random.normal(0, 1, (2, 2000))
    independent = told_of(np.stack([own, others], 1), ratings)
    nothing_new = told_of(np.stack([own, own + 0.5 * others], 1), ratings)
    for told, mixes in ((independent, True), (nothing_new, False)):
        blend = fit_blend(two_parts(), cinema, torch.arange(30), 0, 0, told=[told])
        for bucket in blend.buckets:
            assert bucket.gain is not None
            assert (bucket.gain.low > 0) == mixes
            assert (bucket.weights == [1.0, 0.0]) != mixes


def test_a_mixture_that_too_few_users_could_judge_is_left_as_it_is(cinema: Dataset) -> None:
    random = np.random.default_rng(3)
    told = told_of(random.normal(0, 1, (10, 2)), random.normal(3.5, 1, 10))
    for bucket in fit_blend(two_parts(), cinema, torch.arange(30), 0, 0, told=[told]).buckets:
        assert bucket.gain is None
        assert 0 < bucket.weights[0] < 1


def test_weights_are_learnt_from_all_users_that_were_asked(cinema: Dataset) -> None:
    """Answers of parts that were fitted with another seed count as those of more users, from a common centre."""
    parts, users = two_parts(), torch.arange(cinema.n_users)
    halves = [ask(parts, cinema, half, 0, seed=0) for half in (users[:30], users[30:])]
    both = fit_blend(parts, cinema, users[:30], 0, 0, told=halves)
    assert [bucket.gain.users for bucket in both.buckets if bucket.gain] == [60] * 7
    shifted = [Stack(s.users, s.predictions + 1 - c, s.std, s.ratings, np.full(2, c)) for s in halves[1] for c in [0.5]]
    one, other = joined([halves[0][0], shifted[0]]), joined([halves[0][0], halves[1][0]])
    n = len(halves[0][0].ratings)
    assert one.predictions[:n] + one.centres == pytest.approx(other.predictions[:n] + other.centres)
    assert one.predictions[n:] + one.centres == pytest.approx(other.predictions[n:] + other.centres + 1)


def test_a_learnt_blend_brings_preferences_onto_the_scale_and_scales_its_std(cinema: Dataset) -> None:
    seen = cinema.interactions
    totals = torch.zeros(cinema.n_items).index_add_(0, seen.items, seen.values)
    means = totals / torch.bincount(seen.items, minlength=cinema.n_items)
    flat, preference = Fixed([float(seen.values.mean())] * cinema.n_items, std=0.1), Fixed((100 * means).tolist())
    parts = [
        (BlendPart(role="collaborative", digest="a", recommender="flat"), flat),
        (BlendPart(role="ranking", digest="b", recommender="preference"), preference),
    ]
    blend = fit_blend(parts, cinema, torch.arange(30), 0, seed=0)
    assert [bucket.min_support for bucket in blend.buckets] == [0, 1, 3, 5, 10, 20, 50]
    for bucket in blend.buckets:
        assert bucket.weights == pytest.approx([1.0, 0.01], rel=0.3)
        assert bucket.centres == pytest.approx([0.0, 100 * float(seen.values.mean())], rel=0.1)
        assert bucket.std_scale > 2  # a std of 0.1 promised far too much
    assert blend == fit_blend(parts, cinema, torch.arange(30), 0, seed=0)


def test_lists_are_ordered_by_what_tells_what_is_liked_next(cinema: Dataset) -> None:
    """A part that knows how often an item is liked gets the weight; one that orders at random gets none."""
    seen = cinema.interactions
    liked = torch.bincount(seen.items[seen.values > 3.5], minlength=cinema.n_items).float()
    knows = Fixed((liked + 1).log().tolist())
    guesses = Fixed(torch.randperm(cinema.n_items, generator=torch.Generator().manual_seed(1)).float().tolist())
    for weights in fit_ranking([knows, guesses], cinema, torch.arange(30), 0, [(0,), (1, 3)], seed=0):
        assert weights is not None
        assert weights[0] > 10 * weights[1]
        assert weights[0] > 0.3  # a softmax of log frequencies is the frequencies: one unit weighs 1


def test_a_part_that_likelihood_has_no_use_for_may_yet_order_lists() -> None:
    scores = torch.tensor([[[1.0, 0.0], [0.5, 3.0], [0.0, 0.0]]])  # (1 user, 3 items, 2 parts)
    made = Choices(torch.tensor([0]), scores, liked=torch.tensor([[0.0, 1.0, 0.0]]))
    first, second = fitted_to_lists(np.array([[1.0, 0.0]]), [[made]])[0]
    assert 0.5 * first + 3 * second > first  # the liked one is before the other


def service(asked: list[dict[str, Any]]) -> Any:
    """A tiny ASGI service that rates every item by the length of the support."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        question = json.loads(body)
        asked.append(question)
        support = question["user"]["support"]
        status, answer = 200, {
            "domain": question["domain"],
            "predictions": [{"item_id": i, "rating": 1.0 + len(support), "std": 0.5} for i in question["items"]],
            "parts": [],
        }  # fmt: skip
        if len(asked) == 1:
            status, answer = 503, {"title": "overloaded"}
        if "f0" in question["items"] and scope["path"] != "/v1/predictions":
            status = 404
        headers = [(b"content-type", b"application/json"), (b"retry-after", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    return app


def test_a_service_is_asked_what_the_offline_rows_are_asked(cinema: Dataset) -> None:
    asked: list[dict[str, Any]] = []
    group = PROTOCOLS["kshot"](cinema, ProtocolOptions()).groups[2]
    transport = httpx.ASGITransport(app=service(asked))
    answers = ServedPredictor(cinema, "http://service", transport=transport).answer(group)
    assert (answers.mean == 4.0).all()  # k = 3, and the refusal of a busy service was only a delay
    assert answers.std is not None
    assert (answers.std == 0.5).all()
    assert len(asked) == len(group) + 1
    body = question_body(cinema, group, 0)
    user = int(group.users[0])
    number = int(cinema.user_ids[user].removeprefix("1m_"))
    assert body["user"]["attributes"] == {"age": 20 + number, "job": ("cook", "nurse")[number % 2]}
    assert body["items"] == [cinema.items.ids[i] for i in group.items[0].tolist()]
    assert [event["value"] for event in body["user"]["support"]] == group.support.values[0].tolist()
    assert set(body["user"]["support"][0]) == {"item_id", "value", "occurred_at"}


async def _refuse(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 422, "headers": []})
    await send({"type": "http.response.body", "body": b"unknown domain"})


def test_a_refusal_of_the_service_ends_the_evaluation(cinema: Dataset) -> None:
    group = PROTOCOLS["kshot"](cinema, ProtocolOptions()).groups[0]
    predictor = ServedPredictor(cinema, "http://service", transport=httpx.ASGITransport(app=_refuse))
    with pytest.raises(ServedError, match="422"):
        predictor.answer(group)


def test_an_evaluation_that_cannot_be_done_says_why(cinema: Dataset) -> None:
    with pytest.raises(EvaluationError, match="no protocol"):
        evaluate(cinema, Plan("kshots", []))
    with pytest.raises(EvaluationError, match="address"):
        evaluate(cinema, Plan("served", []))


def test_a_recommender_that_practises_with_support_is_trained_for_each_size_and_no_other_is() -> None:
    trained = trained_for(load("maml"), "supportsize")
    assert [recipe.settings["max_support"] for recipe in trained] == [1, 3, 5, 10, 20, 50]
    assert len({recipe.name for recipe in trained}) == 6
    assert trained_for(load("bias"), "supportsize") == [load("bias")]
    assert trained_for(load("maml"), "kshot") == [load("maml")]


@pytest.mark.parametrize("protocol", ["kshot", "foldin"])
def test_every_report_has_the_rows_that_make_it_honest(cinema: Dataset, protocol: str) -> None:
    settings = {"bayes": {"n_factors": 2, "iterations": 3}}
    found = evaluate(cinema, Plan(protocol, [], settings=settings, limit=8))
    names = [row.name for row in found.report.rows]
    assert {"random", "constant", "popularity", "bias", "bayes"} <= set(names)
    assert set(found.timings.rows) == set(names)


def test_every_seed_draws_other_new_items(cinema: Dataset) -> None:
    settings = {"bayes": {"n_factors": 2, "iterations": 3}}
    report = evaluate(cinema, Plan("itemcold", ["mf"], seeds=(0, 1), repeat=[], settings=settings, limit=8)).report
    drawn = [PROTOCOLS["itemcold"](cinema, ProtocolOptions(seed=seed)).training for seed in (0, 1)]
    assert len({data.fingerprint for data in drawn}) == 2
    assert report.description.endswith("2 draws, figures are their mean.")
    seeds = {row.name: row.seeds for row in report.rows}
    assert (seeds["bias"], seeds["mf"]) == ([0, 1], [0])


def test_the_blend_stands_beside_its_parts_and_names_the_checkpoints_kept(cinema: Dataset, tmp_path: Path) -> None:
    kept: list[str] = []

    def save(recipe: Any, seed: int, trained: Any, data: Dataset) -> str:
        kept.append(f"digest of {recipe.name}")
        return kept[-1]

    settings = {"bayes": {"n_factors": 2, "iterations": 3}}
    found = evaluate(cinema, Plan("kshot", [], blend=["bias", "bayes"], settings=settings), save=save)
    assert "blend" in [row.name for row in found.report.rows]
    assert [part.digest for part in found.blends[0].parts] == kept == ["digest of bias", "digest of bayes"]
    assert found.report.notes[0].startswith("Weights of the blend (bias, bayes)")


def test_a_recipe_that_refits_learns_from_everybody_for_the_epochs_that_were_selected(cinema: Dataset) -> None:
    sitting = Sitting(PROTOCOLS["kshot"](cinema, ProtocolOptions()))
    recipe = Recipe(name="prototypical", recommender="prototypical", refits=True, settings={"epochs": 3})
    sitting.add_recipe(recipe, [0])
    selected, refitted = (sitting._trained[f"prototypical{who}", 0] for who in ("", " on everyone"))
    assert refitted.fitted.report.epochs == selected.fitted.report.epochs
    assert sitting.entries["prototypical"].validation  # of the fit that held users out
    assert sitting.entries["prototypical"].seconds[0] > refitted.seconds
    before = selected.recommender.state_dict()
    assert any(not torch.equal(before[name], tensor) for name, tensor in refitted.recommender.state_dict().items())

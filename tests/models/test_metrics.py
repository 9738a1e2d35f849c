"""Every measure against a figure worked out by hand."""

import math

import numpy as np
import pytest

from models.evaluation import metrics

PREDICTED = np.array([3.0, 4.0, 5.0])
TRUTH = np.array([4.0, 4.0, 3.0])


def test_errors_are_pooled_over_ratings() -> None:
    assert metrics.mse(PREDICTED, TRUTH) == pytest.approx(5 / 3)  # (1 + 0 + 4) / 3
    assert metrics.rmse(PREDICTED, TRUTH) == pytest.approx(math.sqrt(5 / 3))
    assert metrics.mae(PREDICTED, TRUTH) == pytest.approx(1.0)  # (1 + 0 + 2) / 3


def test_ranking_puts_the_highest_first_ties_by_id_and_what_is_masked_last() -> None:
    scores = np.array([[1.0, 2.0, 2.0, 9.0]])
    mask = np.array([[True, True, True, False]])
    assert metrics.rank(scores, np.array([[4, 8, 6, 1]]), mask).tolist() == [[2, 1, 0, 3]]


def test_gain_is_two_to_the_rating_minus_one_or_whether_it_was_liked() -> None:
    assert metrics.gain(np.array([1.0, 3.0, 5.0])).tolist() == [1.0, 7.0, 31.0]
    assert metrics.gain(np.array([3.5, 4.0]), "binary").tolist() == [0.0, 1.0]


def test_dcg_discounts_by_the_logarithm_of_the_place() -> None:
    # 7 / log2 2 + 1 / log2 3 + 3 / log2 4
    assert metrics.dcg_at(np.array([[7.0, 1.0, 3.0]]), 3) == pytest.approx([7 + 1 / math.log2(3) + 1.5])


def test_ndcg_is_one_for_the_best_order_and_holds_true_ratings_against_the_ideal() -> None:
    best, ranked = np.array([[31.0, 7.0, 1.0]]), np.array([[7.0, 31.0, 1.0]])
    assert metrics.ndcg_at(best, ranked, 2) == pytest.approx([1.0])
    worse = (7 + 31 / math.log2(3)) / (31 + 7 / math.log2(3))
    assert metrics.ndcg_at(ranked, ranked, 2) == pytest.approx([worse])


def test_ndcg_cut_at_k_takes_its_ideal_from_all_items_not_from_the_list_retrieved() -> None:
    ranked = np.array([[0.0, 0.0, 1.0]])
    assert metrics.ndcg_at(ranked, ranked, 2) == pytest.approx([0.0])


def test_ndcg_of_a_user_who_liked_nothing_is_not_defined() -> None:
    assert np.isnan(metrics.ndcg_at(np.zeros((1, 3)), np.zeros((1, 3)), 3)).all()


HITS = np.array([[True, False, True, True], [False, False, False, True]])


def test_precision_is_the_share_of_the_first_k_places() -> None:
    assert metrics.precision_at(HITS, 2).tolist() == [0.5, 0.0]
    assert metrics.precision_at(HITS, 8).tolist() == [0.375, 0.125]  # empty places hold nothing relevant


def test_the_reciprocal_rank_is_that_of_the_first_hit() -> None:
    assert metrics.reciprocal_rank(HITS).tolist() == [1.0, 0.25]
    assert metrics.reciprocal_rank(np.zeros((1, 3), dtype=np.bool_)).tolist() == [0.0]


def test_recall_is_the_share_of_what_is_relevant() -> None:
    assert metrics.recall_at(HITS, np.array([4, 1]), 3).tolist() == [0.5, 0.0]
    assert metrics.recall_at(HITS, np.array([4, 1]), 2, truncated=True).tolist() == [0.5, 0.0]  # 1 of min(2, 4)
    assert np.isnan(metrics.recall_at(HITS[:1], np.array([0]), 2)).all()


def test_a_hit_is_any_relevant_item_in_the_list() -> None:
    assert metrics.hit_at(HITS, 1).tolist() == [1.0, 0.0]
    assert metrics.hit_at(HITS, 4).tolist() == [1.0, 1.0]


def test_an_interval_covers_what_lies_within_its_quantile() -> None:
    errors = np.array([1.64, 1.65, -1.64, -1.65])  # the 90 % interval of a unit normal ends at 1.6449
    assert metrics.covered(errors, np.ones(4), 0.9).tolist() == [1.0, 0.0, 1.0, 0.0]
    assert metrics.covered(2 * errors, np.full(4, 2.0), 0.9).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_negative_log_likelihood_is_that_of_the_normal() -> None:
    expected = [0.5 * math.log(2 * math.pi), 0.5 * (math.log(2 * math.pi * 4) + 9 / 4)]
    assert metrics.negative_log_likelihood(np.array([0.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(expected)

"""The paired bootstrap: what it must say of cases whose answer is known."""

import numpy as np
import pytest

from models.evaluation.significance import paired_bootstrap, per_user

GENERATOR = np.random.default_rng(5)


def test_tasks_of_one_user_are_added_up() -> None:
    users, totals, counts = per_user(np.array([7, 3, 7]), np.array([1.0, 2.0, 4.0]), np.array([10.0, 10.0, 5.0]))
    assert users.tolist() == [3, 7]
    assert totals.tolist() == [2.0, 5.0]
    assert counts.tolist() == [10.0, 15.0]


def test_a_recommender_does_not_differ_from_itself() -> None:
    errors = GENERATOR.exponential(size=50)
    interval = paired_bootstrap(errors, errors, np.ones(50), "root_mean")
    assert (interval.difference, interval.low, interval.high) == (0.0, 0.0, 0.0)
    assert not interval.significant


def test_a_constant_difference_is_found_exactly_however_much_users_differ() -> None:
    totals, counts = GENERATOR.normal(100, 30, size=40), np.full(40, 10.0)
    interval = paired_bootstrap(totals + 2.0, totals, counts, "mean")
    assert interval.difference == pytest.approx(0.2)
    assert (interval.low, interval.high) == pytest.approx((0.2, 0.2))
    assert interval.significant


def test_the_observed_difference_is_that_of_the_pooled_statistic() -> None:
    interval = paired_bootstrap(np.array([4.0, 5.0]), np.array([1.0, 0.0]), np.array([1.0, 3.0]), "root_mean")
    assert interval.difference == pytest.approx((9 / 4) ** 0.5 - (1 / 4) ** 0.5)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    system, baseline, counts = GENERATOR.normal(size=30), GENERATOR.normal(size=30), np.ones(30)
    first = paired_bootstrap(system, baseline, counts, "mean", seed=1)
    assert first == paired_bootstrap(system, baseline, counts, "mean", seed=1)
    assert first != paired_bootstrap(system, baseline, counts, "mean", seed=2)


def test_the_interval_of_a_mean_is_close_to_the_normal_one() -> None:
    differences = GENERATOR.normal(0.1, 1.0, size=400)
    interval = paired_bootstrap(differences, np.zeros(400), np.ones(400), "mean", n_resamples=10_000)
    half = 1.96 * differences.std() / 20
    assert interval.low == pytest.approx(differences.mean() - half, abs=0.01)
    assert interval.high == pytest.approx(differences.mean() + half, abs=0.01)


def test_without_users_there_is_nothing_to_say() -> None:
    with pytest.raises(ValueError, match="no user"):
        paired_bootstrap(np.zeros(0), np.zeros(0), np.zeros(0), "mean")

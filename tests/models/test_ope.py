"""Off-policy estimators: facts by hand, and truth on synthetic logs."""

from dataclasses import replace

import numpy as np
import pytest

from models.evaluation.ope import (
    ESTIMATORS,
    Log,
    compare,
    cross_fitted,
    effective_samples,
    evaluate,
    without_predictions,
)

N_ACTIONS, N_CONTEXTS = 6, 4


def by_hand() -> Log:
    """Two rows: one action that the policy would take twice as often, one that it never would."""
    return Log(
        rewards=np.array([1.0, 3.0]),
        propensities=np.array([0.25, 0.5]),
        targets=np.array([0.5, 0.0]),
        groups=np.array([0, 1]),
        predicted=np.array([0.5, 2.0]),
        expected=np.array([0.75, 0.25]),
    )


def test_two_rows_by_hand() -> None:
    """w = (2, 0): IPS (2·1 + 0) / 2, SNIPS 2 / 2, DR ((0.75 + 2·0.5) + 0.25) / 2; clipped at 1, 1/2, 1 and 3/4."""
    evaluation = evaluate(by_hand(), clip=1.0, n_resamples=10)
    assert [evaluation.of(estimator).value for estimator in ESTIMATORS] == [1.0, 1.0, 1.0]
    assert [evaluation.of(estimator, 1.0).value for estimator in ESTIMATORS] == [0.5, 1.0, 0.75]
    assert evaluation.logged_value == 2.0
    assert evaluation.effective_samples == 1.0


def test_without_predictions_doubly_robust_is_ips() -> None:
    evaluation = evaluate(without_predictions(by_hand()), n_resamples=50)
    assert evaluation.of("dr").value == evaluation.of("ips").value
    assert evaluation.of("dr").high == evaluation.of("ips").high


@pytest.mark.parametrize("wrong", [np.nan, 0.0, -0.1, 1.5, np.inf])
def test_rows_without_a_probability_are_left_out_and_counted(wrong: float) -> None:
    log = by_hand()
    log = replace(log, propensities=np.array([0.25, wrong]))
    evaluation = evaluate(log, n_resamples=10)
    assert evaluation.invalid_share == 0.5
    assert evaluation.n == 1
    assert evaluation.of("ips").value == 2.0
    with pytest.raises(ValueError, match="valid propensity"):
        evaluate(replace(log, propensities=np.full(2, wrong)))


def test_effective_samples() -> None:
    """Equal weights count in full, one heavy row counts once."""
    assert effective_samples(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_samples(np.array([1000.0, 1e-6, 1e-6])) == pytest.approx(1)
    assert effective_samples(np.zeros(3)) == 0


def test_estimates_are_true_on_average_and_doubly_robust_varies_least() -> None:
    """400 logs of a world whose value is known: means within 2 standard errors, DR with the smallest variance."""
    values = np.array([[log_estimate.value for log_estimate in of_world(seed)] for seed in range(400)])
    error = values.std(0) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(0) - true_value()) < 2 * error)
    variance = dict(zip(ESTIMATORS, values.var(0), strict=True))
    assert variance["dr"] < variance["snips"] < variance["ips"]


def test_intervals_cover_the_truth() -> None:
    """Of 200 intervals that are to hold it 9 times in 10, no fewer than 85 % and no more than 95 % do."""
    held = [
        estimate.low <= true_value() <= estimate.high
        for seed in range(200)
        for estimate in evaluate(world(seed), clip=None, level=0.9, n_resamples=400).estimates
        if estimate.estimator == "dr"
    ]
    assert 0.85 <= np.mean(held) <= 0.95


def test_a_comparison_is_paired() -> None:
    """A policy beside itself: no difference and no doubt about it; a better one beside a worse: surely better."""
    log = world(0)
    same = compare(log, log)
    assert (same.difference, same.low) == (0.0, 0.0)
    uniform = replace(log, targets=np.full(len(log.rewards), 1 / N_ACTIONS))
    assert compare(log, without_predictions(uniform)).low > 0
    assert compare(without_predictions(uniform), log).low < 0


def test_groups_are_resampled_whole() -> None:
    """The same rows ten times over: as groups of their own they feign certainty, as groups of ten they do not."""
    log = world(1, n=200)
    index = np.repeat(np.arange(200), 10)
    copies = log.rows(index)
    as_one = evaluate(replace(copies, groups=index), clip=None).of("ips")
    apart = evaluate(replace(copies, groups=np.arange(2000)), clip=None).of("ips")
    alone = evaluate(log, clip=None).of("ips")
    assert as_one.high - as_one.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert apart.high - apart.low < 0.5 * (as_one.high - as_one.low)


def test_predictions_come_from_the_other_half() -> None:
    """Rewards of even groups are 1 and of odd ones 0: each half predicts what the other one earned."""
    groups = np.arange(1000)
    predictions = cross_fitted(np.zeros(1000, np.int64), (groups % 2 == 0) * 1.0, groups, 2, strength=0.001)
    assert predictions[0, 0] == pytest.approx(0, abs=1e-4)
    assert predictions[1, 0] == pytest.approx(1, abs=1e-4)


def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean rewards, logging and evaluated probabilities of each action in each context, (N_CONTEXTS, N_ACTIONS)."""
    generator = np.random.default_rng(12)
    rewards = generator.uniform(0.1, 0.9, (N_CONTEXTS, N_ACTIONS))
    logging = generator.dirichlet(np.full(N_ACTIONS, 3.0), N_CONTEXTS)
    best = np.eye(N_ACTIONS)[rewards.argmax(1)]
    return rewards, logging, 0.7 * best + 0.3 / N_ACTIONS


def true_value() -> float:
    """What the evaluated policy earns in the world."""
    rewards, _, evaluated = _tables()
    return float((rewards * evaluated).sum(1).mean())


def world(seed: int, n: int = 1000) -> Log:
    """A log of the world, with predictions that are right but for a tenth."""
    rewards, logging, evaluated = _tables()
    generator = np.random.default_rng(1000 + seed)
    context = generator.integers(N_CONTEXTS, size=n)
    action = (generator.random((n, 1)) > logging[context].cumsum(1)).sum(1)
    action = np.minimum(action, N_ACTIONS - 1)
    model = rewards + 0.1 * np.random.default_rng(5).standard_normal(rewards.shape)
    return Log(
        rewards=(generator.random(n) < rewards[context, action]) * 1.0,
        propensities=logging[context, action],
        targets=evaluated[context, action],
        groups=np.arange(n),
        predicted=model[context, action],
        expected=(model * evaluated).sum(1)[context],
    )


def of_world(seed: int) -> list:
    return list(evaluate(world(seed), clip=None, n_resamples=2).estimates)

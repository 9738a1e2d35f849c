"""The sample of the Open Bandit Dataset: what its files say, read without their package."""

import numpy as np

from models.datasets.open_bandit import Campaign, Shown, parse

LOG = b""",timestamp,item_id,position,click,propensity_score,user_feature_0
0,2019-11-24 00:00:34.762830+00:00,14,3,0,0.0125,81ce
1,2019-11-24 00:00:35.000000+00:00,2,1,1,0.25,03a5
"""


def test_a_log_by_hand() -> None:
    shown = parse(LOG)
    assert shown.items.tolist() == [14, 2]
    assert shown.positions.tolist() == [2, 0]
    assert shown.clicks.tolist() == [0, 1]
    assert shown.propensities.tolist() == [0.0125, 0.25]


def test_thompson_sampling_shows_every_item_at_most_once_and_the_surely_better_one_first() -> None:
    nothing = Shown(*(np.empty(0, kind) for kind in (np.int64, np.int64, np.float64, np.float64)))
    alpha, beta = np.array([900.0, 1.0, 1.0, 1.0]), np.array([100.0, 99.0, 99.0, 99.0])
    shares = Campaign("all", {"random": nothing}, alpha, beta).thompson(n=20_000)
    assert shares[0].tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_allclose(shares.sum(0), 1)
    np.testing.assert_allclose(shares[1:, 1:], 1 / 3, atol=0.02)

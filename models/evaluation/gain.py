"""What something was worth to validation users, and whether that is certain: a gain with its one-sided 95 % bound."""

import numpy as np

from models.blend import Gain
from models.evaluation.metrics import Floats, Ints
from models.evaluation.significance import Statistic, paired_bootstrap, per_user

MIN_USERS = 20
"""Validation users below which nothing is known."""
LEVEL = 0.9
"""Of the two-sided interval whose lower end is the one-sided 95 % bound."""


def gain_of(users: Ints, before: Floats, after: Floats, statistic: Statistic) -> Gain | None:
    """How much smaller losses (M,) of the users (M,) are after than before; None of fewer than `MIN_USERS` users."""
    who, lost, counts = per_user(users, before, np.ones(len(users)))
    if len(who) < MIN_USERS:
        return None
    _, left, _ = per_user(users, after, np.ones(len(users)))
    found = paired_bootstrap(left, lost, counts, statistic, level=LEVEL)
    return Gain(gain=round(0.0 - found.difference, 6), low=round(0.0 - found.high, 6), users=len(who))

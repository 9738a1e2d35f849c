"""When the request under way is worth nothing any more, for whoever works on it: what comes later is not computed."""

import math
import time
from contextvars import ContextVar

DEADLINE: ContextVar[float] = ContextVar("deadline", default=math.inf)
"""Of the request that the task works on, by `time.monotonic`; infinite outside of requests."""


class DeadlinePassed(Exception):
    """The caller has been told already that there will be no answer in time."""


def in_time() -> None:
    """Raise DeadlinePassed where the request's deadline has passed."""
    if time.monotonic() > DEADLINE.get():
        raise DeadlinePassed

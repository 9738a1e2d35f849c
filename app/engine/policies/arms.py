"""Arms of a domain as the policies see them: counts by local index, at one moment."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Arms:
    """What was shown and what came of it, over all policies."""

    shows: NDArray[np.int64]
    """(n,) places that showed each item."""
    judged: NDArray[np.int64]
    """(n,) those of them with a reward, given or by default."""
    rewards: NDArray[np.float64]
    """(n,) sum of the rewards."""

    @classmethod
    def none(cls, n: int) -> "Arms":
        """Of n items that nobody has shown."""
        return cls(np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n))

    def __len__(self) -> int:
        return len(self.shows)

    def grown(self, n: int) -> "Arms":
        """The same with items behind that came since."""
        if n <= len(self):
            return self
        more = (0, n - len(self))
        return Arms(np.pad(self.shows, more), np.pad(self.judged, more), np.pad(self.rewards, more))

    @cached_property
    def bonus(self) -> NDArray[np.float32]:
        """sqrt(2 ln N / n_i) (n,), N shows altogether: UCB1's (Auer et al., Machine Learning 2002).

        An item that was never shown has the bonus of one that was shown once, so that its score still counts.
        """
        total = max(int(self.shows.sum()), 1)
        bonus: NDArray[np.float64] = np.sqrt(2 * np.log(total) / np.maximum(self.shows, 1))
        return bonus.astype(np.float32)

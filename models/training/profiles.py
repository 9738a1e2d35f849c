"""Profiles: what a user did in a domain, as numbers of a fixed size that a network can read.

    x_ud = [ sum_j w_j (r_j - base_uj) v_j, sum_j w_j (r_j - anyone_j - level_u) v_j, sum_j w_j v_j ] / (n + c), habits

over what user u did in domain d, with v_j the rows of the items: what they like beyond what the base says, what they
like beyond their own level, what they choose, and how they rate (`models.training.habits`).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.recommender import Evidence
from models.training.habits import HABITS, SHRINKAGE, habits


@dataclass(frozen=True)
class History:
    """What is known of B users, as a profile reads it; numbers are in steps of a five-point scale."""

    evidence: Evidence
    rows: Tensor
    """(B, L, E)."""
    in_target: Tensor
    """(B, L) bool."""
    deviation: Tensor
    """(B, L) from the mean of the domain."""
    surprise: Tensor
    """(B, L) from what the base says to somebody of whom only attributes are known."""
    residual: Tensor
    """(B, L) from what the base says to the user."""
    exposure: Tensor
    """(B, L) of the items, as in `models.training.habits`."""

    def profile(self, in_target: bool) -> Tensor:
        """x_ud (B, 3 E + 9) in one of the domains; zeros of who did nothing there."""
        weights = self.evidence.weights * (self.in_target == in_target)  # (B, L)
        total = weights.sum(1, keepdim=True) + SHRINKAGE
        level = (weights * self.surprise).sum(1, keepdim=True) / total
        opinions = torch.stack([self.residual, self.surprise - level, torch.ones_like(weights)], dim=1)
        means = (opinions * weights[:, None]) @ self.rows / total[..., None]  # (B, 3, E)
        there = replace(self.evidence, weights=weights)
        ways = habits(there, self.deviation, self.deviation - self.surprise, self.exposure)
        return torch.cat([means.flatten(1), ways], dim=1)

    def profiles(self) -> Tensor:
        """(B, 2, 3 E + 9): in the source (and whatever other domains there are), and in the target."""
        return torch.stack([self.profile(False), self.profile(True)], dim=1)


def profile_size(embedding_size: int) -> int:
    """Numbers of a profile."""
    return 3 * embedding_size + HABITS

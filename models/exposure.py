"""Who knows what: the chance that a user has met an item, and what one item's being known says of others.

    y_ui = s_i + ℓ_i . x_u + e_ui,    x_u ~ N(0, I),    e_ui ~ N(0, s_i (1 - s_i) - |ℓ_i|²)

y_ui is 1 where the user knows the item and 0 where not, s_i the share of the users who do, and x_u their habits: how
much they have met altogether, of which age, of which sort. The posterior of x_u, given that some items are known and
others are not, has a closed form. A linear model of a binary thing is crude for one item and good where it is used: to
compare items that many have met.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.training.gaussian import posterior

LEAST = 1e-3
"""No chance is below it nor above one less it, and no noise below it."""


@dataclass(frozen=True)
class Exposure:
    """What is known of n items beforehand."""

    share: Tensor
    """s (n,): of the users of the domain, how many know each item."""
    loadings: Tensor
    """ℓ (n, K)."""

    def chances(self, known: Tensor, unknown: Tensor) -> Tensor:
        """The chance (n,) that somebody knows each item, who knows the items at `known` and not those at `unknown`."""
        told = torch.cat([known, unknown])
        loadings, share = self.loadings[told], self.share[told]
        noise = (share * (1 - share) - loadings.square().sum(1)).clamp(min=LEAST)
        surprise = torch.cat([torch.ones_like(known), torch.zeros_like(unknown)]) - share
        weighted = loadings / noise[:, None]  # (m, K)
        eye = torch.eye(self.loadings.shape[1], dtype=loadings.dtype, device=loadings.device)
        habits, _ = posterior(eye + weighted.T @ loadings, weighted.T @ surprise)  # (K,)
        return (self.share + self.loadings @ habits).clamp(LEAST, 1 - LEAST)

    def packed(self) -> Tensor:
        """(n, 1 + K), as a column of an item table."""
        return torch.cat([self.share[:, None], self.loadings], dim=1)

    @classmethod
    def unpacked(cls, column: Tensor) -> "Exposure":
        """From such a column."""
        return cls(column[:, 0], column[:, 1:])

"""What somebody does, as a sequence of vectors: each action through the factors of its item, then one summary of all.

    x_j = [v_i, e_j v_i, e_j, weight, log(1 + days since the action before), kind]

v_i are the item's factors, scaled to unit variance, and e_j how far the rating, or the rating that a click, view or
purchase stands for, lies from what everybody thinks of the item: binary and continuous actions are one kind of vector.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers import with_constant
from models.recommender import Evidence
from models.training.newest import newest

DAY = 86400.0


@dataclass(frozen=True)
class Actions:
    """The newest actions of B users in one domain, oldest first."""

    items: Tensor
    """(B, L) int64, rows of the table; 0 where padded."""
    opinions: Tensor
    """(B, L) e, in steps of a five-point scale; 0 where padded."""
    context: Tensor
    """(B, L, C) weight, time since the action before and kind; 0 where padded."""
    mask: Tensor
    """(B, L) bool."""

    @classmethod
    def of(cls, evidence: Evidence, expected: Tensor, unit: Tensor, n_kinds: int, last: int) -> "Actions":
        """The last actions of each user. `expected` (B, L) is what everybody thinks of the items, `unit` (B, L) a step
        of a five-point scale, both on the scales of their domains."""
        kept = newest(evidence.mask, last)
        mask = evidence.mask.gather(1, kept)
        opinions = ((evidence.values - expected) / unit).gather(1, kept).where(mask, 0)
        times = evidence.times.gather(1, kept)
        gap = times.diff(dim=1, prepend=times[:, :1]).div(DAY).nan_to_num(nan=0.0).clamp(min=0).log1p().to(opinions)
        kinds = nn.functional.one_hot(evidence.kinds.gather(1, kept), n_kinds)
        context = torch.cat([evidence.weights.gather(1, kept)[..., None], gap[..., None], kinds.to(opinions)], dim=2)
        return cls(evidence.items.gather(1, kept).where(mask, 0), opinions, context * mask[..., None], mask)

    @staticmethod
    def width(n_factors: int, n_kinds: int) -> int:
        """Numbers of an embedded action."""
        return 2 * n_factors + 3 + n_kinds

    def embedded(self, factors: Tensor) -> Tensor:
        """(B, L, I) from the factors (N, K) of all items of the table."""
        found = factors[self.items] * self.mask[..., None]  # (B, L, K)
        own = self.opinions[..., None]
        return torch.cat([found, found * own, own, self.context], dim=2)

    @property
    def counts(self) -> Tensor:
        """(B,) actions of each user."""
        return self.mask.sum(dim=1)


class MeanPooling(nn.Module):
    """What is left of `SequenceEncoder` without order: the mean of the actions, one layer each. Begins at zero."""

    def __init__(self, n_attributes: int, input_size: int, hidden_size: int, size: int) -> None:
        super().__init__()
        self.start = nn.Linear(1 + n_attributes, hidden_size, bias=False)
        self.action = nn.Linear(input_size, hidden_size, bias=False)
        self.out = nn.Linear(hidden_size, size, bias=False)

    def reset_parameters(self) -> None:
        """The last layer is zero: training begins with encodings that say nothing."""
        self.start.reset_parameters()
        self.action.reset_parameters()
        nn.init.zeros_(self.out.weight)

    def forward(self, attributes: Tensor, inputs: Tensor) -> Tensor:
        """(B, 1 + L, S) after none of the inputs (B, L, I), and after each."""
        steps = torch.cat([self.start(with_constant(attributes))[:, None], self.action(inputs)], dim=1).tanh()
        n = torch.arange(1, steps.shape[1] + 1, device=steps.device)[:, None]
        encodings: Tensor = self.out(steps.cumsum(dim=1) / n)
        return encodings

"""Making the representations of two domains alike: an adversary behind a reversed gradient, or matched moments."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


class _Reversal(torch.autograd.Function):
    """The identity, whose gradient is turned round."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(values: Tensor, strength: float = 1.0) -> Tensor:
    """The same values; what flows back is turned round and scaled by `strength`.

    Before a discriminator it makes features that the discriminator cannot tell apart, while the discriminator itself
    learns as ever. Ganin et al., "Domain-Adversarial Training of Neural Networks" (JMLR 2016).
    """
    reversed_: Tensor = _Reversal.apply(values, strength)  # type: ignore[no-untyped-call]
    return reversed_


def reversal_strength(done: float, steepness: float = 10.0) -> float:
    """Strength that grows from 0 to 1 over training, of which the share `done` has gone by (Ganin et al., section 5.2).

    >>> reversal_strength(0.0), round(reversal_strength(1.0), 3)
    (0.0, 1.0)
    """
    return 2 / (1 + math.exp(-steepness * done)) - 1


def domain_loss(discriminator: nn.Module, source: Tensor, target: Tensor, done: float) -> Tensor:
    """Cross-entropy of a discriminator that tells representations of the source (n, E) from those of the target (m, E).

    Added to a loss it trains the discriminator to tell and, more and more with the share of training `done`, what makes
    the representations to leave nothing to be told by. Both domains weigh the same; 0 where one has none.
    """
    if not len(source) or not len(target):
        return source.sum() * 0 + target.sum() * 0
    strength = reversal_strength(done)
    sides = [discriminator(reverse_gradient(points, strength)).squeeze(-1) for points in (source, target)]
    return (softplus(sides[0]).mean() + softplus(-sides[1]).mean()) / 2


BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the kernels of `mmd`, in units of the mean squared distance."""


def mmd(source: Tensor, target: Tensor, bandwidths: Sequence[float] = BANDWIDTHS) -> Tensor:
    """Squared maximum mean discrepancy of two samples (n, E) and (m, E): 0 where their distributions are the same.

    A mean of Gaussian kernels whose widths are multiples of the mean squared distance between all points, as in Long et
    al., "Learning Transferable Features with Deep Adaptation Networks" (ICML 2015). The unbiased estimate (Gretton et
    al., JMLR 2012), so it may lie a little below 0. Needs two points of each; otherwise it is 0.
    """
    n, m = len(source), len(target)
    if n < 2 or m < 2:
        return source.sum() * 0 + target.sum() * 0
    points = torch.cat([source, target])
    squared = (points[:, None] - points[None]).square().sum(dim=-1)  # (n + m, n + m)
    scale = squared.detach().sum() / ((n + m) * (n + m - 1))
    kernel = torch.stack([torch.exp(-squared / (width * scale).clamp(min=1e-12)) for width in bandwidths]).mean(dim=0)
    within = kernel.fill_diagonal_(0)
    return within[:n, :n].sum() / (n * (n - 1)) + within[n:, n:].sum() / (m * (m - 1)) - 2 * within[:n, n:].mean()

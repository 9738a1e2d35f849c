"""Inner loops of meta-learning: how weights become a user's own on their support, batched over users.

The inner problem is weighted least squares on the support, shrunken towards where it starts:

    L(theta) = sum_j w_j (y_j - f_theta(x_j))^2 / (sum_j w_j + reg)

so a lone rating moves the weights less than twenty that agree, and nothing moves them where there is no support.
Everything here is made of differentiable operations without autograd, so gradients flow through every step in
training (true second order; Finn et al., "Model-Agnostic Meta-Learning", ICML 2017) and the same code serves under
`torch.no_grad`. Shapes: B users, L support interactions, H hidden units.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]
"""Fast weights by name, (B, …) each."""
Layer = tuple[Tensor, Tensor]
"""Weight (B, in, out), or (in, out) while all users share it, and bias (B, out) of a linear layer."""
Rate = tuple[Tensor | float, Tensor | float]
"""Inner learning rates of a layer's weight and bias: one for all its parameters or one each, per user or not."""


@dataclass(frozen=True)
class Support:
    """What an inner loop learns from."""

    inputs: Tensor
    """(B, L, E)."""
    targets: Tensor
    """(B, L)."""
    weights: Tensor
    """(B, L), 0 where padded."""


def descend(
    weights: Weights,
    gradient: Callable[[Weights], Weights],
    rates: Weights | float,
    steps: int,
    first_order: bool = False,
) -> list[Weights]:
    """Weights after 0, 1, …, `steps` steps of gradient descent, new tensors each.

    `rates` are one number or one a parameter (Meta-SGD; Li et al. 2017). With `first_order` the gradients count as
    constants (FOMAML).
    """
    trajectory = [weights]
    for _ in range(steps):
        slope = gradient(weights)
        weights = {
            name: weight
            - (rates if isinstance(rates, float) else rates[name])
            * (slope[name].detach() if first_order else slope[name])
            for name, weight in weights.items()
        }
        trajectory.append(weights)
    return trajectory


def error_slope(predicted: Tensor, support: Support, reg: float) -> Tensor:
    """dL / d prediction, (B, L); zero where there is no support."""
    total = (support.weights.sum(dim=1, keepdim=True) + reg).clamp(min=1e-9)
    return (predicted - support.targets) * (2 * support.weights / total)


def descend_linear(
    start: Tensor, support: Support, rates: Tensor | float, steps: int, reg: float, first_order: bool = False
) -> list[Tensor]:
    """Weights (B, E) of a linear predictor after 0, 1, …, `steps` steps down the support loss from `start`.

    `rates` are one number or one a weight.
    """

    def gradient(weights: Weights) -> Weights:
        predicted = (support.inputs @ weights["head"].unsqueeze(-1)).squeeze(-1)  # (B, L)
        slope = error_slope(predicted, support, reg)
        return {"head": (slope.unsqueeze(1) @ support.inputs).squeeze(1)}

    by_name: Weights | float = rates if isinstance(rates, float) else {"head": rates}
    return [step["head"] for step in descend({"head": start}, gradient, by_name, steps, first_order)]


def mlp_forward(layers: Sequence[Layer], inputs: Tensor) -> list[Tensor]:
    """Activations of each layer of a rectified network with a weight set a user: hidden ones, then outputs (B, L, out).

    `inputs` are (B, L, in), or (L, in) where all users have the same.
    """
    activations = []
    for i, (weight, bias) in enumerate(layers):
        inputs = _affine(inputs, weight, bias)
        if i < len(layers) - 1:
            inputs = inputs.relu_()
        activations.append(inputs)
    return activations


def mlp_step(
    layers: Sequence[Layer], support: Support, rates: Sequence[Rate], reg: float, first_order: bool = False
) -> list[Layer]:
    """The layers of a network with one output, after one step down the support loss; backpropagation by hand."""
    activations = mlp_forward(layers, support.inputs)
    slope = error_slope(activations[-1].squeeze(-1), support, reg).unsqueeze(-1)  # (B, L, 1)
    stepped: list[Layer] = []
    for i in reversed(range(len(layers))):
        weight, bias = layers[i]
        below = activations[i - 1] if i else support.inputs  # (B, L, in)
        back = slope
        if first_order:
            below, slope = below.detach(), slope.detach()
        stepped.append(_stepped(weight, bias, below, slope, rates[i]))
        if i:
            slope = (back @ weight.mT) * (activations[i - 1] > 0)  # (B, L, in)
    return stepped[::-1]


def _affine(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Inputs (B, L, in) or (L, in), weight (B, in, out) or (in, out), bias (B, out) → (B, L, out)."""
    if weight.dim() == 2:
        return inputs @ weight + bias.unsqueeze(1)
    # A batched product even of inputs that all share: matmul would lay out its result transposed.
    return torch.bmm(inputs.expand(len(weight), -1, -1), weight).add_(bias.unsqueeze(1))


def _stepped(weight: Tensor, bias: Tensor, below: Tensor, slope: Tensor, rate: Rate) -> Layer:
    """A layer less its rates times its gradient."""
    total = slope.sum(dim=1)  # (B, out)
    bias = torch.sub(bias, total, alpha=rate[1]) if isinstance(rate[1], float) else bias - rate[1] * total
    if isinstance(rate[0], float):
        return torch.baddbmm(weight.expand(len(slope), -1, -1), below.mT, slope, alpha=-rate[0]), bias
    return weight - rate[0] * (below.mT @ slope), bias


def ridge(support: Support, prior: Tensor, covariance: bool = False) -> tuple[Tensor, Tensor | None]:
    """Posterior of linear weights with prior N(prior, I) and unit noise: mean (B, E), covariance (B, E, E) if asked.

        mean = prior + (I + X'WX)^-1 X'W (y - X prior)

    solved for the weights or, where there are fewer interactions than weights, for the interactions. It is where the
    inner loop's gradient descent on L, with the prior as its penalty, would end.
    """
    seen = support.weights > 0
    root = support.weights.where(seen, 1).sqrt() * seen  # the root of a zero has no gradient
    x = support.inputs * root.unsqueeze(-1)  # (B, L, E)
    y = (root * support.targets).unsqueeze(-1) - x @ prior.unsqueeze(-1)  # (B, L, 1)
    if x.shape[1] < x.shape[2]:
        factor = _cholesky(x @ x.mT)
        mean = x.mT @ torch.cholesky_solve(y, factor)
        if not covariance:
            return prior + mean.squeeze(-1), None
        half = torch.linalg.solve_triangular(factor, x, upper=False)  # (B, L, E)
        eye = torch.eye(x.shape[2], device=x.device, dtype=x.dtype).expand(len(x), -1, -1)
        return prior + mean.squeeze(-1), torch.baddbmm(eye, half.mT, half, alpha=-1)
    factor = _cholesky(x.mT @ x)
    mean = torch.cholesky_solve(x.mT @ y, factor)
    return prior + mean.squeeze(-1), torch.cholesky_inverse(factor) if covariance else None


def _cholesky(gram: Tensor) -> Tensor:
    """Lower factor of I + gram, which is never singular."""
    gram = gram + torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)
    factor: Tensor = torch.linalg.cholesky_ex(gram).L
    return factor

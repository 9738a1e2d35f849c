"""Ordinal regression: steps of a rating scale as cuts through a latent liking, and one number to answer with.

    P(r <= k | x) = Φ(θ_k - x . β),    θ_1 < θ_2 < θ_3 < θ_4,    k = 1 .. 5        cumulative probit
    answer(x) = argmin_a  (1 - λ) E[(r - a)²] + λ E|r - a|

(McCullagh, "Regression models for ordinal data", JRSS B 1980.) λ = 0 answers with the mean and λ = 1 with the median of
what somebody may say. Where most ratings are high and the others far below, these lie apart: the mean is best in
squared and poor in absolute error, the median the reverse, and a point between them is good in both.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.special import ndtr, ndtri

STEPS = 5
"""Of the rating scale that answers are on, 1 to 5."""
EVALUATIONS = 200


class Ordinal(nn.Module):
    """A cumulative probit model of ratings on a five-point scale."""

    centre: Tensor
    scale: Tensor
    weights: Tensor
    cuts: Tensor
    fitted: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.register_buffer("weights", torch.zeros(n_features))  # β
        self.register_buffer("cuts", torch.zeros(STEPS - 1))  # θ
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def fit(self, features: Tensor, steps: Tensor, weights: Tensor, ridge: Tensor) -> None:
        """Learn from ratings by penalised maximum likelihood: features (M, F), of which the first is the best guess
        there is; steps (M,) int64 from 0 to 4; how much each counts (M,); and the penalty of each feature's weight
        (F,), standardised, in ratings that say it is zero."""
        x, weights = features.double(), weights.double()
        share = weights / weights.sum()
        centre = share @ x
        scale = (share @ (x - centre).square()).sqrt().clamp(min=1e-6)
        x = (x - centre) / scale
        below = torch.stack([share[steps <= k].sum() for k in range(STEPS - 1)])
        start = ndtri(below.clamp(1e-4, 1 - 1e-4).cummax(0).values)
        first, gaps = start[:1].clone(), start.diff().clamp(min=1e-3).log()
        beta = torch.zeros(x.shape[1], dtype=torch.double)
        beta[0] = 0.5
        parameters = [beta.requires_grad_(), first.requires_grad_(), gaps.requires_grad_()]
        optimizer = torch.optim.LBFGS(parameters, max_iter=EVALUATIONS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            cuts = torch.cat([first, first + gaps.exp().cumsum(0)])
            likelihood = (weights * _likelihood(cuts, x @ beta, steps).clamp(min=1e-12).log()).sum()
            penalised = (ridge.double() * beta.square()).sum() / 2 - likelihood
            torch.autograd.backward(penalised)
            return penalised

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]
        self.centre.copy_(centre)
        self.scale.copy_(scale)
        self.weights.copy_(beta.detach())
        self.cuts.copy_(torch.cat([first, first + gaps.exp().cumsum(0)]).detach())
        self.fitted.fill_(True)

    def at_most(self, features: Tensor) -> Tensor:
        """P(r <= k) for k = 1 .. 4, (…, 4), of features (…, F)."""
        liking = ((features - self.centre) / self.scale) @ self.weights
        below: Tensor = ndtr(self.cuts - liking[..., None])
        return below

    def answer(self, features: Tensor, absolute: float) -> Tensor:
        """The number (…) on the scale from 1 to 5 that costs least, λ = `absolute` below 1 being absolute error's
        part; features (…, F).

        The cost's slope 2 (1 - λ) (a - E r) + λ (2 P(r <= a) - 1) rises with a, by jumps at the steps. Where P = p_k,
        between the steps k and k + 1, it is zero at a_k = E r - λ (2 p_k - 1) / (2 (1 - λ)), which falls with k.
        """
        below = self.at_most(features)
        mean = STEPS - below.sum(-1)
        pull = absolute / (2 * (1 - absolute))
        best = mean - pull  # a_5, beyond the last step
        for k, share in enumerate(pad(below, (1, 0)).unbind(-1)):
            best = torch.maximum(best, (mean - pull * (2 * share - 1)).clamp(max=k + 1))
        return best


def _likelihood(cuts: Tensor, liking: Tensor, steps: Tensor) -> Tensor:
    """P(r = step), (M,)."""
    bounds = pad(cuts, (1, 1), value=torch.inf)
    bounds = torch.cat([-bounds[:1], bounds[1:]])
    likelihood: Tensor = ndtr(bounds[steps + 1] - liking) - ndtr(bounds[steps] - liking)
    return likelihood

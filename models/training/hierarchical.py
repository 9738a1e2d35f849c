"""A hierarchical variational autoencoder between what a user did, summed up, and what they may do.

With h the bottleneck, a the user's attributes and f a tanh, layers z_2 (upper) and z_1 (lower):

    q(z_2 | h, a)      = N(mean, variance of f(h + A_2 a))
    q(z_1 | h, a, z_2) = N(mean, variance of f(h + A_1 a + C z_2))
    p(z_1 | z_2)       = N(mean, variance of z_2),      p(z_2) = N(0, I) or VampPrior
    g                  = f(D_2 z_2 + D_1 z_1 + d)

Both layers read the one bottleneck; each has a projection of the attributes of its own. After Kim & Suh, "Enhancing
VAEs for Collaborative Filtering: Flexible Priors & Gating Mechanisms" (RecSys 2019), who take the hierarchy, the prior
and the gates from Tomczak & Welling, "VAE with a VampPrior" (AISTATS 2018) and Dauphin et al. (ICML 2017). With one
layer it is the autoencoder of Liang et al., "Variational Autoencoders for Collaborative Filtering" (WWW 2018).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

LOG_VARIANCE_BOUND = 8.0
"""Logarithms of variances are kept within this of 0, so that no exponential overflows."""


@dataclass(frozen=True)
class Gaussian:
    """Independent normals."""

    mean: Tensor
    log_variance: Tensor

    def draw(self) -> Tensor:
        """One draw, differentiable in both parameters, from torch's current generator."""
        return self.mean + torch.randn_like(self.mean) * (0.5 * self.log_variance).exp()

    def log_density(self, value: Tensor) -> Tensor:
        """Sum over the last axis."""
        scaled = (value - self.mean).square() * (-self.log_variance).exp()
        return -0.5 * (scaled + self.log_variance + math.log(2 * math.pi)).sum(dim=-1)

    def divergence(self, other: "Gaussian") -> Tensor:
        """KL(self || other), summed over the last axis."""
        gap = ((self.mean - other.mean).square() + self.log_variance.exp()) * (-other.log_variance).exp()
        return 0.5 * (gap - 1 + other.log_variance - self.log_variance).sum(dim=-1)


class ToGaussian(nn.Linear):
    """A linear layer whose outputs are means and logarithms of variances."""

    def __init__(self, n_in: int, size: int) -> None:
        super().__init__(n_in, 2 * size)

    def gaussian(self, inputs: Tensor) -> Gaussian:
        """The normals that the inputs (…, n_in) stand for."""
        mean, log_variance = self(inputs).chunk(2, dim=-1)
        return Gaussian(mean, log_variance.clamp(-LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND))


class Layer(nn.Module):
    """One stochastic layer: its posterior, and its part of the decoder."""

    def __init__(self, size: int, n_attributes: int, n_above: int, n_hidden: int) -> None:
        super().__init__()
        self.size = size
        self.attributes = nn.Linear(n_attributes, n_hidden, bias=False)
        self.above = nn.Linear(n_above, n_hidden, bias=False) if n_above else None
        self.prior = ToGaussian(n_above, size) if n_above else None
        self.posterior = ToGaussian(n_hidden, size)
        self.decode = nn.Linear(size, n_hidden)

    def infer(self, bottleneck: Tensor, attributes: Tensor, above: Tensor | None) -> Gaussian:
        """q, from the bottleneck (B, H), attributes (B, A) and the layer above (B, Z'), where there is one."""
        hidden: Tensor = bottleneck + self.attributes(attributes)
        if self.above is not None:
            hidden = hidden + self.above(above)
        return self.posterior.gaussian(torch.tanh(hidden))


class Hierarchy(nn.Module):
    """One or two stochastic layers. A code is the layers' values side by side, upper first: (B, S)."""

    def __init__(
        self, n_attributes: int, n_hidden: int, sizes: tuple[int, ...], *, gated: bool = False, n_pseudo_inputs: int = 0
    ) -> None:
        """`sizes`: of the layers, upper first. `n_pseudo_inputs`: components of the VampPrior; 0: a standard normal."""
        super().__init__()
        above = (0, *sizes[:-1])
        self.stack = nn.ModuleList(
            Layer(size, n_attributes, n_above, n_hidden) for size, n_above in zip(sizes, above, strict=True)
        )
        self.gate = nn.Linear(n_hidden, n_hidden) if gated else None
        self.pseudo_inputs = nn.Parameter(torch.zeros(n_pseudo_inputs, n_hidden)) if n_pseudo_inputs else None
        self.sizes = sizes

    @property
    def layers(self) -> list[Layer]:
        """Upper first."""
        return [layer for layer in self.stack if isinstance(layer, Layer)]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin where attributes say nothing and no layer knows of the one above."""
        for layer in self.layers:
            nn.init.zeros_(layer.attributes.weight)
            if layer.above is not None and layer.prior is not None:
                nn.init.zeros_(layer.above.weight)
                nn.init.zeros_(layer.prior.weight)
                nn.init.zeros_(layer.prior.bias)
        if self.pseudo_inputs is not None:
            nn.init.normal_(self.pseudo_inputs)

    def encode(self, bottleneck: Tensor, attributes: Tensor) -> Tensor:
        """(B, S), posterior means; the lower layer's given the mean of the upper one."""
        bottleneck = self._gated(bottleneck)
        means: list[Tensor] = []
        for layer in self.layers:
            means.append(layer.infer(bottleneck, attributes, means[-1] if means else None).mean)
        return torch.cat(means, dim=1)

    def draw(self, bottleneck: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor]:
        """((B, S) a code drawn from the posterior, (B,) its divergence from the prior)."""
        bottleneck = self._gated(bottleneck)
        codes: list[Tensor] = []
        divergence = bottleneck.new_zeros(len(bottleneck))
        for layer in self.layers:
            above = codes[-1] if codes else None
            posterior = layer.infer(bottleneck, attributes, above)
            codes.append(posterior.draw())
            if above is not None and layer.prior is not None:
                divergence = divergence + posterior.divergence(layer.prior.gaussian(above))
            elif self.pseudo_inputs is None:
                flat = torch.zeros_like(posterior.mean)
                divergence = divergence + posterior.divergence(Gaussian(flat, flat))
            else:
                divergence = divergence + posterior.log_density(codes[0]) - self._vamp_log_density(codes[0])
        return torch.cat(codes, dim=1), divergence

    def decode(self, codes: Tensor) -> Tensor:
        """(B, H), what is multiplied with item rows."""
        parts = zip(self.layers, torch.split(codes, list(self.sizes), dim=1), strict=True)
        return torch.tanh(torch.stack([layer.decode(code) for layer, code in parts]).sum(dim=0))

    def _gated(self, bottleneck: Tensor) -> Tensor:
        return bottleneck if self.gate is None else bottleneck * torch.sigmoid(self.gate(bottleneck))

    def _vamp_log_density(self, codes: Tensor) -> Tensor:
        """(B,) log of the mean over components q(z | pseudo-input)."""
        assert self.pseudo_inputs is not None
        upper = self.layers[0]
        nobody = codes.new_zeros(len(self.pseudo_inputs), upper.attributes.in_features)
        components = upper.infer(self.pseudo_inputs, nobody, None)  # (K, Z)
        each = components.log_density(codes[:, None])  # (B, K)
        return torch.logsumexp(each, dim=1) - math.log(len(self.pseudo_inputs))

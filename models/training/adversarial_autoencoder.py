"""An adversarial autoencoder of codes: what stands for people of one domain becomes like what stands for another's.

    t = z + bound tanh(f(z))                         the mapped code, near to where it was
    |R(t) - x|^2                                     reconstruction of what was encoded: nothing of it is to be lost
    max_D  log D(z', a) + log(1 - D(t + s n, a))     discriminator on codes of the other domain, z', and mapped ones
    mmd(t + s n, prior)                              and on the prior

Makhzani et al., "Adversarial Autoencoders" (2015), with the gradient that the discriminator sends back turned round.
Nobody needs to be in both domains. The discriminator sees the attributes a besides, so that people are compared with
people like them. What a history elsewhere tells of somebody is less than what they are: the noise s n stands for what
it leaves open, or else matching would blow up the codes until they varied as much as people do.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from models.layers import MLP
from models.training.alignment import mmd, reverse_gradient


class AdversarialAutoencoder(nn.Module):
    """Maps codes (B, R); `input_size` is that of what they encode, `n_attributes` that of what is known of people."""

    open: Tensor

    def __init__(self, code_size: int, input_size: int, n_attributes: int, hidden_size: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.map = MLP([code_size, hidden_size, code_size])
        self.back = MLP([code_size, hidden_size, input_size])
        self.discriminator = MLP([code_size + n_attributes, hidden_size, 1])
        self.register_buffer("open", torch.zeros(code_size))  # s, what codes leave open

    def reset_parameters(self) -> None:
        """The map begins as the identity."""
        nn.init.zeros_(self.map.linears()[-1].weight)
        nn.init.zeros_(self.map.linears()[-1].bias)

    def forward(self, codes: Tensor) -> Tensor:
        """t (B, R)."""
        mapped: Tensor = codes + self.bound * self.map(codes).tanh()
        return mapped

    def leave_open(self, codes: Tensor, others: Tensor) -> None:
        """Let s be what brings the variance of codes (n, R) to that of the other domain's (m, R), as both stand."""
        self.open.copy_((others.var(dim=0) - codes.var(dim=0)).clamp(min=0).sqrt())

    def reconstruction_loss(self, mapped: Tensor, inputs: Tensor) -> Tensor:
        """Mean squared error of what was encoded, (B, I), from mapped codes."""
        error: Tensor = self.back(mapped) - inputs
        return error.square().mean()

    def adversarial_loss(
        self,
        mapped: Tensor,
        attributes: Tensor,
        others: Tensor,
        their_attributes: Tensor,
        strength: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Of the discriminator, which learns to tell mapped codes (B, R) from others (m, R), and of the prior: the
        normal distribution that is as wide as the others, which stay where they are.

        `strength` is that of the reversed gradient.
        """
        noise, draws = torch.randn(2, *mapped.shape, generator=generator).to(mapped)
        drawn, others = mapped + self.open * noise, others.detach()
        there = self.discriminator(torch.cat([reverse_gradient(drawn, strength), attributes], dim=1))
        here = self.discriminator(torch.cat([others, their_attributes], dim=1))
        told = binary_cross_entropy_with_logits(there, torch.zeros_like(there))
        told = told + binary_cross_entropy_with_logits(here, torch.ones_like(here))
        prior = others.mean(dim=0) + others.std(dim=0, correction=0) * draws
        return told + strength * mmd(drawn, prior)

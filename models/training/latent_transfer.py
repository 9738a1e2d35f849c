"""The network of KTLF: a history in one domain, as a place in the latent space of another.

    h   = LSTM(actions)                    self-attention over it; or their mean
    z   = V x + bound tanh(V' h)           x: what closed forms say of the history
    t   = AAE(z)                           moves it by no more than the bound
    w   = U t + bound tanh(W LSTM_decoder(t))

U V, of low rank, is a linear map from x to the target that a closed form has found. Training sets out from there and
never gets far from it: adversaries without pairs to hold them would carry people anywhere.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers import reset_parameters
from models.training.actions import MeanPooling
from models.training.adversarial_autoencoder import AdversarialAutoencoder
from models.training.sequence import SequenceEncoder, after
from models.training.sequence_decoder import Decoded, SequenceDecoder, Teacher, free_running

MIN_STRENGTH = 1e-6
"""Least that a direction of tastes counts for, as a share of the one that counts for most."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a `LatentTransfer`, and which of its parts it has."""

    told: int
    """E, what closed forms say of a history."""
    attributes: int
    """A."""
    action: int
    """I, numbers of an action as it is read."""
    output: int
    """P, the latent space of the target."""
    rank: int
    """R, of the shared latent space; at most P."""
    hidden: int
    """H, of the LSTMs and the networks of the autoencoder."""
    bound: float
    """How far autoencoder and decoder may move somebody, in standard deviations of tastes."""
    use_lstm: bool
    use_autoencoder: bool
    use_decoder: bool


class LatentTransfer(nn.Module):
    """Encoders of both domains, the shared latent space, the map between the two and the decoder."""

    told: Tensor
    up: Tensor
    down: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        encoder = SequenceEncoder if shape.use_lstm else MeanPooling
        sizes = (shape.attributes, shape.action, shape.hidden, shape.hidden)
        self.source, self.target = encoder(*sizes), encoder(*sizes)
        self.register_buffer("told", torch.zeros(shape.rank, shape.told))  # V
        self.register_buffer("up", torch.zeros(shape.output, shape.rank))  # U
        self.register_buffer("down", torch.zeros(shape.rank, shape.output))  # the pseudo-inverse of U
        self.read = nn.Linear(shape.hidden, shape.rank, bias=False)  # V'
        self.there = nn.Linear(shape.hidden, shape.rank, bias=False)  # the same of the target
        self.autoencoder = AdversarialAutoencoder(
            shape.rank, shape.told, shape.attributes, shape.hidden, shape.bound if shape.use_autoencoder else 0.0
        )
        self.decoder = SequenceDecoder(shape.rank, shape.output, shape.hidden)
        self.readout = nn.Linear(shape.hidden, shape.output, bias=False)

    @torch.no_grad()
    def start(self, linear: Tensor, told: Tensor, metric: Tensor) -> None:
        """Begin at w = `linear` x, (P, E), for people of whom `told` (n, E) are: V and U are its best of rank R by what
        they do to ratings, w' `metric` w with a metric (P, P), in a scale in which codes have unit variance. All else
        is drawn from torch's own generator."""
        reset_parameters(self)
        for part in (self.source, self.target, self.autoencoder):
            part.reset_parameters()
        nn.init.zeros_(self.readout.weight)
        strengths, directions = torch.linalg.eigh(metric.double())
        least = MIN_STRENGTH * max(float(strengths.max()), 1.0)  # there may be no rating to go by
        root = directions * strengths.clamp(min=least).sqrt() @ directions.T  # (P, P)
        fitted = (told @ linear.T).double() @ root  # (n, P)
        basis = torch.linalg.svd(fitted, full_matrices=False)[2][: self.shape.rank]  # (R, P), orthonormal
        spread = (fitted @ basis.T).square().mean(dim=0).sqrt().clamp(min=1e-3)  # (R,)
        down = basis @ root / spread[:, None]
        found = {"told": down @ linear.double(), "up": torch.linalg.solve(root, basis.T * spread), "down": down}
        for name, matrix in found.items():  # fewer people than R leave zeros
            buffer: Tensor = getattr(self, name)
            buffer.zero_()[tuple(map(slice, matrix.shape))] = matrix.to(buffer)

    def encode(self, told: Tensor, attributes: Tensor, inputs: Tensor, n: Tensor) -> Tensor:
        """z (B, R) of a history in the source: x (B, E), attributes (B, A) and n (B,) actions (B, L, I)."""
        h = after(self.source(attributes, inputs), n)  # (B, H)
        codes: Tensor = told @ self.told.T + self.shape.bound * self.read(h).tanh()
        return codes

    def encode_target(self, place: Tensor, attributes: Tensor, inputs: Tensor, n: Tensor) -> Tensor:
        """z' (B, R) of a history in the target: where it puts somebody (B, P) in closed form, and its actions."""
        h = after(self.target(attributes, inputs), n)  # (B, H)
        codes: Tensor = place @ self.down.T + self.shape.bound * self.there(h).tanh()
        return codes

    def map(self, codes: Tensor) -> Tensor:
        """t (B, R)."""
        return self.autoencoder(codes) if self.shape.use_autoencoder else codes

    def decode(self, codes: Tensor, n_steps: int, teacher: Teacher = free_running) -> tuple[Tensor, Decoded | None]:
        """What the decoder adds to U t (B, P), and the sequence that it tells; None without a decoder."""
        if not self.shape.use_decoder:
            return codes.new_zeros(len(codes), self.shape.output), None
        decoded = self.decoder(codes, n_steps, teacher)
        return self.shape.bound * self.readout(decoded.summary).tanh(), decoded

    def forward(self, codes: Tensor, n_steps: int) -> Tensor:
        """w (B, P) from mapped codes t (B, R)."""
        return codes @ self.up.T + self.decode(codes, n_steps)[0]

"""A sequence decoder: an LSTM that tells, from one vector, what somebody does step by step.

Sutskever et al., "Sequence to sequence learning with neural networks" (NeurIPS 2014). Of what came before it is shown
the truth with the probability `teacher_forcing_ratio`, which falls over training, or else what it has said itself
(Bengio et al., "Scheduled sampling", NeurIPS 2015). Nobody knows the truth when it is asked, so it is judged running
freely.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Decoded:
    """What the decoder says of B people."""

    steps: Tensor
    """(B, T, A) an action at each step."""
    summary: Tensor
    """(B, H) the mean of its states."""


Teacher = Callable[[int, Tensor], Tensor]
"""`teacher(t, said)`: what stands at step t for the next one to read, (B, A), given what was said (B, A)."""


def free_running(step: int, said: Tensor) -> Tensor:
    """What was said stands."""
    return said


class SequenceDecoder(nn.Module):
    """From codes (B, R) to sequences of actions (B, T, A)."""

    def __init__(self, code_size: int, action_size: int, hidden_size: int) -> None:
        super().__init__()
        self.start = nn.Linear(code_size, 2 * hidden_size)
        self.cell = nn.LSTMCell(action_size + code_size, hidden_size)
        self.out = nn.Linear(hidden_size, action_size)
        self.action_size = action_size

    def forward(self, codes: Tensor, n_steps: int, teacher: Teacher = free_running) -> Decoded:
        """Tell `n_steps` actions; each step reads the code and what stands at the one before."""
        hidden, memory = self.start(codes).tanh().chunk(2, dim=1)
        before = codes.new_zeros(len(codes), self.action_size)
        said, states = [], []
        for step in range(n_steps):
            hidden, memory = self.cell(torch.cat([before, codes], dim=1), (hidden, memory))
            said.append(self.out(hidden))
            states.append(hidden)
            before = teacher(step, said[-1])
        return Decoded(torch.stack(said, dim=1), torch.stack(states, dim=1).mean(dim=1))


class NearestItems:
    """A teacher for telling items: the one nearest to what was said stands for it, each at most once a person."""

    def __init__(self, factors: Tensor, n_people: int) -> None:
        """`factors` (M, K) are those of the items; an action said is K factors and an opinion."""
        self.factors = factors
        self.taken = torch.zeros(n_people, len(factors), dtype=torch.bool, device=factors.device)
        self.chosen: list[Tensor] = []
        """(B,) int64 the item at each step so far."""

    def __call__(self, step: int, said: Tensor) -> Tensor:
        distance = torch.cdist(said[:, :-1], self.factors).masked_fill(self.taken, torch.inf)
        nearest = distance.argmin(dim=1)
        self.taken[torch.arange(len(said)), nearest] = True
        self.chosen.append(nearest)
        return torch.cat([self.factors[nearest], said[:, -1:]], dim=1)


def scheduled(truth: Tensor, ratio: float, generator: torch.Generator) -> Teacher:
    """A teacher that shows each person the true action (B, T, A) with probability `ratio`, drawn anew at each step."""

    def teacher(step: int, said: Tensor) -> Tensor:
        shown = torch.rand(len(said), 1, generator=generator).to(said) < ratio
        return truth[:, step].where(shown, said)

    return teacher


def reconstruction_error(said: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of actions (B, T, A) where the mask (B, T) is True; 0 where it is nowhere."""
    squared = (said - truth).square().mean(dim=2)
    return (squared * mask).sum() / mask.sum().clamp(min=1)

"""A sequence encoder: an LSTM, then self-attention over its outputs.

Hochreiter and Schmidhuber, "Long short-term memory" (1997), and Vaswani et al., "Attention is all you need" (NeurIPS
2017) with one causal head: what is read at a step depends on nothing that comes after it, so padding behind a sequence
changes nothing, and one pass gives the encodings of all its beginnings.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from models.layers import with_constant


class SequenceEncoder(nn.Module):
    """Encodes people with a beginning (what their attributes say) and a sequence of any length, nothing included."""

    def __init__(self, n_attributes: int, input_size: int, hidden_size: int, size: int) -> None:
        super().__init__()
        self.start = nn.Linear(1 + n_attributes, input_size, bias=False)
        self.lstm = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.attention = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.out = nn.Linear(hidden_size, size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All but the last layer at random; that one is zero: training begins with encodings that say nothing."""
        for layer in (self.start, self.lstm, self.attention):
            layer.reset_parameters()
        nn.init.zeros_(self.out.weight)

    def forward(self, attributes: Tensor, inputs: Tensor) -> Tensor:
        """Encodings (B, 1 + L, S) before the first of the inputs (B, L, I) and after each; attributes (B, A)."""
        start = self.start(with_constant(attributes)).unsqueeze(1)
        hidden, _ = self.lstm(torch.cat([start, inputs], dim=1))  # (B, 1 + L, H)
        query, key, value = self.attention(hidden).chunk(3, dim=-1)
        attended = scaled_dot_product_attention(query, key, value, is_causal=True)
        encodings: Tensor = self.out(hidden + attended)
        return encodings


def after(encodings: Tensor, n: Tensor) -> Tensor:
    """(B, S), of the encodings (B, 1 + L, S) those after the first n (B,) inputs."""
    return encodings.gather(1, n[:, None, None].expand(-1, 1, encodings.shape[2])).squeeze(1)

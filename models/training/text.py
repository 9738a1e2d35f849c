"""Hashed TF-IDF of item texts, brought down to a few columns by latent semantic analysis.

Deerwester et al., "Indexing by Latent Semantic Analysis" (1990). Words are hashed, so that a new item's words need no
vocabulary; the inverse document frequencies and the projection are learnt from the items of the data and kept in
buffers, so that a checkpoint reads new texts as training did.
"""

import torch
from sklearn.feature_extraction.text import HashingVectorizer
from torch import Tensor, nn


class TextProjection(nn.Module):
    """Texts → (n, size) float32, rows of at most unit length."""

    idf: Tensor
    components: Tensor

    def __init__(self, size: int, n_hashes: int) -> None:
        super().__init__()
        self.register_buffer("idf", torch.zeros(n_hashes if size else 0))
        self.register_buffer("components", torch.zeros(n_hashes if size else 0, size))

    @property
    def size(self) -> int:
        """Columns of the result."""
        return self.components.shape[1]

    def learn(self, texts: list[str], seed: int) -> None:
        """Learn document frequencies and the leading directions of the texts' TF-IDF matrix."""
        if self.size == 0:
            return
        counts = self._counts(texts)
        documents = torch.bincount(counts.indices()[1], minlength=len(self.idf)).to(self.idf)
        self.idf.copy_(torch.log((1 + len(texts)) / (1 + documents)) + 1)
        rank = min(self.size, *counts.shape)
        with torch.random.fork_rng(devices=[]):  # the decomposition draws from the process-wide generator
            torch.manual_seed(seed)
            directions = torch.svd_lowrank(self._tf_idf(counts), q=rank, niter=4)[2]  # (H, rank)
        self.components.zero_()
        self.components[:, :rank] = directions

    def forward(self, texts: list[str]) -> Tensor:
        """(n, size) coordinates of texts: the less of a text is known, the shorter its row, down to zeros."""
        if self.size == 0:
            return self.components.new_zeros(len(texts), 0)
        projected: Tensor = torch.sparse.mm(self._tf_idf(self._counts(texts)), self.components)
        return projected

    def _tf_idf(self, counts: Tensor) -> Tensor:
        """(n, H) sparse, rows of unit length; empty texts stay empty."""
        index = counts.indices()
        values = counts.values() * self.idf[index[1]]
        squared = torch.zeros(len(counts)).to(values).index_add_(0, index[0], values.square())
        values = values / squared.sqrt().clamp(min=1e-9)[index[0]]
        return torch.sparse_coo_tensor(index, values, counts.shape, check_invariants=False).coalesce()

    def _counts(self, texts: list[str]) -> Tensor:
        """(n, H) sparse, logarithmic counts of hashed words."""
        vectorizer = HashingVectorizer(
            n_features=len(self.idf), alternate_sign=False, norm=None, stop_words="english", dtype="float32"
        )
        matrix = vectorizer.transform(texts).tocoo()
        index = torch.stack([torch.from_numpy(matrix.row).long(), torch.from_numpy(matrix.col).long()])
        values = torch.log1p(torch.from_numpy(matrix.data))
        return torch.sparse_coo_tensor(
            index.to(self.idf.device), values.to(self.idf), matrix.shape, check_invariants=False
        ).coalesce()

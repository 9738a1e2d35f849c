"""Gaussian algebra that factor models share: packed symmetric matrices, posteriors, regression with learnt priors.

Symmetric (P, P) matrices travel packed, as the P (P + 1) / 2 entries of their lower triangle: half the memory, and an
inner product of two of them is one dot product, so that a whole catalogue's variances are one matrix product.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

INTERCEPT_VARIANCE = 100.0
"""Prior variance of a regression's intercept: all but flat."""
_FLOOR = 1e-8


def packed_size(size: int) -> int:
    """Entries of the lower triangle of a (size, size) matrix.

    >>> packed_size(3)
    6
    """
    return size * (size + 1) // 2


def pack(matrices: Tensor) -> Tensor:
    """Lower triangles (…, P (P + 1) / 2) of matrices (…, P, P), row by row."""
    return matrices.flatten(-2).index_select(-1, _triangle(matrices.shape[-1], matrices.device).flat)


def unpack_lower(packed: Tensor, size: int) -> Tensor:
    """Lower triangular matrices (…, size, size) from their packed triangles."""
    matrices = packed.new_zeros(*packed.shape[:-1], size * size)
    matrices.index_copy_(-1, _triangle(size, packed.device).flat, packed)
    return matrices.view(*packed.shape[:-1], size, size)


def unpack(packed: Tensor, size: int) -> Tensor:
    """Symmetric matrices (…, size, size) from their packed triangles."""
    lower = unpack_lower(packed, size)
    return lower + lower.tril(-1).mT


def pack_outer(vectors: Tensor) -> Tensor:
    """Packed x x' (…, P (P + 1) / 2) of vectors x (…, P)."""
    triangle = _triangle(vectors.shape[-1], vectors.device)
    return vectors.index_select(-1, triangle.rows) * vectors.index_select(-1, triangle.columns)


def pack_dual(matrices: Tensor) -> Tensor:
    """Packed triangles with what lies off the diagonal doubled: `pack_dual(A) · pack(B)` is tr(A B)."""
    return pack(matrices) * _triangle(matrices.shape[-1], matrices.device).twice


def pack_dual_outer(vectors: Tensor) -> Tensor:
    """`pack_dual` of x x' for vectors x (…, P)."""
    return pack_outer(vectors).mul_(_triangle(vectors.shape[-1], vectors.device).twice)


class _Triangle:
    """Where the entries of a lower triangle are. Answers to single users are made of so many small operations that to
    work this out each time would double what they cost."""

    def __init__(self, size: int, device: torch.device) -> None:
        with torch.inference_mode(False):
            self.rows, self.columns = torch.tril_indices(size, size, device=device)
            self.flat = self.rows * size + self.columns
            self.twice = torch.where(self.rows == self.columns, 1.0, 2.0)


@lru_cache(maxsize=64)
def _triangle(size: int, device: torch.device) -> _Triangle:
    return _Triangle(size, device)


def posterior(precision: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (…, P) and R (…, P, P), lower triangular, with covariance R' R, of a Gaussian in information form.

    `precision` (…, P, P) is the inverse covariance and `shift` (…, P) is precision times mean.
    """
    factor = torch.linalg.cholesky(precision)
    eye = torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    root = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)  # R = L^-1
    mean = (root.mT @ (root @ shift[..., None])).squeeze(-1)
    return mean, root


class FieldRegression:
    """Bayesian regression of vectors on features, each field of features with prior variances of its own.

        y_i = W' [1, f_i] + e_i,    e_i ~ N(0, Λ),    W_jq ~ N(0, τ_g(j)q Λ_qq)

    τ, learnt by EM, says how much a field (the directors, the genres, …) tells: a field that tells nothing is shrunken
    away. The first output (a bias) has its own τ, for directors may tell of quality and not of taste; the others share
    theirs, so that two factorisations serve all. The y_i are themselves posteriors N(m_i, S_i). MacKay, "Bayesian
    interpolation" (Neural Computation 1992).
    """

    def __init__(self, n_outputs: int, widths: Sequence[int], use_features: bool = True) -> None:
        """`widths`: columns of each field of features, in order."""
        self.use_features = use_features
        self.field = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor([*widths], dtype=torch.long))
        self.groups = [slice(0, 1), slice(1, n_outputs)][: min(n_outputs, 2)]
        self.variance = torch.full((len(self.groups), len(widths)), 0.1, dtype=torch.float64)
        """τ of each group of outputs (2, G), in units of Λ."""
        n_columns = 1 + (len(self.field) if use_features else 0)
        self.weights = torch.zeros(n_columns, n_outputs, dtype=torch.float64)
        """Posterior mean of W (1 + F, Q)."""
        self.covariance = torch.zeros(n_columns, n_columns, dtype=torch.float64)
        """Covariance of the first output's weights, in units of Λ_00."""
        self.noise = torch.eye(n_outputs, dtype=torch.float64)
        """Λ (Q, Q)."""

    def design(self, features: Tensor) -> Tensor:
        """[1, f] (n, 1 + F), or the intercept alone."""
        return with_intercept(features if self.use_features else features[:, :0]).double()

    def predict(self, features: Tensor) -> Tensor:
        """Prior means (n, Q)."""
        return self.design(features) @ self.weights

    def update(self, features: Tensor, means: Tensor, covariance_sum: Tensor) -> None:
        """One step of EM on outputs with posterior means (n, Q) and covariances that sum to `covariance_sum` (Q, Q)."""
        design = self.design(features)
        gram, target = design.T @ design, design.T @ means
        flat = design.new_tensor([INTERCEPT_VARIANCE])
        standardised, doubts = torch.empty_like(self.weights), []
        for group, variance in zip(self.groups, self.variance, strict=True):
            prior = torch.cat([flat, variance[self.field]])[: design.shape[1]]  # (1 + F,)
            covariance = torch.cholesky_inverse(torch.linalg.cholesky(gram + torch.diag(1 / prior)))
            self.weights[:, group] = covariance @ target[:, group]
            standardised[:, group] = self.weights[:, group] / prior.sqrt()[:, None]
            doubts.append(torch.diagonal(covariance))
            if group.start == 0:
                self.covariance = covariance
        residual = means - design @ self.weights
        scatter = covariance_sum + residual.T @ residual + standardised.T @ standardised
        self.noise = scatter / max(len(means), 1) + _FLOOR * torch.eye(means.shape[1], dtype=torch.float64)
        if self.use_features and len(self.field):
            self._update_variance(doubts)

    def _update_variance(self, doubts: list[Tensor]) -> None:
        """τ: the mean square of each field's weights, in units of Λ, doubt about them included."""
        count = torch.bincount(self.field, minlength=self.variance.shape[1]).clamp(min=1)
        for g, (group, doubt) in enumerate(zip(self.groups, doubts, strict=True)):
            factor = torch.linalg.cholesky(self.noise[group, group])
            whitened = torch.linalg.solve_triangular(factor, self.weights[:, group].T, upper=False)  # (Q_g, 1 + F)
            energy = whitened.square().mean(0) + doubt
            total = torch.zeros_like(self.variance[g]).index_add_(0, self.field, energy[1:])
            self.variance[g] = (total / count).clamp(min=1e-6)


def with_intercept(features: Tensor) -> Tensor:
    """Features (n, F) with a column of ones before them."""
    return torch.cat([features.new_ones(len(features), 1), features], dim=1)

"""Low-rank factorisation of ratings around their biases: three penalties, one iterator of ever better factors each.

    y_ui = (r_ui - mean_d) / unit_d,    y_ui ~ b_i + b_u + p_u . q_i

All work on sparse residuals and K-column blocks; nothing of size U x N is ever made. Each solver yields its factors
after every sweep, for as long as it is asked, so that the caller may stop at the sweep it likes best.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.training.biases import Biases, item_design, units


@dataclass(frozen=True)
class Factors:
    """A factorisation, in units of a five-point scale."""

    item_bias: Tensor
    """(N,)."""
    items: Tensor
    """(N, K)."""
    users: Tensor
    """(U, K)."""


@dataclass(frozen=True)
class Problem:
    """What is factorised, and the biases to start from."""

    users: Tensor
    """(M,) int64."""
    items: Tensor
    """(M,) int64."""
    values: Tensor
    """(M,) ratings less their domain's mean, in units of a five-point scale."""
    weights: Tensor
    """(M,)."""
    item_bias: Tensor
    """(N,)."""
    user_bias: Tensor
    """(U,)."""
    item_prior: Tensor
    """(N,) prior mean of the items' biases."""

    @classmethod
    def of(cls, data: Dataset, biases: Biases) -> "Problem":
        """The problem that a data set poses, given its fitted biases."""
        seen, unit = data.interactions, units(data.schema)
        domain = data.items.domain[seen.items]
        values = (seen.values - biases.mean[domain]) / unit[domain]
        prior = item_design(data.items.content.features, data.items.domain, len(unit)) @ biases.content
        return cls(seen.users, seen.items, values, seen.weights, biases.item, biases.user, prior[:, 0])

    def to(self, device: torch.device | str) -> "Problem":
        """The same on another device."""
        return Problem(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    @property
    def shape(self) -> tuple[int, int]:
        """(U, N)."""
        return len(self.user_bias), len(self.item_bias)

    def residual(self) -> Tensor:
        """(M,) what the biases leave unexplained."""
        return self.values - self.item_bias[self.items] - self.user_bias[self.users]

    def sparse(self, values: Tensor) -> Tensor:
        """(U, N) sparse matrix with a value for each rating; ratings of the same item by the same user add up."""
        index = torch.stack([self.users, self.items])
        return torch.sparse_coo_tensor(index, values, self.shape, check_invariants=False).coalesce()


def fold_in(x: Tensor, y: Tensor, weights: Tensor, penalty: Tensor) -> Tensor:
    """Ridge regression of each user's y (B, L) on x (B, L, K): (B, K), with `penalty` (K,) on the squared coefficients.

    Solved by a batched Cholesky factorisation. Entries of weight zero take no part.
    """
    weighted = x * weights[:, :, None]
    gram = weighted.mT @ x + torch.diag(penalty)  # (B, K, K)
    target = weighted.mT @ y[:, :, None]  # (B, K, 1)
    return torch.cholesky_solve(target, torch.linalg.cholesky(gram))[:, :, 0]


def with_constant(factors: Tensor) -> Tensor:
    """A column of ones before the factors: the other side's bias is its weight on the constant."""
    return torch.cat([factors.new_ones(len(factors), 1), factors], dim=1)


def alternating_least_squares(
    problem: Problem,
    n_factors: int,
    reg: float,
    reg_user: float,
    reg_item: float,
    generator: torch.Generator,
    reg_factors: Tensor | None = None,
) -> Iterator[Factors]:
    """Frobenius penalty, reg (|P|^2 + |Q|^2): exact ridge regressions of all users, then of all items, in turns.

    Zhou et al., "Large-scale Parallel Collaborative Filtering for the Netflix Prize" (2008), with a constant penalty
    and with biases, which have penalties of their own. `reg_factors` (N,) are penalties of each item's factors, where
    they differ from the users'.
    """
    weights, values = problem.sparse(problem.weights), problem.sparse(problem.weights * problem.values)
    bias = problem.item_bias
    factors = 0.1 * torch.randn(len(bias), n_factors, generator=generator).to(bias)
    no_prior = torch.zeros_like(problem.user_bias)
    reg_items = reg if reg_factors is None else reg_factors
    weights_of_items, values_of_items = weights.t().coalesce(), values.t().coalesce()
    while True:
        users = _side(weights, values, bias, factors, no_prior, reg_user, reg)  # (U, 1 + K)
        items = _side(
            weights_of_items, values_of_items, users[:, 0], users[:, 1:], problem.item_prior, reg_item, reg_items
        )  # (N, 1 + K)
        bias, factors = items[:, 0], items[:, 1:]
        yield Factors(bias, factors, users[:, 1:])


def _side(
    weights: Tensor, values: Tensor, bias: Tensor, factors: Tensor, prior: Tensor, reg_bias: float, reg: float | Tensor
) -> Tensor:
    """(n, 1 + K) bias and factors of one side, given the other's. `weights` and `values` are (n, m), sparse; `reg` is
    one penalty or (n,).

    The normal equations of all n rows at once: sum_j w_j x_j x_j' is a sparse matrix times the (m, K K) outer products.
    """
    x = with_constant(factors)  # (m, 1 + K)
    width = x.shape[1]
    outer = (x[:, :, None] * x[:, None, :]).flatten(1)
    penalty = x.new_ones(weights.shape[0], width) * torch.as_tensor(reg, device=x.device).view(-1, 1)
    penalty[:, 0] = reg_bias
    gram = torch.sparse.mm(weights, outer).view(-1, width, width) + torch.diag_embed(penalty)
    target = torch.sparse.mm(values, x) - torch.sparse.mm(weights, bias[:, None] * x)
    target[:, 0] += reg_bias * prior
    return torch.cholesky_solve(target[:, :, None], torch.linalg.cholesky(gram))[:, :, 0]


def soft_impute(problem: Problem, n_factors: int, reg: float, generator: torch.Generator) -> Iterator[Factors]:
    """Trace penalty, 2 reg |Z|_* on the low-rank part Z: singular values of the completed matrix, less reg each.

    Mazumder, Hastie and Tibshirani, "Spectral Regularization Algorithms" (JMLR 2010), with a block power step, warm
    from the last sweep, in place of each full SVD. With Z = P Q' and P, Q sharing the singular values evenly,
    |Z|_* = (|P|^2 + |Q|^2) / 2, so that folding in with penalty reg gives a person what the fit would have given them.
    """
    n_users, n_items = problem.shape
    right = torch.linalg.qr(torch.randn(n_items, n_factors, generator=generator).to(problem.values)).Q
    p, q = right.new_zeros(n_users, n_factors), right.new_zeros(n_items, n_factors)
    residual = problem.residual()
    while True:
        fitted = (p[problem.users] * q[problem.items]).sum(dim=1)
        sparse = problem.sparse(problem.weights * (residual - fitted))
        left = torch.linalg.qr(torch.sparse.mm(sparse, right) + p @ (q.T @ right)).Q  # (U, K)
        right, singular, rotation = torch.linalg.svd(
            torch.sparse.mm(sparse.t(), left) + q @ (p.T @ left), full_matrices=False
        )
        root = (singular - reg).clamp(min=0).sqrt()
        p, q = left @ rotation.T * root, right * root
        yield Factors(problem.item_bias, q, p)


def trace_norm(p: Tensor, q: Tensor) -> Tensor:
    """The sum of the singular values of P Q', from the K x K triangles of P and Q."""
    singular: Tensor = torch.linalg.svdvals(torch.linalg.qr(p).R @ torch.linalg.qr(q).R.T)
    return singular.sum()


@dataclass(frozen=True)
class KtlfPenalty:
    """The penalty of Knowledge Transfer via Latent Factors, with targets as shares of where the descent starts.

        lambda (|P Q'|_* - b)^2 + mu (((|P|^2 + |Q|^2 - c) |Q|^2 + (|P|^2 + |Q|^2 - d) |P|^2) / 2)

    It draws the size of the matrix and of its factors towards targets, where Frobenius and trace penalties draw
    both towards zero. Without targets of its own (b = c = d = 0) it shrinks large factors more than in proportion.
    """

    trace_weight: float
    """lambda, per rating."""
    norm_weight: float
    """mu, per rating."""
    trace_target: float
    """b, as a share of the trace norm at the start."""
    user_target: float
    """d, as a share of twice the squared norms at the start."""
    item_target: float
    """c, as a share of twice the squared norms at the start."""

    def __call__(self, p: Tensor, q: Tensor, start_trace: Tensor, start_norm: Tensor) -> Tensor:
        """The penalty of (p, q) in shares of the start, so that the weights mean the same for data of any size."""
        trace = trace_norm(p, q) / start_trace - self.trace_target
        user, item = p.square().sum() / start_norm, q.square().sum() / start_norm
        norms = (user + item - 2 * self.item_target) * item + (user + item - 2 * self.user_target) * user
        return self.trace_weight * trace.square() + self.norm_weight * norms / 2


def ktlf_descent(
    problem: Problem, start: Factors, penalty: KtlfPenalty, learning_rate: float, steps_per_sweep: int = 10
) -> Iterator[Factors]:
    """Squared loss with the KTLF penalty, by Adam from a start with some size: at zero the penalty has no slope."""
    p, q = start.users.clone().requires_grad_(), start.items.clone().requires_grad_()
    start_trace = trace_norm(start.users, start.items).clamp(min=1e-6)
    start_norm = (start.users.square().sum() + start.items.square().sum()).clamp(min=1e-6)
    residual, total = problem.residual(), problem.weights.sum()
    optimizer = torch.optim.Adam([p, q], lr=learning_rate)
    while True:
        for _ in range(steps_per_sweep):
            error = residual - (p[problem.users] * q[problem.items]).sum(dim=1)
            loss = (problem.weights * error.square()).sum() / total + penalty(p, q, start_trace, start_norm)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        yield Factors(problem.item_bias, q.detach().clone(), p.detach().clone())

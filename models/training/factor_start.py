"""Where meta-learning starts: at the beliefs of the Bayesian factor model.

A linear head with a normal prior *is* the user's side of `bayes`, so its closed-form fit is the place to learn from:
rows v_i and their prior for users to begin with, in units in which a rating's noise is one,

    phi_i = v_i / s,    theta_0(a) = s A a,    trust_i = s² / (s_i² + tr S_i)

with s² the noise of the domains, s_i² that of an item and S_i what is not known of it. Episodes then tune all of it for
what is wanted: the error of users' queries after adaptation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.recommender import Columns, FitOptions
from models.recommenders.bayes import Bayes
from models.training.biases import units
from models.training.gaussian import unpack
from models.training.statistics import item_counts, ridge

MAX_FACTORS = 64


@dataclass(frozen=True)
class FactorStart:
    """What the factor model believes, on the scale of a head with unit noise and unit prior covariance."""

    noise: Tensor
    """(D,) variance of a rating, in units of a five-point scale."""
    bias: Tensor
    """(N,) of items, in units."""
    factors: Tensor
    """(N, K) of items."""
    content_factors: Tensor
    """(F + D, K) what an item's content says of its factors."""
    log_trust: Tensor
    """(N,) logarithm of how much a rating of an item tells, 0 for one whose factors are known for sure."""
    content_log_trust: float
    """The same for items of which only the content is known."""
    constant: float
    """c, what a user's bias is multiplied by."""
    prior: Tensor
    """(1 + A, 1 + K) what attributes, behind a constant, say of a user's bias and factors."""


def factor_start(data: Dataset, design: Tensor, n_factors: int, options: FitOptions) -> FactorStart:
    """Fit the factor model; `design` (N, F + D) is the items' content."""
    config = Bayes.Config(n_factors=min(n_factors, MAX_FACTORS))
    bayes = Bayes(config, data.schema)
    columns = bayes.fit(data, FitOptions(seed=options.seed, progress=options.progress)).table.columns
    unit = units(data.schema)
    noise = bayes.domain_noise / unit.square()  # (D,)
    spread = noise.mean().sqrt()
    mean = columns["mean"] / unit[data.items.domain, None]  # (N, 1 + K)
    factors = mean[:, 1:] / spread
    counts = item_counts(data)
    domains = range(len(unit))
    unknown = [
        bayes.embed_items(data.items.content.rows((data.items.domain == d).nonzero().flatten()), d) for d in domains
    ]
    doubt = torch.cat([_doubt(columns, unit[d], config.n_factors) for d, columns in zip(domains, unknown, strict=True)])
    return FactorStart(
        noise=noise,
        bias=mean[:, 0],
        factors=factors,
        content_factors=ridge(design, factors, counts / (counts + 5.0), 5.0),
        log_trust=2 * spread.log() - _doubt(columns, unit[data.items.domain], config.n_factors).log(),
        content_log_trust=float((2 * spread.log() - doubt.log()).mean()),
        constant=float((bayes.loading / unit).mean() / spread),
        prior=bayes.attribute_weights * spread,
    )


def _doubt(columns: Columns, unit: Tensor, n_factors: int) -> Tensor:
    """Variance (n,) of a rating of each item around what is known of it, for a user who may be anyone."""
    covariance = torch.diagonal(unpack(columns["covariance"], 1 + n_factors), dim1=1, dim2=2)
    return (columns["noise"] + covariance.sum(dim=1)) / unit.square()

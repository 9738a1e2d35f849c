"""Item and user biases, and what content and attributes say of them: the ground that most recommenders stand on.

    (r_ui - mean_d) / unit_d = b_i + b_u + e
    b_i ~ N(x_i . B, noise / reg_item)
    b_u ~ N(y_u . C, noise / reg_user)

in units of a five-point scale, so that a user's bias means the same in every domain. x_i are the item's features and
its domain, y_u the user's attributes and a constant. Fitted by alternating closed forms: each bias is the posterior
mean given the others (a shrunken mean), B and C are ridge regressions of the biases, each weighted by its reliability
n / (n + reg), or B by n. With B = C = 0 these are the regularised biases of Koren, "Factor in the Neighbors" (TKDD
2010), 2.1.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import Evidence, ItemTable, RecommenderConfig
from models.training.statistics import domain_means, item_counts, ridge

SWEEPS = 10
"""Alternations; the biases move by less than a thousandth after five or so."""


class BiasSettings(RecommenderConfig):
    """Settings that all recommenders with biases share."""

    reg_item: float = Field(5.0, gt=0)
    """Ratings' worth of belief in the prior mean of an item's bias."""
    reg_user: float = Field(5.0, gt=0)
    """Ratings' worth of belief in the prior mean of a user's bias."""
    reg_content: float = Field(5.0, gt=0)
    """Ridge penalty of the regression of item biases on content, in items."""
    content_weighting: Literal["items", "ratings"] = "items"
    """What counts alike in that regression: items, where their ratings tell it; or ratings. People are asked about what
    people rate, so `ratings` errs less where nothing but content is known, and wants a penalty ten times larger."""
    content_prior: bool = True
    """Whether content is the prior mean of an item's bias; otherwise it is zero, and new items are average."""
    attribute_prior: bool = False
    """Whether attributes are the prior mean of a user's bias; otherwise it is zero."""
    reg_attributes: float = Field(10.0, gt=0)
    """Ridge penalty of the regression of user biases on attributes, in users."""


@dataclass(frozen=True)
class Biases:
    """Fitted biases, in units of a five-point scale."""

    mean: Tensor
    """(D,) mean rating of each domain, on its own scale."""
    item: Tensor
    """(N,)."""
    user: Tensor
    """(U,)."""
    content: Tensor
    """(F + D, 1) what an item's features and domain say of its bias; zeros without a content prior."""
    attributes: Tensor
    """(A + 1, 1) what a user's attributes say of their bias; zeros without an attribute prior."""
    noise: Tensor
    """(D,) variance of a rating around the biases."""


def units(schema: Schema) -> Tensor:
    """A step of a five-point scale, on each domain's scale, (D,): 1 where ratings go from 1 to 5."""
    low, high = schema.scales()
    return (high - low) / 4


def item_design(features: Tensor, domain: Tensor, n_domains: int) -> Tensor:
    """Features and a constant for each domain, (n, F + D)."""
    return torch.cat([features, torch.nn.functional.one_hot(domain, n_domains).to(features)], dim=1)


def user_design(attributes: Tensor) -> Tensor:
    """Attributes and a constant, (B, A + 1)."""
    return torch.cat([attributes, attributes.new_ones(len(attributes), 1)], dim=1)


def residuals(evidence: Evidence, table: ItemTable, mean: Tensor, unit: Tensor, bias: str = "bias") -> Tensor:
    """How far each rating lies from its domain's mean and its item's bias, (B, L); zero where padded."""
    domain = table.domain[evidence.items]
    residual = (evidence.values - mean[domain]) / unit[domain] - table[bias][evidence.items]
    return residual.where(evidence.mask, 0)


def fit_biases(data: Dataset, settings: BiasSettings) -> Biases:
    """Alternate item biases, user biases and their regressions on content and attributes."""
    seen, n_domains = data.interactions, len(data.schema.domains)
    mean, unit = domain_means(data), units(data.schema)
    domain = data.items.domain[seen.items]
    rating = (seen.values - mean[domain]) / unit[domain]  # (M,)
    x = item_design(data.items.content.features, data.items.domain, n_domains)
    y = user_design(data.user_attributes)
    n_item = item_counts(data)
    n_user = torch.zeros(data.n_users).index_add_(0, seen.users, seen.weights)
    reliability = n_item / (n_item + settings.reg_item)
    if settings.content_weighting == "ratings":
        reliability = n_item / n_item[n_item > 0].mean()

    item, user = torch.zeros(data.n_items), torch.zeros(data.n_users)
    content, attributes = torch.zeros(x.shape[1], 1), torch.zeros(y.shape[1], 1)
    for _ in range(SWEEPS):
        total = torch.zeros_like(item).index_add_(0, seen.items, seen.weights * (rating - user[seen.users]))
        if settings.content_prior:
            content = ridge(x, (total / n_item.clamp(min=1e-9))[:, None], reliability, settings.reg_content)
        item = (total + settings.reg_item * (x @ content)[:, 0]) / (n_item + settings.reg_item)
        total = torch.zeros_like(user).index_add_(0, seen.users, seen.weights * (rating - item[seen.items]))
        if settings.attribute_prior:
            attributes = ridge(
                y,
                (total / n_user.clamp(min=1e-9))[:, None],
                n_user / (n_user + settings.reg_user),
                settings.reg_attributes,
            )
        user = (total + settings.reg_user * (y @ attributes)[:, 0]) / (n_user + settings.reg_user)

    squared = seen.weights * (rating - item[seen.items] - user[seen.users]).square()
    weight = torch.zeros_like(mean).index_add_(0, domain, seen.weights)
    noise = torch.zeros_like(mean).index_add_(0, domain, squared) / weight.clamp(min=1e-9)
    noise = torch.where(weight > 0, noise, 1.0).clamp(min=1e-4)
    return Biases(mean, item, user, content, attributes, noise)

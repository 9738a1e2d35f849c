"""What an autoencoder of histories reads, what it says, and how wrong that was: three likelihoods behind one interface.

With f_ui = b_i + g_u · D_i, what the network says of user u and item i:

    multinomial   likes of u are drawn with chances in proportion to exp(f_ui)          (Liang et al., WWW 2018)
    bernoulli     whether u likes i has the odds exp(f_ui); what u does not like is sampled
    gaussian      r_ui = mean_d + unit_d (b_i + b_u + g_u · D_i) + noise, of what u has rated

Preferences are on the scale of chances, as those of linear autoencoders are, which regress on whether something is
liked: there an item that will hardly be liked and one that will never be are next to each other, and lists that are
mixed of several recommenders are about the items that somebody may like.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn.functional import log_softmax, softplus

from models.datasets.dataset import Dataset
from models.datasets.schema import Schema
from models.recommender import Evidence, ItemTable, Scores
from models.training.biases import BiasSettings, fit_biases, residuals, units
from models.training.likes import Likes

MOST = 60.0
"""Of f where its exponential is taken: e^60 squared is a number still."""


@dataclass(frozen=True)
class Histories:
    """What users of a data set did, as an autoencoder learns from it."""

    weights: sparse.csr_matrix
    """(U, N) how much each event counts."""
    values: sparse.csr_matrix
    """(U, N) what is read of it, times its weight; an entry wherever `weights` has one."""
    bias: Tensor
    """(N,) b to begin with."""

    def of_items(self, items: Tensor) -> "Histories":
        """The same users with some of the items (n,)."""
        columns = items.numpy()
        return Histories(self.weights[:, columns], self.values[:, columns], self.bias[items])

    def batch(self, users: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Weights and values (B, N) of some users."""
        weights, values = (torch.from_numpy(part[users.numpy()].toarray()) for part in (self.weights, self.values))
        return weights.to(device), values.to(device)


class Likelihood(nn.Module, ABC):
    """What histories mean."""

    kind: Literal["rating", "preference"] = "preference"
    learns_bias: bool = True
    """Whether b is learnt with the network; otherwise it stays as it was."""
    n_own: int = 0
    """Numbers of a user's state besides the network's."""

    @abstractmethod
    def histories(self, data: Dataset) -> Histories:
        """What there is to learn from. Called first, once: may learn as well."""

    @abstractmethod
    def read(self, evidence: Evidence, table: ItemTable) -> tuple[Tensor, Tensor]:
        """((B, L) values times weights as in `Histories.values`, (B, n_own) numbers of the users)."""

    def counted(self, data: Dataset) -> Dataset:
        """The data with only the events that histories are made of."""
        return data

    @abstractmethod
    def loss(self, said: Tensor, bias: Tensor, weights: Tensor, values: Tensor) -> Tensor:
        """(B,) negative log-likelihood of histories (B, N) when the network says g · D (B, N) and b is `bias` (N,)."""

    @abstractmethod
    def scores(self, said: Tensor, own: Tensor, bias: Tensor, domain: Tensor) -> Scores:
        """Scores (B, N) from what the network says (B, N), the users' own numbers (B, n_own), b and domains (N,)."""


class Multinomial(Likelihood):
    """Likes are draws from all items, as many as there are."""

    def __init__(self, schema: Schema, liked_above: float) -> None:
        super().__init__()
        self.likes = Likes(schema, liked_above)

    def histories(self, data: Dataset) -> Histories:
        likes = self.likes.matrix(data)
        count = torch.from_numpy(likes.sum(axis=0)).flatten().float() + 1
        return Histories(likes, likes, (count / count.sum()).log())

    def read(self, evidence: Evidence, table: ItemTable) -> tuple[Tensor, Tensor]:
        likes = self.likes.of_evidence(evidence, table)
        return likes, likes.new_zeros(len(likes), 0)

    def counted(self, data: Dataset) -> Dataset:
        return self.likes.only(data)

    def loss(self, said: Tensor, bias: Tensor, weights: Tensor, values: Tensor) -> Tensor:
        return -(weights * log_softmax(said + bias, dim=1)).sum(dim=1)

    def scores(self, said: Tensor, own: Tensor, bias: Tensor, domain: Tensor) -> Scores:
        return Scores((said + bias).clamp(max=MOST).exp(), kind="preference")


class Bernoulli(Multinomial):
    """Each item is liked or not; of those that are not, `n_negatives` for each like are looked at."""

    def __init__(self, schema: Schema, liked_above: float, n_negatives: int) -> None:
        super().__init__(schema, liked_above)
        self.n_negatives = n_negatives

    def histories(self, data: Dataset) -> Histories:
        found = super().histories(data)
        return Histories(found.weights, found.values, found.bias - found.bias.mean())

    def loss(self, said: Tensor, bias: Tensor, weights: Tensor, values: Tensor) -> Tensor:
        odds, others = said + bias, weights == 0
        n_others = others.sum(dim=1, keepdim=True).clamp(min=1)
        share = (self.n_negatives * weights.sum(dim=1, keepdim=True) / n_others).clamp(max=1)
        negatives = others & (torch.rand_like(odds) < share)
        return (weights * softplus(-odds) + negatives * softplus(odds)).sum(dim=1)

    def scores(self, said: Tensor, own: Tensor, bias: Tensor, domain: Tensor) -> Scores:
        return Scores((said + bias).sigmoid(), kind="preference")


class GaussianRatings(Likelihood):
    """Ratings lie around biases and what the network adds; a user's own number is the bias."""

    kind = "rating"
    learns_bias = False
    n_own = 1
    mean: Tensor
    unit: Tensor
    noise: Tensor

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.settings = BiasSettings()
        n_domains = len(schema.domains)
        self.register_buffer("mean", torch.zeros(n_domains))  # (D,)
        self.register_buffer("unit", units(schema))  # (D,)
        self.register_buffer("noise", torch.ones(n_domains))  # (D,) variance in units around the biases

    def histories(self, data: Dataset) -> Histories:
        biases, seen = fit_biases(data, self.settings), data.interactions
        self.mean.copy_(biases.mean)
        self.noise.copy_(biases.noise)
        domain = data.items.domain[seen.items]
        left = (seen.values - biases.mean[domain]) / self.unit.cpu()[domain] - biases.item[seen.items]
        left = (left - biases.user[seen.users]) * seen.weights
        pairs, shape = (seen.users.numpy(), seen.items.numpy()), (data.n_users, data.n_items)
        weights, values = (sparse.csr_matrix((part.numpy(), pairs), shape=shape) for part in (seen.weights, left))
        return Histories(weights, values, biases.item)

    def read(self, evidence: Evidence, table: ItemTable) -> tuple[Tensor, Tensor]:
        left = residuals(evidence, table, self.mean, self.unit)  # (B, L)
        total = evidence.weights.sum(dim=1, keepdim=True) + self.settings.reg_user
        own = (evidence.weights * left).sum(dim=1, keepdim=True) / total
        return evidence.weights * (left - own), own

    def loss(self, said: Tensor, bias: Tensor, weights: Tensor, values: Tensor) -> Tensor:
        left = values / weights.clamp(min=1e-9)
        return (weights * (left - said).square()).sum(dim=1) / (2 * self.noise.mean())

    def scores(self, said: Tensor, own: Tensor, bias: Tensor, domain: Tensor) -> Scores:
        unit = self.unit[domain]
        mean = self.mean[domain] + unit * (bias + own + said)
        return Scores(mean, (unit * self.noise[domain].sqrt()).expand_as(mean))

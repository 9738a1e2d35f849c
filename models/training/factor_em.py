"""Variational EM for the Gaussian factor model with user and item posteriors. The algebra behind `bayes`.

    r_ui - mean_d = b_i + c_d w_u0 + v_i . w_u + e_ui,    e_ui ~ N(0, s_i² / weight_ui)
    w_u ~ N(A a_u, I),    (b_i, v_i) ~ N(Γ_d f_i, Λ_d),    f_i: 1, log count of i, content of i

q(w) q(b, v) is fitted by coordinate ascent; priors, c and noise by their closed-form maxima (Lim and Teh, "Variational
Bayesian approach to movie rating prediction", KDD Cup 2007). Everything that a step needs is linear in the weights and
the weighted ratings, so it is a product of one sparse matrix with packed moments: no loop over users, no padding.
float64 throughout.

c_d = c unit_d: somebody's generosity counts alike in all domains, in steps of each one's scale. Were each c_d learnt,
people of whom both domains are known would set it, and too much would be believed of those who are cold in one
(decision 23).

Shapes: U users, N items, D domains, K factors; P = 1 + K entries of a user's w (the shared bias first) and of an
item's (b, v).
"""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from models.datasets.dataset import Dataset
from models.training.biases import units
from models.training.gaussian import FieldRegression, pack, pack_dual, pack_outer, posterior, unpack
from models.training.new_items import NewItemPrior, expected_of_new

LOADING, BIAS_SPREAD, SPREAD, SHRINKAGE = 0.4, 0.4, 0.1, 5.0
"""Where the fit starts: c and the spread of b and of v in units of the ratings' spread, ratings' worth of shrinkage. EM
finds a variance slowly from below where items have few ratings each, so b starts at what is usual."""
FLOOR = 1e-4
"""Least variance of the noise."""


class FactorEM:
    """Posteriors, priors and noise, and the steps that improve them."""

    def __init__(
        self,
        data: Dataset,
        domain_means: Tensor,
        *,
        n_factors: int,
        attribute_prior: bool,
        content_prior: bool,
        noise_prior: float | None,
        generator: torch.Generator,
        more_content: Tensor | None = None,
    ) -> None:
        """Start from small random factors; the settings are those of `BayesConfig`.

        `more_content` (N, E) stands beside the items' encoded attributes, as a field of its own.
        """
        seen, self.domain = data.interactions, data.items.domain
        self.user_features = data.user_attributes
        self.size, self.noise_prior = 1 + n_factors, noise_prior
        self.n_domains = len(domain_means)

        index, shape = (seen.users.numpy(), seen.items.numpy()), (data.n_users, data.n_items)
        weight = seen.weights.double().numpy()
        value = (seen.values - domain_means[self.domain[seen.items]]).double().numpy()
        self.weights = sparse.csr_matrix((weight, index), shape=shape)
        self.values = sparse.csr_matrix((weight * value, index), shape=shape)
        self.weights_by_item, self.values_by_item = self.weights.T.tocsr(), self.values.T.tocsr()
        self.energy = torch.from_numpy(np.bincount(index[1], weight * value**2, minlength=data.n_items))  # (N,)
        self.item_weight = torch.from_numpy(np.bincount(index[1], weight, minlength=data.n_items))  # (N,)
        self.active = torch.bincount(seen.users, minlength=data.n_users) > 0  # (U,)
        self.trained = [(self.domain == d) & (self.item_weight > 0) for d in range(self.n_domains)]  # (N,) each

        exposure = self._exposure()
        spread = [self._per_weight(self.item_weight * exposure.square(), d) for d in range(self.n_domains)]
        self.exposure_variance = torch.stack(spread)  # (D,) over ratings
        content = [data.items.content.features]
        item_fields = [field.width for field in data.schema.item_attributes.fields]
        if more_content is not None:
            content, item_fields = [*content, more_content], [*item_fields, more_content.shape[1]]
        self.item_features = torch.cat([exposure[:, None], *(columns.double() for columns in content)], dim=1)
        user_fields = [field.width for field in data.schema.user_attributes.fields]
        self.user_prior = FieldRegression(self.size, user_fields, attribute_prior)
        self.item_priors = [FieldRegression(self.size, [1, *item_fields], content_prior) for _ in range(self.n_domains)]
        self.domain_noise = torch.stack([self._per_weight(self.energy, d) for d in range(self.n_domains)])  # s² (D,)
        self.noise = self.domain_noise[self.domain]  # (N,)
        around = self.domain_noise.sqrt()  # (D,) how widely ratings are spread
        self.unit = units(data.schema).double()  # (D,)
        rated = [d for d, of_d in enumerate(self.trained) if of_d.any()] or [0]
        self.loading = LOADING * (around / self.unit)[rated].mean() * self.unit  # c_d (D,)
        for prior, variance in zip(self.item_priors, self.domain_noise, strict=True):
            prior.noise *= SPREAD**2 * variance
            prior.noise[0, 0] = BIAS_SPREAD**2 * variance
        start = torch.randn(data.n_items, self.size, generator=generator, dtype=torch.float64)
        self.item_mean = SPREAD * around[self.domain, None] * start  # (N, P) of (b, v)
        self.item_mean[:, 0] = _dot(self.values_by_item, torch.ones(data.n_users, 1).double())[:, 0]
        self.item_mean[:, 0] /= self.item_weight + SHRINKAGE
        self.item_covariance = torch.zeros(data.n_items, self.size, self.size, dtype=torch.float64)
        self.user_mean = torch.zeros(data.n_users, self.size, dtype=torch.float64)  # (U, P)
        self.user_covariance = torch.eye(self.size, dtype=torch.float64).repeat(data.n_users, 1, 1)

    def _per_weight(self, sums: Tensor, d: int) -> Tensor:
        """Mean over the evidence of a domain, from a sum for each item; 1 where there is none."""
        of_d = self.trained[d]
        return (sums[of_d].sum() / self.item_weight[of_d].sum()).clamp(min=FLOOR) if of_d.any() else sums.new_ones(())

    def _exposure(self) -> Tensor:
        """How often an item was rated, (N,): log counts, centred on the mean over the ratings of its domain.

        People rate what is good, so counts tell of quality. At 0 stands what a rating is typically of.
        """
        log_count = self.item_weight.log1p()
        centre = torch.stack([self._per_weight(self.item_weight * log_count, d) for d in range(self.n_domains)])
        return log_count - centre[self.domain]

    def new_items(self, d: int) -> NewItemPrior:
        """What to expect of a domain's items that nobody has rated."""
        of_d = self.trained[d]
        told = self.item_features[of_d], self.item_mean[of_d, 0], self.item_weight[of_d]
        return expected_of_new(self.item_priors[d], *told, self.exposure_variance[d])

    def step(self) -> None:
        """One round: users, their prior, items, their priors, loadings and noise."""
        self._update_users()
        self._update_user_prior()
        self._update_items()
        for d, prior in enumerate(self.item_priors):
            of_d = self.trained[d]
            if of_d.any():
                prior.update(self.item_features[of_d], self.item_mean[of_d], self.item_covariance[of_d].sum(0))

    def _update_users(self) -> None:
        """q(w_u) given q(b, v)."""
        bias, factors = self.item_mean[:, :1], self.item_mean[:, 1:]
        phi = torch.cat([self.loading[self.domain, None], factors], dim=1)  # (N, P)
        second = pack_outer(phi) + pack(_padded(self.item_covariance[:, 1:, 1:]))  # E[φφ'] (N, Q)
        cross = phi * bias  # E[φ b] (N, P)
        cross[:, 1:] += self.item_covariance[:, 1:, 0]
        precise = 1 / self.noise[:, None]
        gram = unpack(_dot(self.weights, precise * second), self.size)
        pull = _dot(self.values, precise * phi) - _dot(self.weights, precise * cross)
        prior = self.user_prior.predict(self.user_features)
        mean, root = posterior(gram + torch.eye(self.size, dtype=gram.dtype), pull + prior)
        self.user_mean, self.user_covariance = mean, root.mT @ root

    def _update_user_prior(self) -> None:
        """A by regression; the spread around it is then made I again by a linear map of all w, undone in v and c."""
        active = self.active
        self.user_prior.update(self.user_features[active], self.user_mean[active], self.user_covariance[active].sum(0))
        # The map is upper triangular, so that the shared bias stays one loading for all items: w_0 alone feeds on w'_0.
        spread = torch.linalg.cholesky(self.user_prior.noise.flip(0, 1)).flip(0, 1)  # U, with U U' = noise
        back = torch.linalg.inv(spread)
        self.user_prior.noise = torch.eye(self.size, dtype=torch.float64)
        self.user_prior.weights = self.user_prior.weights @ back.T
        self.user_mean = self.user_mean @ back.T
        self.user_covariance = back @ self.user_covariance @ back.T
        mix = torch.eye(self.size, dtype=torch.float64)
        mix[1:, 1:] = spread[1:, 1:].T  # v' = U_11' v + c u_01
        shift = torch.zeros(self.n_domains, self.size, dtype=torch.float64)
        shift[:, 1:] = self.loading[:, None] * spread[0, 1:]
        self.loading = self.loading * spread[0, 0]
        self.item_mean = self.item_mean @ mix.T + shift[self.domain]
        self.item_covariance = mix @ self.item_covariance @ mix.T
        for d, prior in enumerate(self.item_priors):
            prior.weights = prior.weights @ mix.T
            prior.weights[0] += shift[d]
            prior.noise = mix @ prior.noise @ mix.T

    def _update_items(self) -> None:
        """q(b_i, v_i) given q(w), then c and s² from the same sums."""
        level, factors = self.user_mean[:, :1], self.user_mean[:, 1:]
        x = torch.cat([torch.ones_like(level), factors], dim=1)  # (U, P)
        second = pack_outer(x) + pack(_padded(self.user_covariance[:, 1:, 1:]))  # E[xx']
        cross = x * level  # E[x w_0]
        cross[:, 1:] += self.user_covariance[:, 1:, 0]
        level_energy = level.square() + self.user_covariance[:, :1, 0]  # E[w_0²]
        sums = _dot(self.weights_by_item, torch.cat([second, cross, level_energy], dim=1))
        gram_packed, cross_sum, level_sum = sums[:, : -1 - self.size], sums[:, -1 - self.size : -1], sums[:, -1]
        pulls = _dot(self.values_by_item, torch.cat([x, level], dim=1))
        pull, level_pull = pulls[:, :-1], pulls[:, -1]
        gram, loading = unpack(gram_packed, self.size), self.loading[self.domain, None]
        precise = 1 / self.noise[:, None]
        for d, prior in enumerate(self.item_priors):
            of_d = self.domain == d
            precision = torch.linalg.inv(prior.noise)
            centre = prior.predict(self.item_features[of_d])
            shift = (precise * (pull - loading * cross_sum))[of_d] + centre @ precision
            mean, root = posterior(precision + precise[of_d, :, None] * gram[of_d], shift)
            self.item_mean[of_d], self.item_covariance[of_d] = mean, root.mT @ root
        mixed = (cross_sum * self.item_mean).sum(1)
        self._update_loading((level_pull - mixed) / self.noise, level_sum / self.noise)
        loading = self.loading[self.domain]
        moments = self.item_mean[:, :, None] * self.item_mean[:, None, :] + self.item_covariance
        explained = (pull * self.item_mean).sum(1) + loading * (level_pull - mixed)
        error = self.energy - 2 * explained + loading.square() * level_sum + (pack_dual(moments) * gram_packed).sum(1)
        self._update_noise(error.clamp(min=0))

    def _update_loading(self, pull: Tensor, energy: Tensor) -> None:
        """c from each item's sum of precision-weighted w_0 (r - b - v . w) and of w_0², (N,) each."""
        unit = self.unit[self.domain]
        if self.active.any():
            self.loading = self.unit * (unit * pull).sum() / (unit.square() * energy).sum()

    def _update_noise(self, error: Tensor) -> None:
        """s² from each item's sum of expected squared errors (N,): the domain's; each item's, shrunken to it."""
        self.domain_noise = torch.stack([self._per_weight(error, d) for d in range(self.n_domains)])
        shared = self.domain_noise[self.domain]
        if self.noise_prior is None:
            self.noise = shared
        else:
            self.noise = (self.noise_prior * shared + error) / (self.noise_prior + self.item_weight)


def _padded(matrices: Tensor) -> Tensor:
    """(…, K, K) with a row and a column of zeros before the others."""
    return torch.nn.functional.pad(matrices, (1, 0, 1, 0))


def _dot(matrix: sparse.csr_matrix, dense: Tensor) -> Tensor:
    return torch.from_numpy(matrix @ dense.numpy())

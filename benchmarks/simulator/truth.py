"""What people would think of films, noise aside: matrix factorisation of MovieLens-1M, taken for the truth.

    x_ui = mean + b_i + b_u + p_u . q_i,    r_ui = clip(round(x_ui + e_ui), 1, 5),    e_ui ~ N(0, s²)

Everybody is somebody of MovieLens-1M, with their attributes, and every film is one of its films, with its genres and
year. The settings below were fixed before any policy had met the world, and s is what the fit left unexplained. The
service's recommenders are other models of other data: what this world tells them.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm

from models.datasets.dataset import Dataset
from models.recommender import FitOptions
from models.registry import RECOMMENDERS

N_FACTORS = 12
SWEEPS = 20
MIN_RATINGS = 100
"""Films with fewer ratings are left out: nobody could say what the truth about them is."""
BATCH = 64

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """The world's parameters."""

    films: Indices
    """(N,) the data's index of each film."""
    bias: Floats
    """(N,) mean + b_i."""
    film_factors: Floats
    """(N, K)."""
    user_bias: Floats
    """(U,)."""
    user_factors: Floats
    """(U, K)."""
    noise: float
    """s."""

    @cached_property
    def quality(self) -> Floats:
        """(N,) what the films are to all users, in the mean."""
        mean: Floats = self.bias + self.user_bias.mean() + self.film_factors @ self.user_factors.mean(0)
        return mean

    def liking(self, users: Indices, films: Indices) -> Floats:
        """x (V, n) of some users and some of the films, by their numbers here."""
        matched = self.user_factors[users] @ self.film_factors[films].T
        x: Floats = self.bias[films] + self.user_bias[users, None] + matched
        return x

    def ratings(self, liking: Floats, generator: np.random.Generator) -> Floats:
        """What is given where that is felt."""
        noise = generator.standard_normal(liking.shape, dtype=np.float32) * np.float32(self.noise)
        given: Floats = (liking + noise).round().clip(1, 5)
        return given

    def worth(self, liking: Floats) -> Floats:
        """E[(r - 1) / 4]: what showing somebody a film earns, if they rate it."""
        steps = np.arange(1.5, 5.0)  # r exceeds j where x + e exceeds j + ½
        expected: Floats = norm.cdf((liking[..., None] - steps) / self.noise).mean(-1).astype(np.float32)
        return expected

    def save(self, path: Path) -> None:
        """Write it to a file."""
        np.savez_compressed(path, **{name: vars(self)[name] for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, path: Path) -> "Truth":
        """What `save` wrote."""
        with np.load(path) as stored:
            return cls(**{name: stored[name] if stored[name].ndim else stored[name].item() for name in stored.files})


@torch.no_grad()
def fit(data: Dataset, min_ratings: int = MIN_RATINGS) -> Truth:
    """The world that a data set with one domain, of five points, tells of; the same data, the same world."""
    kind = RECOMMENDERS["mf"]
    settings = {"n_factors": N_FACTORS, "epochs": SWEEPS, "content_factors": False}
    recommender = kind(kind.Config.model_validate(settings), data.schema)
    table = recommender.fit(data, FitOptions()).table
    recommender.eval()
    states = torch.cat(
        [recommender.adapt(data.evidence(users), table, 0) for users in torch.arange(data.n_users).split(BATCH)]
    )  # (U, 1 + K)
    seen = data.interactions
    mean = float(recommender.get_buffer("mean")[0])
    factors, bias = table["factors"], mean + table["bias"]
    matched = (states[seen.users, 1:] * factors[seen.items]).sum(1)
    residual = seen.values - (bias[seen.items] + states[seen.users, 0] + matched)
    counts = torch.bincount(seen.items, minlength=data.n_items)
    films = (counts >= min_ratings).nonzero().flatten()
    return Truth(
        films.numpy(),
        bias[films].numpy(),
        factors[films].numpy(),
        states[:, 0].numpy(),
        states[:, 1:].numpy(),
        float(residual.std()),
    )

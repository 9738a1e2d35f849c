"""The sample of the Open Bandit Dataset: two policies that showed fashion items side by side, with true propensities.

Saito et al., "Open Bandit Dataset and Pipeline" (NeurIPS 2021 Datasets and Benchmarks). 10,000 places of each of three
campaigns (`all`, `men`, `women`), shown by a uniformly random policy and by Bernoulli Thompson sampling (`bts`), in the
same week. What the second earned is known, so an estimate of it from the log of the first can be held against truth.
The sample comes in the wheel of `obp`, which is opened as a zip file and never imported.
"""

import io
import re
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.datasets.sources import Package
from models.recommender import Progress, no_progress

CAMPAIGNS = ("all", "men", "women")
POLICIES = ("random", "bts")
REQUIREMENT = "obp==0.4.1"
SHA256 = "87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208"
DATA, PRIORS = "obp/dataset/obd", "obp/policy/conf"
N_SIMULATIONS = 100_000
"""Slates behind the probabilities of Thompson sampling."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Shown:
    """n places that a policy filled."""

    items: Ints
    """(n,)."""
    positions: Ints
    """(n,) 0, 1 or 2."""
    clicks: Floats
    """(n,) 0 or 1."""
    propensities: Floats
    """(n,)."""


@dataclass(frozen=True)
class Campaign:
    """One campaign, as both policies showed it."""

    name: str
    logs: dict[str, Shown]
    """By policy."""
    alpha: Floats
    """(n_items,) prior successes of the Thompson sampling that was in production."""
    beta: Floats
    """(n_items,) prior failures."""

    def thompson(self, seed: int = 0, n: int = N_SIMULATIONS) -> Floats:
        """(n_items, 3): how often Bernoulli Thompson sampling shows each item at each position."""
        generator = np.random.default_rng(seed)
        counts = np.zeros((len(self.alpha), 3))
        for drawn in np.array_split(np.arange(n), max(1, n // 10_000)):
            draws = generator.beta(self.alpha, self.beta, (len(drawn), len(self.alpha)))
            best = np.argsort(-draws, axis=1)[:, :3]
            for position in range(3):
                counts[:, position] += np.bincount(best[:, position], minlength=len(self.alpha))
        shares: Floats = counts / n
        return shares


def fetch(progress: Progress = no_progress) -> list[Campaign]:
    """Every campaign of the sample. Raises SourceError."""
    parts = [f"{DATA}/{policy}/{campaign}" for policy in POLICIES for campaign in CAMPAIGNS]
    folders = Package(REQUIREMENT, SHA256, DATA).download_folders([*parts, PRIORS], progress)
    priors = parse_priors(folders[PRIORS]["prior_bts.yaml"].decode())
    return [
        Campaign(
            name,
            {policy: parse(folders[f"{DATA}/{policy}/{name}"][f"{name}.csv"]) for policy in POLICIES},
            *priors[name],
        )
        for name in CAMPAIGNS
    ]


def parse(content: bytes) -> Shown:
    """A log as the sample has it."""
    rows = pl.read_csv(io.BytesIO(content), columns=["item_id", "position", "click", "propensity_score"])
    return Shown(
        rows["item_id"].to_numpy().astype(np.int64),
        rows["position"].to_numpy().astype(np.int64) - 1,
        rows["click"].to_numpy().astype(np.float64),
        rows["propensity_score"].to_numpy().astype(np.float64),
    )


def parse_priors(text: str) -> dict[str, tuple[Floats, Floats]]:
    """Campaign → (alpha, beta), from a file of names and lists of numbers: that much of YAML and no more.

    >>> parse_priors("all:\\n  alpha:\\n  - 1\\n  - 2\\n  beta:\\n  - 3\\n  - 4.5")["all"]
    (array([1., 2.]), array([3. , 4.5]))
    """
    found: dict[str, dict[str, list[float]]] = {}
    campaign = field = ""
    for line in text.splitlines():
        if number := re.fullmatch(r"\s*- (\S+)\s*", line):
            found[campaign][field].append(float(number[1]))
        elif name := re.fullmatch(r"(\s*)(\w+):\s*", line):
            if name[1]:
                field = name[2]
                found[campaign][field] = []
            else:
                campaign = name[2]
                found[campaign] = {}
    return {name: (np.array(lists["alpha"]), np.array(lists["beta"])) for name, lists in found.items()}

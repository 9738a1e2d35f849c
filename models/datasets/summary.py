"""What a data set folder holds, in figures: `warmstart datasets check`."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.datasets.folder import read
from models.recommender import Progress, no_progress


@dataclass(frozen=True)
class DomainSummary:
    """One domain. The shares and the mean are NaN where there is nothing to divide by."""

    name: str
    rating_min: float
    rating_max: float
    users: int
    """Users with an interaction in the domain."""
    items: int
    interactions: int
    ratings: int
    mean_rating: float
    density: float
    """Distinct pairs of user and item, as a share of all pairs of the users and items counted here."""
    content_share: float
    """Share of items with at least one attribute."""
    timed_share: float
    """Share of interactions whose moment is known."""


@dataclass(frozen=True)
class Summary:
    """A whole folder."""

    name: str
    fingerprint: str
    users: int
    """All users, with interactions or without."""
    interactions: int
    domains: list[DomainSummary]
    shared_users: dict[tuple[str, str], int]
    """Users with interactions in both domains of a pair."""
    links: int
    """Items that `same_as` joins to another catalogue."""


def check(folder: Path, progress: Progress = no_progress) -> Summary:
    """Read a folder strictly and count. Raises DatasetError with file, line and reason."""
    return summarise(read(folder, progress))


def summarise(data: Dataset) -> Summary:
    """The figures of a data set."""
    seen = data.interactions
    domain_of = data.items.domain[seen.items]
    users = {domain.name: torch.unique(seen.users[domain_of == d]) for d, domain in enumerate(data.schema.domains)}
    return Summary(
        name=data.name,
        fingerprint=data.fingerprint,
        users=data.n_users,
        interactions=len(seen),
        domains=[_domain(data, d, domain_of, len(users[domain.name])) for d, domain in enumerate(data.schema.domains)],
        shared_users={(a, b): int(torch.isin(users[a], users[b]).sum()) for a, b in combinations(users, 2)},
        links=len(data.items.same_as),
    )


def _domain(data: Dataset, index: int, domain_of: Tensor, n_users: int) -> DomainSummary:
    domain = data.schema.domains[index]
    seen = data.interactions.rows(domain_of == index)
    rated = seen.kinds == 0
    rows = (data.items.domain == index).nonzero().flatten().tolist()
    pairs = len(torch.unique(seen.users * max(1, data.n_items) + seen.items))
    return DomainSummary(
        name=domain.name,
        rating_min=domain.rating_min,
        rating_max=domain.rating_max,
        users=n_users,
        items=len(rows),
        interactions=len(seen),
        ratings=int(rated.sum()),
        mean_rating=float(seen.values[rated].double().mean()),
        density=_share(pairs, n_users * len(rows)),
        content_share=_share(sum(bool(data.items.attributes[row]) for row in rows), len(rows)),
        timed_share=_share(int(seen.times.isfinite().sum()), len(seen)),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")

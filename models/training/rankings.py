"""Lists for users that a fit has not met: how many of their likes are found, and how early.

The questions of strong generalisation (Liang et al., WWW 2018): a user shows all but a fifth of what they like, the
whole catalogue is put in order, and what was kept back should come first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.evaluation.metrics import ndcg_at, recall_at
from models.recommender import Evidence, ItemTable, Recommender
from models.training.likes import Likes

SHOWN = 0.8
"""Share of a user's likes that the list may be made of."""
FIGURE = "ndcg@100"
DEEPEST = 100
BATCH = 128


@dataclass(frozen=True)
class Rankings:
    """Users of one domain with what they show and what is kept back."""

    domain: int
    support: Evidence
    """Everything that users did but the likes kept back."""
    wanted: Tensor
    """(B, Q) int64, the items kept back."""
    mask: Tensor
    """(B, Q) bool."""

    @classmethod
    def draw(cls, data: Dataset, users: Tensor, seed: int) -> "list[Rankings]":
        """Questions about `users` of `data`, one a user and domain in which they like two items or more."""
        generator = torch.Generator().manual_seed(seed)
        seen, domain_of = data.interactions, data.items.domain[data.interactions.items]
        liked = (Likes(data.schema)(seen.values, seen.weights, domain_of) > 0) & (seen.kinds == 0)
        drawn = []
        for domain in range(len(data.schema.domains)):
            shown: list[Tensor] = []
            wanted: list[Tensor] = []
            kept: list[int] = []
            for user in users.tolist():
                rows = torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))
                likes = rows[liked[rows] & (domain_of[rows] == domain)]
                likes = likes[torch.randperm(len(likes), generator=generator)]
                n = int(SHOWN * len(likes))
                if n > 0:
                    wanted.append(likes[n:])
                    shown.append(rows[~torch.isin(seen.items[rows], seen.items[likes[n:]])])
                    kept.append(user)
            if kept:
                attributes = data.user_attributes[torch.tensor(kept)]
                query = data.evidence_of(wanted, attributes)
                drawn.append(cls(domain, data.evidence_of(shown, attributes), query.items, query.mask))
        return drawn

    @torch.no_grad()
    def found(self, recommender: Recommender, table: ItemTable) -> tuple[Tensor, Tensor]:
        """((B, 100) bool, whether a place holds an item kept back; (B,) how many can be found), of users with any.

        Lists are of the domain's items that the fit has met, without those of the support.
        """
        catalogue = (table.trained & (table.domain == self.domain)).nonzero().flatten()
        place = torch.full((len(table),), len(catalogue), device=catalogue.device)
        place[catalogue] = torch.arange(len(catalogue), device=catalogue.device)
        places, counts = [], []
        for rows in torch.split(torch.arange(len(self.mask)), BATCH):
            support = self.support.rows(rows).to(table.domain.device)
            states = recommender.adapt(support, table, self.domain)
            means = recommender.means(states, table, catalogue)
            # One column more than the catalogue has, for what is not in it.
            shown = _flags(place[support.items], support.mask, len(catalogue) + 1)
            kept = _flags(place[self.wanted[rows].to(place.device)], self.mask[rows].to(place.device), shown.shape[1])
            order = means.masked_fill(shown[:, :-1], -torch.inf).argsort(dim=1, descending=True, stable=True)
            places.append(kept.gather(1, order[:, :DEEPEST]).cpu())
            counts.append(kept[:, :-1].sum(dim=1).cpu())
        any_kept = torch.cat(counts) > 0
        return torch.cat(places)[any_kept], torch.cat(counts)[any_kept]


def measure_rankings(rankings: list[Rankings], recommender: Recommender, table: ItemTable) -> Mapping[str, float]:
    """`ndcg@100`, `recall@20` and `recall@50`, means over users; nothing where nobody can be asked."""
    ndcg, recall = [], {20: [], 50: []}  # type: ignore[var-annotated]
    for ranking in rankings:
        found, counts = (tensor.numpy() for tensor in ranking.found(recommender, table))
        ideal = (np.arange(DEEPEST) < counts[:, None]).astype(np.float64)
        ndcg.append(ndcg_at(found.astype(np.float64), ideal, DEEPEST))
        for k, values in recall.items():
            values.append(recall_at(found, counts, k, truncated=True))
    if not sum(map(len, ndcg)):
        return {}
    figures = {f"recall@{k}": float(np.concatenate(values).mean()) for k, values in recall.items()}
    return {FIGURE: float(np.concatenate(ndcg).mean()), **figures}


def _flags(columns: Tensor, mask: Tensor, width: int) -> Tensor:
    """(B, width) bool, True in the named columns (B, L) where there is an entry."""
    flags = torch.zeros(len(columns), width, dtype=torch.bool, device=columns.device)
    rows = torch.arange(len(columns), device=columns.device)[:, None].expand_as(columns)
    flags[rows[mask], columns[mask]] = True
    return flags

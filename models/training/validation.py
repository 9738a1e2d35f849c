"""Validation: how well a recommender answers for users it has not met, on k of their interactions, or on most of them
where it only puts items in order."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.recommender import Evidence, ItemTable, Recommender
from models.training.domains import Direction
from models.training.rankings import FIGURE, Rankings, measure_rankings

SUPPORT_SIZES = (0, 5, 20)
TRANSFER_SIZES = (0, 1, 5)
"""Of support in the target, beside a history in the source."""
QUERY_SIZE = 10


@dataclass(frozen=True)
class Task:
    """Users with k support interactions each and what they rated besides."""

    domain: int
    support_size: int
    support: Evidence
    query_items: Tensor
    """(B, Q) int64."""
    query_values: Tensor
    """(B, Q)."""
    query_mask: Tensor
    """(B, Q) bool."""


@dataclass(frozen=True)
class Validation:
    """Fixed tasks drawn from held-out users."""

    tasks: list[Task]
    rankings: list[Rankings] = field(default_factory=list)
    """What recommenders are asked whose scores are preferences."""

    @classmethod
    def draw(cls, data: Dataset, users: Tensor, seed: int, sizes: tuple[int, ...] = SUPPORT_SIZES) -> "Validation":
        """Tasks for the held-out `users` of `data`: a random query of up to ten ratings in one domain, k of the rest
        as support. A user appears in every domain in which they have at least two ratings."""
        generator = torch.Generator().manual_seed(seed)
        seen = data.interactions
        rated = (seen.kinds == 0) & (seen.weights > 0)
        domain_of = data.items.domain[seen.items]
        tasks = []
        for domain in range(len(data.schema.domains)):
            supports: list[Tensor] = []
            queries: list[Tensor] = []
            kept: list[int] = []
            for user in users.tolist():
                rows = torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))
                rows = rows[rated[rows] & (domain_of[rows] == domain)]
                if len(rows) < 2:
                    continue
                shuffled = rows[torch.randperm(len(rows), generator=generator)]
                n_query = min(QUERY_SIZE, len(rows) // 2)
                queries.append(shuffled[:n_query])
                supports.append(shuffled[n_query:])
                kept.append(user)
            if not kept:
                continue
            attributes = data.user_attributes[torch.tensor(kept)]
            query = data.evidence_of(queries, attributes)
            for size in sizes:
                support = data.evidence_of([rows[:size].sort().values for rows in supports], attributes)
                tasks.append(Task(domain, size, support, query.items, query.values, query.mask))
        return cls(tasks, Rankings.draw(data, users, seed))

    @classmethod
    def draw_transfer(
        cls, data: Dataset, users: Tensor, direction: Direction, seed: int, sizes: tuple[int, ...] = TRANSFER_SIZES
    ) -> "Validation":
        """Tasks for users who are cold in the target: all that they did in the source and k of their target ratings
        are the support, up to ten other target ratings the query. Users need two ratings in the target."""
        generator = torch.Generator().manual_seed(seed)
        seen, domain_of = data.interactions, data.items.domain[data.interactions.items]
        rated = (seen.kinds == 0) & (seen.weights > 0) & (domain_of == direction.target)
        histories: list[Tensor] = []
        supports: list[Tensor] = []
        queries: list[Tensor] = []
        kept: list[int] = []
        for user in users.tolist():
            rows = torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))
            asked = rows[rated[rows]]
            if len(asked) < 2:
                continue
            shuffled = asked[torch.randperm(len(asked), generator=generator)]
            n_query = max(min(QUERY_SIZE, len(asked) - max(sizes)), 1)
            queries.append(shuffled[:n_query])
            supports.append(shuffled[n_query:])
            histories.append(rows[domain_of[rows] == direction.source])
            kept.append(user)
        if not kept:
            return cls([])
        attributes = data.user_attributes[torch.tensor(kept)]
        query = data.evidence_of(queries, attributes)
        tasks = []
        for size in sizes:
            known = [
                torch.cat([past, rows[:size]]).sort().values for past, rows in zip(histories, supports, strict=True)
            ]
            support = data.evidence_of(known, attributes)
            tasks.append(Task(direction.target, size, support, query.items, query.values, query.mask))
        return cls(tasks)

    @torch.no_grad()
    def measure(self, recommender: Recommender, table: ItemTable) -> dict[str, float]:
        """`rmse` and `mae` over all tasks, and `rmse@k` for each support size; predictions clipped to the scale.

        A recommender whose scores are preferences has no error in ratings, but `ndcg@100` and recall of whole lists.
        Nothing can be measured where there are no tasks: the dict is empty.
        """
        if recommender.kind != "rating":
            return dict(measure_rankings(self.rankings, recommender, table))
        low, high = recommender.schema.scales()
        squared: dict[int, list[Tensor]] = {}
        absolute: list[Tensor] = []
        device = table.domain.device
        for task in self.tasks:
            for rows in torch.split(torch.arange(len(task.query_mask)), 256):
                support = task.support.rows(rows).to(device)
                states = recommender.adapt(support, table, task.domain)
                mean = recommender.score(states, table).mean.cpu()
                predicted = mean.gather(1, task.query_items[rows]).clamp(
                    float(low[task.domain]), float(high[task.domain])
                )
                error = (predicted - task.query_values[rows])[task.query_mask[rows]]
                squared.setdefault(task.support_size, []).append(error.square())
                absolute.append(error.abs())
        if not absolute:
            return {}
        by_size = {f"rmse@{size}": float(torch.cat(parts).mean().sqrt()) for size, parts in sorted(squared.items())}
        everything = torch.cat([error for parts in squared.values() for error in parts])
        return {"rmse": float(everything.mean().sqrt()), "mae": float(torch.cat(absolute).mean()), **by_size}


def loss(metrics: Mapping[str, float]) -> float | None:
    """What a fit or a search makes small, of the metrics of a validation: RMSE or 1 - NDCG; None of no metrics."""
    if FIGURE in metrics:
        return 1 - metrics[FIGURE]
    return metrics.get("rmse")

"""Who answers the questions: trained recommenders, their blend, and the rows that every table has for scale."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.blend import Blend, Bucket, mix, per_score
from models.datasets.dataset import Dataset
from models.evaluation.exam import Group
from models.evaluation.metrics import Floats
from models.recommender import Evidence, ItemTable, Recommender, Scores
from models.training.domains import evidence_in

BATCH = 128


@dataclass(frozen=True)
class Answers:
    """What was answered to the questions of a group."""

    mean: Floats
    """(B, Q), not clipped; anything where the query is padded."""
    std: Floats | None = None

    @classmethod
    def of(cls, scores: Scores, place: Tensor) -> "Answers":
        """Answers to queries whose items have the columns `place`, (b, Q), of `scores`."""
        mean, std = (
            None if s is None else s.cpu().gather(1, place).double().numpy() for s in (scores.mean, scores.std)
        )
        assert mean is not None
        return cls(mean, std)

    @classmethod
    def joined(cls, batches: Sequence["Answers"]) -> "Answers":
        """Answers of the batches of a group."""
        stds = [batch.std for batch in batches if batch.std is not None]
        return cls(np.concatenate([batch.mean for batch in batches]), np.concatenate(stds) if stds else None)


class Predictor(ABC):
    """Anything that can be asked."""

    rates: bool = True
    """Whether its scores are on the rating scale; otherwise they only put items in order."""
    ranks_catalogue: bool = True
    """Whether it can be asked about every item at once."""

    @abstractmethod
    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        """Scores (b, n) of the items at `positions`, (n,) indices into the data's items, for b users."""

    def answer(self, group: Group) -> Answers:
        """Answer every question of a group."""
        answers = []
        for part in group.batches(BATCH):
            asked, place = torch.unique(part.items, return_inverse=True)
            answers.append(Answers.of(self.scores(part.support, part.domain, asked), place))
        return Answers.joined(answers)


class TrainedPredictor(Predictor):
    """A recommender with its item table."""

    def __init__(self, recommender: Recommender, table: ItemTable) -> None:
        self.recommender = recommender
        self.table = table
        self.rates = recommender.kind == "rating"

    @torch.no_grad()
    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        device = self.table.domain.device
        states = self.recommender.adapt(support.to(device), self.table, domain)
        return self.recommender.score(states, self.table, positions.to(device))


class AlonePredictor(TrainedPredictor):
    """A recommender that knows one domain of the data alone (`alone`), asked in the terms of all of it."""

    def __init__(self, recommender: Recommender, table: ItemTable, data: Dataset, domain: int) -> None:
        super().__init__(recommender, table)
        self.whole = ItemTable({}, data.items.domain, torch.ones(data.n_items, dtype=torch.bool))
        self.domain = domain
        there = data.items.domain == domain
        self.place = torch.where(there, there.cumsum(0) - 1, -1)

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        """Raises ValueError for another domain than its own."""
        if domain != self.domain:
            raise ValueError("a recommender of one domain alone was asked about another")
        known = evidence_in(support, self.whole, domain)
        known = replace(known, items=torch.where(known.mask, self.place[known.items], 0))
        return super().scores(known, 0, self.place[positions])


class Amounts:
    """How much each user is known by, as blends go by it: here, and where the transfer comes from."""

    def __init__(self, items_domain: Tensor | None = None, sources: Sequence[int] = ()) -> None:
        self.items_domain = items_domain
        self.sources = torch.tensor(list(sources), dtype=torch.long)

    def buckets(self, blend: Blend, support: Evidence, domain: int) -> list[Bucket]:
        """The bucket of each user of a batch. Without domains of items all that is known counts as known here."""
        mask = support.mask
        if self.items_domain is None:
            return [blend.bucket(size) for size in mask.sum(1).tolist()]
        of = self.items_domain[torch.where(mask, support.items, 0)]
        here, there = (mask & (of == domain)).sum(1), (mask & torch.isin(of, self.sources)).sum(1)
        return [blend.bucket(*amounts) for amounts in zip(here.tolist(), there.tolist(), strict=True)]


class BlendPredictor(Predictor):
    """The learnt mixture of several, weighted by the evidence on each user: the ratings that the service answers."""

    def __init__(self, blend: Blend, parts: Sequence[Predictor], amounts: Amounts | None = None) -> None:
        self.blend = blend
        self.parts = parts
        self.amounts = amounts or Amounts()

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        buckets = self.amounts.buckets(self.blend, support, domain)
        weights = torch.tensor([bucket.weights for bucket in buckets])  # (b, P)
        centres = torch.tensor([bucket.centres or [0.0] * len(self.parts) for bucket in buckets])
        scale = torch.tensor([bucket.std_scale for bucket in buckets])[:, None]
        mixed = mix([_on_cpu(part.scores(support, domain, positions)) for part in self.parts], weights, centres)
        return Scores(mixed.mean, None if mixed.std is None else mixed.std * scale)


class BlendRanking(BlendPredictor):
    """The same parts mixed for order: the lists that the service answers."""

    rates = False

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        buckets = self.amounts.buckets(self.blend, support, domain)
        weights = torch.tensor([bucket.ranking_weights or bucket.weights for bucket in buckets])
        means = [part.scores(support, domain, positions).mean.cpu() for part in self.parts]
        if self.blend.orders_lists:
            weights = per_score(weights, means)
        return Scores(mix([Scores(mean) for mean in means], weights).mean, kind="preference")


class Constant(Predictor):
    """Always the mean rating of the domain; ranks by item id."""

    def __init__(self, training: Dataset) -> None:
        seen = training.interactions
        domain = training.items.domain[seen.items]
        self.means = [float(seen.values[domain == d].mean()) for d in range(len(training.schema.domains))]

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        return Scores(torch.full((support.batch_size, len(positions)), self.means[domain]))


class Random(Predictor):
    """A rating drawn anew for each question from the training ratings of the domain."""

    def __init__(self, training: Dataset, seed: int) -> None:
        seen = training.interactions
        domain = training.items.domain[seen.items]
        self.values = [seen.values[domain == d] for d in range(len(training.schema.domains))]
        self.generator = torch.Generator().manual_seed(seed)

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        values = self.values[domain]
        shape = (support.batch_size, len(positions))
        drawn = values[torch.randint(len(values), shape, generator=self.generator)]
        noise = 1e-3 * torch.rand(shape, generator=self.generator)  # orders equal ratings at random
        return Scores(drawn + noise)


class MostPopular(Predictor):
    """Items by the number of training users who have them: the `popularity` row of top-N tables."""

    rates = False

    def __init__(self, training: Dataset) -> None:
        self.counts = torch.bincount(training.interactions.items, minlength=training.n_items).float().log1p()

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        return Scores(self.counts[positions].expand(support.batch_size, -1), kind="preference")


def _on_cpu(scores: Scores) -> Scores:
    std = None if scores.std is None else scores.std.cpu()
    return Scores(scores.mean.cpu(), std, kind=scores.kind)

"""From answers to figures: each question gives totals, figures are ratios of sums of totals.

Kept this way the same totals make the figure of a table, the mean over seeds, and every resample of the bootstrap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.evaluation import metrics
from models.evaluation.exam import Exam, Group
from models.evaluation.metrics import Bools, Floats
from models.evaluation.predictors import Answers, Predictor
from models.evaluation.significance import Statistic

LIST = 5
"""Length of the lists made of a user's query items."""
RANKING_BATCH = 64
DEEPEST = 100
"""Length of the lists made of a whole catalogue."""


@dataclass(frozen=True)
class Totals:
    """A figure's numerator and denominator of each question, (B,) each: squared errors and ratings, for example."""

    totals: Floats
    counts: Floats
    statistic: Statistic = "mean"

    @property
    def value(self) -> float:
        """The figure over all questions."""
        mean = float(self.totals.sum() / max(self.counts.sum(), 1e-12))
        return float(np.sqrt(mean)) if self.statistic == "root_mean" else mean


Measured = Mapping[str, Totals]
"""Figure → totals of the questions of one group."""


def measure(predictor: Predictor, exam: Exam, group: Group) -> Measured:
    """All figures of one group of questions."""
    if exam.ranks:
        return measure_rankings(predictor, exam, group)
    low, high = exam.data.schema.scales()
    scale = float(low[group.domain]), float(high[group.domain])
    if exam.measure == "transfer":
        return measure_transfer(predictor, exam, group, scale)
    return measure_ratings(predictor.answer(group), predictor.rates, group, scale)


def measure_ratings(
    answers: Answers, rates: bool, group: Group, scale: tuple[float, float], lists: Sequence[int] = (LIST,)
) -> Measured:
    """Errors (clipped to the scale, pooled over ratings), the order of the query items, calibration of std.

    Lists hold the five query items with the highest predictions. Predictions are clipped for errors alone: clipping
    would make ties in the order, and cut the tails that an interval is about.
    """
    truth, mask = group.values.double().numpy(), group.mask.numpy()
    n = mask.sum(1).astype(np.float64)
    measured: dict[str, Totals] = {}

    def over_ratings(name: str, values: Floats, statistic: Statistic = "mean") -> None:
        measured[name] = Totals(np.where(mask, values, 0).sum(1), n, statistic)

    if rates:
        error = np.clip(answers.mean, *scale) - truth
        over_ratings("rmse", np.square(error), "root_mean")
        over_ratings("mae", np.abs(error))
        over_ratings("mse", np.square(error))
        if answers.std is not None:
            std = np.where(mask, answers.std, 1.0)
            for level in metrics.COVERAGE_LEVELS:
                over_ratings(f"coverage@{level:.0%}", metrics.covered(answers.mean - truth, std, level))
            over_ratings("nll", metrics.negative_log_likelihood(answers.mean - truth, std))
    order = metrics.rank(answers.mean, group.items.numpy(), mask)
    ranked, there = np.take_along_axis(truth, order, 1), np.take_along_axis(mask, order, 1)
    for suffix, kind in (("", "exponential"), (" (binary)", "binary")):
        gains = np.where(there, metrics.gain(ranked, kind), 0.0)  # type: ignore[arg-type]
        for length in lists:
            measured[f"ndcg@{length}{suffix}"] = _over_lists(metrics.ndcg_at(gains, gains, length))
    relevant = there & (ranked >= metrics.RELEVANT)
    measured[f"precision@{LIST}"] = _over_lists(metrics.precision_at(relevant, LIST))
    measured[f"recall@{LIST}"] = _over_lists(metrics.recall_at(relevant, relevant.sum(1), LIST))
    measured[f"hit@{LIST}"] = _over_lists(metrics.hit_at(relevant, LIST))
    measured["first success"] = _over_lists(metrics.hit_at(relevant, 1))
    return measured


def measure_rankings(predictor: Predictor, exam: Exam, group: Group) -> Measured:
    """Lists of the whole catalogue without the support, held against the held-out items (relevance is binary)."""
    catalogue = exam.catalogue.nonzero().flatten() if group.candidates is None else group.candidates  # (C,)
    found: list[Bools] = []
    for part in group.batches(RANKING_BATCH):
        scores = predictor.scores(part.support, part.domain, catalogue).mean
        found.append(_found(scores.cpu().double().numpy(), part, catalogue, exam.data.n_items))
    return _list_figures(found, group)


def _found(scores: Floats, group: Group, catalogue: Tensor, n_items: int) -> Bools:
    """(b, C), whether each place of the list of the catalogue without the support holds a query item."""
    place = torch.full((n_items,), -1)
    place[catalogue] = torch.arange(len(catalogue))
    open_ = np.ones(scores.shape, dtype=np.bool_)
    wanted = np.zeros(scores.shape, dtype=np.bool_)
    for flags, items, mask, value in (
        (open_, group.support.items, group.support.mask, False),
        (wanted, group.items, group.mask, True),
    ):
        row, column = mask.nonzero(as_tuple=True)
        at = place[items[row, column]]
        flags[row[at >= 0].numpy(), at[at >= 0].numpy()] = value
    order = metrics.rank(scores, np.broadcast_to(catalogue.numpy(), scores.shape), open_)
    return np.take_along_axis(wanted & open_, order, 1)


def _list_figures(found: Sequence[Bools], group: Group) -> Measured:
    """Figures of lists whose hits `_found` gave, batch by batch."""
    hits = np.concatenate([ranked[:, :DEEPEST] for ranked in found])  # (B, 100)
    n = group.mask.sum(1).numpy()
    ideal = (np.arange(hits.shape[1]) < n[:, None]).astype(np.float64)
    measured = {f"ndcg@{k}": _over_lists(metrics.ndcg_at(hits.astype(np.float64), ideal, k)) for k in (10, 100)}
    measured |= {f"recall@{k}": _over_lists(metrics.recall_at(hits, n, k, truncated=True)) for k in (10, 20, 50)}
    return measured | {
        "precision@10": _over_lists(metrics.precision_at(hits, 10)),
        "hit@10": _over_lists(metrics.hit_at(hits, 10)),
        "mrr": _over_lists(np.concatenate([metrics.reciprocal_rank(ranked) for ranked in found])),
    }


def measure_transfer(predictor: Predictor, exam: Exam, group: Group, scale: tuple[float, float]) -> Measured:
    """Errors and order of the query items, and `list` figures: the target's catalogue without the support, held
    against the query items that were liked: rated in the upper quarter of the scale."""
    liked = replace(group, mask=group.mask & (group.values >= scale[0] + 0.75 * (scale[1] - scale[0])))
    catalogue = exam.catalogue.nonzero().flatten()  # (C,)
    asked = torch.unique(torch.cat([catalogue, group.items[group.mask]]))
    in_catalogue = torch.isin(asked, catalogue).numpy()
    answers: list[Answers] = []
    found: list[Bools] = []
    for part, wanted in zip(group.batches(RANKING_BATCH), liked.batches(RANKING_BATCH), strict=True):
        scores = predictor.scores(part.support, part.domain, asked)  # adapted once for both
        answers.append(Answers.of(scores, torch.searchsorted(asked, part.items).clamp(max=len(asked) - 1)))
        found.append(_found(scores.mean.cpu().double().numpy()[:, in_catalogue], wanted, catalogue, exam.data.n_items))
    measured = dict(measure_ratings(Answers.joined(answers), predictor.rates, group, scale, lists=(LIST, 10)))
    ranked = _list_figures(found, liked)
    return measured | {f"list {figure}": ranked[figure] for figure in ("ndcg@10", "recall@10", "hit@10")}


def _over_lists(values: Floats) -> Totals:
    """A mean over the questions for which the figure is defined."""
    defined = ~np.isnan(values)
    return Totals(np.where(defined, values, 0.0), defined.astype(np.float64))

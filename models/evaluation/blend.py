"""Learn the blend: how far to trust each part of a domain, by how much is known of the user.

Stacking (Wolpert 1992; Breiman, "Stacked Regressions", 1996): the parts answer questions about users that none of them
has learnt from, and in each evidence bucket b non-negative weights minimise

    sum_b |r_b - P_b w_b|^2 + smoothness * n * sum_b |w_b - w_(b+1)|^2

P_b has a column of predictions per part that rates, whose weights sum to 1, and a column of centred scores per ranking
part, whose weight is a slope: what somebody would choose tells a little of what they would think of it. The smoothness,
which lends a bucket its neighbours' evidence, is chosen by cross-validation over the users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from models.blend import BUCKET_STARTS, Blend, BlendPart, Bucket
from models.datasets.dataset import Dataset
from models.evaluation.draws import draw_by_seed
from models.evaluation.exam import Group
from models.evaluation.metrics import Bools, Floats, Ints
from models.evaluation.predictors import Predictor
from models.evaluation.ranking_blend import fit_ranking

QUERY_SIZE = 10
SIZES = ((0,), (1, 2), (3, 4), (5, 7), (10, 15), (20, 30), (50,))
"""Support sizes at which each bucket is measured."""
N_DRAWS = 4
"""Times that each user is asked at each size, about other items each time."""
SMOOTHNESS = (0.0, 0.003, 0.03, 0.3, 3.0)
N_FOLDS = 5
DRAW_STEP = 1009
"""Between the seeds of a user's draws at one size."""
SUM_WEIGHT = 1e4
"""How heavily the sum of a bucket's weights is held at 1, beside predictions of the size of ratings."""


@dataclass(frozen=True)
class Stack:
    """Predictions of one bucket: M ratings by P parts."""

    users: Ints
    """(M,)."""
    predictions: Floats
    """(M, P); those of a ranking part centred, in standard deviations."""
    std: Floats
    """(M, P), NaN where a part has none."""
    ratings: Floats
    """(M,)."""
    centres: Floats
    """(P,) what the predictions are counted from: 0 where a part rates."""


def fit_blend(
    parts: Sequence[tuple[BlendPart, Predictor]], data: Dataset, users: Tensor, domain: int, seed: int
) -> Blend:
    """The blend of `parts` for one domain, from the interactions that `users` have in `data`.

    No part may have learnt from these users. Raises ValueError where none of them has ratings enough to ask about.
    """
    stacks = [stack(parts, data, users, domain, sizes, seed) for sizes in SIZES]
    if not len(stacks[0].ratings):
        raise ValueError("no validation user has enough ratings to fit a blend on")
    rates = np.array([part.role != "ranking" for part, _ in parts])
    spread = _standardised(stacks, rates)
    solved = stacked_weights(stacks, rates, _best_smoothness(stacks, rates))
    ranking = fit_ranking([predictor for _, predictor in parts], data, users, domain, SIZES, seed)
    buckets = [
        Bucket(
            min_support=start,
            weights=_rounded(w / spread, rates),
            centres=[float(c) for c in np.round(bucket.centres, 6)],
            std_scale=std_scale(bucket, w),
            ranking_weights=order,
        )
        for start, w, bucket, order in zip(BUCKET_STARTS, solved, stacks, ranking, strict=True)
    ]
    return Blend(domain=data.schema.domains[domain].name, parts=[part for part, _ in parts], buckets=buckets)


def stack(
    parts: Sequence[tuple[BlendPart, Predictor]],
    data: Dataset,
    users: Tensor,
    domain: int,
    sizes: Sequence[int],
    seed: int,
    histories: Mapping[int, Tensor] | None = None,
) -> Stack:
    """What each part answers about the users on supports of these sizes, beside the truth.

    `histories` are rows of `data.interactions` in other domains that are known of each user besides.
    """
    low, high = (float(bound[domain]) for bound in data.schema.scales())
    asked, predicted, spread, truth = [], [], [], []
    for size, again in product(sizes, range(N_DRAWS)):
        draws = draw_by_seed(data, users, domain, QUERY_SIZE, size, seed + size + DRAW_STEP * again)
        if not draws:
            continue
        who = torch.tensor([draw.user for draw in draws])
        known = [d.support if histories is None else torch.cat([histories[d.user], d.support]) for d in draws]
        group = Group.of_rows("", data, domain, who, known, [d.query for d in draws])
        answers = [predictor.answer(group) for _, predictor in parts]
        columns = [
            np.clip(a.mean, low, high) if part.role != "ranking" else a.mean
            for a, (part, _) in zip(answers, parts, strict=True)
        ]
        predicted.append(np.stack(columns, -1).reshape(-1, len(parts)))
        stds = [np.full_like(a.mean, np.nan) if a.std is None else a.std for a in answers]
        spread.append(np.stack(stds, -1).reshape(-1, len(parts)))
        truth.append(group.values.double().numpy().reshape(-1))
        asked.append(np.repeat(who.numpy(), QUERY_SIZE))
    centres = np.zeros(len(parts))
    if not truth:
        none = np.zeros((0, len(parts)))
        return Stack(np.zeros(0, dtype=np.int64), none, none, np.zeros(0), centres)
    predictions = np.concatenate(predicted)
    for p, (part, _) in enumerate(parts):
        centres[p] = predictions[:, p].mean() if part.role == "ranking" else 0.0
    return Stack(np.concatenate(asked), predictions - centres, np.concatenate(spread), np.concatenate(truth), centres)


def stacked_weights(stacks: Sequence[Stack], rates: Bools, smoothness: float) -> list[Floats]:
    """Weights of the parts in each bucket: one non-negative least squares over all buckets at once.

    Those of the parts that rate, `rates` (P,), sum to 1. A bucket without data takes its neighbour's weights.
    """
    n_parts = len(rates)
    size = n_parts * len(stacks)
    n_typical = float(np.mean([len(s.ratings) for s in stacks])) or 1.0
    rows, targets = [], []
    for b, bucket in enumerate(stacks):
        at = slice(b * n_parts, (b + 1) * n_parts)
        reduced = _reduced(bucket)
        block = np.zeros((len(reduced) + 1, size))
        block[:-1, at] = reduced[:, :n_parts]
        block[-1, at] = SUM_WEIGHT * rates
        rows.append(block)
        targets.append(np.r_[reduced[:, n_parts], SUM_WEIGHT])
        if b + 1 < len(stacks):
            empty = not (len(bucket.ratings) and len(stacks[b + 1].ratings))
            tie = np.zeros((n_parts, size))
            tie[:, at] = np.eye(n_parts)
            tie[:, (b + 1) * n_parts : (b + 2) * n_parts] = -np.eye(n_parts)
            rows.append(tie * np.sqrt(max(smoothness, 1e-3 if empty else 0.0) * n_typical))
            targets.append(np.zeros(n_parts))
    solved, _ = nnls(np.concatenate(rows), np.concatenate(targets))
    weights = solved.reshape(len(stacks), n_parts)
    return [np.where(rates, w / w[rates].sum(), w) for w in weights]


def _reduced(bucket: Stack) -> Floats:
    """(P + 1, P + 1) triangle, a column a part and one of ratings, that errs as much as all the bucket's rows do."""
    return np.asarray(np.linalg.qr(np.column_stack([bucket.predictions, bucket.ratings]), mode="r"))


def _best_smoothness(stacks: Sequence[Stack], rates: Bools) -> float:
    """The smoothness whose weights err least on users that they were not fitted on."""

    def error(smoothness: float) -> float:
        total, n = 0.0, 0
        for fold in range(N_FOLDS):
            fitted = stacked_weights([_of(s, s.users % N_FOLDS != fold) for s in stacks], rates, smoothness)
            for w, bucket in zip(fitted, stacks, strict=True):
                held = _of(bucket, bucket.users % N_FOLDS == fold)
                total += float(np.square(held.predictions @ w - held.ratings).sum())
                n += len(held.ratings)
        return total / max(n, 1)

    return min(SMOOTHNESS, key=error)


def _standardised(stacks: Sequence[Stack], rates: Bools) -> Floats:
    """Divides ranking parts' scores by their standard deviations over all buckets, (P,), 1 for the others."""
    everything = np.concatenate([s.predictions for s in stacks])
    spread = np.where(rates, 1.0, np.maximum(everything.std(0), 1e-12))
    for bucket in stacks:
        bucket.predictions[:] /= spread
    return np.asarray(spread)


def std_scale(bucket: Stack, weights: Floats) -> float:
    """Root mean square of the mixture's errors over its std, as `models.blend.mix` makes it."""
    known = ~np.isnan(bucket.std).all(0)
    if not known.any() or not len(bucket.ratings):
        return 1.0
    shares = weights * known
    shares = shares / shares.sum() if shares.sum() > 0 else known / known.sum()
    std = np.nan_to_num(bucket.std) @ shares
    errors = bucket.predictions @ weights - bucket.ratings
    return round(float(np.sqrt(np.mean(np.square(errors / std)))), 6)


def _of(bucket: Stack, keep: Bools) -> Stack:
    return Stack(bucket.users[keep], bucket.predictions[keep], bucket.std[keep], bucket.ratings[keep], bucket.centres)


def _rounded(weights: Floats, rates: Bools) -> list[float]:
    """Six decimals; of the parts that rate still summing to 1: the rest of rounding goes to the largest."""
    rounded = np.round(weights, 6)
    if rates.any():
        rounded[np.argmax(np.where(rates, rounded, -1))] += 1 - rounded[rates].sum()
    return [float(w) for w in np.round(rounded, 9)]

"""Learn the blend: how far to trust each part of a domain, by how much is known of the user.

Stacking (Wolpert 1992; Breiman, "Stacked Regressions", 1996): the parts answer questions about users that none of them
has learnt from, and in each evidence bucket b non-negative weights minimise

    sum_b |r_b - P_b w_b|^2 + smoothness * n * sum_b |w_b - w_(b+1)|^2

P_b has a column of predictions per part that rates, whose weights sum to 1, and a column of centred scores per ranking
part, whose weight is a slope: what somebody would choose tells a little of what they would think of it. The smoothness,
which lends a bucket its neighbours' evidence, is chosen by cross-validation over the users.

What a mixture is worth is measured on users that its weights were not fitted on, fold by fold. Unless the one-sided
95 % interval of its gain over the best part of the bucket excludes a loss, that part answers alone: weights cost a
little where there is nothing to gain, as every estimate does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from models.blend import BUCKET_STARTS, Blend, BlendPart, Bucket, Gain
from models.datasets.dataset import Dataset
from models.evaluation.draws import draw_by_seed
from models.evaluation.exam import Group
from models.evaluation.gain import gain_of
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
    parts: Sequence[tuple[BlendPart, Predictor]],
    data: Dataset,
    users: Tensor,
    domain: int,
    seed: int,
    told: Sequence[Sequence[Stack]] | None = None,
    lists: bool = True,
) -> Blend:
    """The blend of `parts` for one domain, from the interactions that `users` have in `data`.

    No part may have learnt from these users. `told` is what `ask` gave, of these parts and of others like them, fitted
    with other seeds, on users of their own: the more there are, the better weights are known. None: asks these parts.
    Without `lists` no order of their own is learnt for them, which takes longest.

    Raises ValueError where none of the users has ratings enough to ask about.
    """
    told = told or [ask(parts, data, users, domain, seed)]
    stacks = [joined(of_size) for of_size in zip(*told, strict=True)]
    if not len(stacks[0].ratings):
        raise ValueError("no validation user has enough ratings to fit a blend on")
    rates = np.array([part.role != "ranking" for part, _ in parts])
    spread = _standardised(stacks, rates)
    smoothness = _best_smoothness(stacks, rates)
    gains = _gains(stacks, rates, smoothness)
    solved = _certain(stacked_weights(stacks, rates, smoothness), gains, stacks, rates)
    ranking: list[list[float] | None] = [None] * len(SIZES)
    if lists:
        ranking = fit_ranking([predictor for _, predictor in parts], data, users, domain, SIZES, seed)
    buckets = [
        Bucket(
            min_support=start,
            weights=_rounded(w / spread, rates),
            centres=[float(c) for c in np.round(bucket.centres, 6)],
            std_scale=std_scale(bucket, w),
            gain=gain,
            ranking_weights=order,
        )
        for start, w, bucket, gain, order in zip(BUCKET_STARTS, solved, stacks, gains, ranking, strict=True)
    ]
    return Blend(domain=data.schema.domains[domain].name, parts=[part for part, _ in parts], buckets=buckets)


def ask(
    parts: Sequence[tuple[BlendPart, Predictor]], data: Dataset, users: Tensor, domain: int, seed: int
) -> list[Stack]:
    """What the parts answer about the users in each bucket. No part may have learnt from them."""
    return [stack(parts, data, users, domain, sizes, seed) for sizes in SIZES]


def joined(stacks: Sequence[Stack]) -> Stack:
    """Several of the same bucket as one, counted from common centres."""
    rows = [len(s.ratings) for s in stacks]
    if len(stacks) == 1 or not sum(rows):
        return stacks[0]
    centres = np.average([s.centres for s in stacks], axis=0, weights=rows)
    return Stack(
        np.concatenate([s.users for s in stacks]),
        np.concatenate([s.predictions + s.centres - centres for s in stacks]),
        np.concatenate([s.std for s in stacks]),
        np.concatenate([s.ratings for s in stacks]),
        centres,
    )


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


def _gains(stacks: Sequence[Stack], rates: Bools, smoothness: float) -> list[Gain | None]:
    """What mixing saves in each bucket beside the best part, on users that the weights were not fitted on."""
    mixed = [np.empty_like(bucket.ratings) for bucket in stacks]
    for fold in range(N_FOLDS):
        fitted = stacked_weights([_of(s, s.users % N_FOLDS != fold) for s in stacks], rates, smoothness)
        for answers, w, bucket in zip(mixed, fitted, stacks, strict=True):
            held = bucket.users % N_FOLDS == fold
            answers[held] = bucket.predictions[held] @ w
    gains = []
    for answers, bucket in zip(mixed, stacks, strict=True):
        alone = np.square(bucket.predictions[:, _best_part(bucket, rates)] - bucket.ratings)
        gains.append(gain_of(bucket.users, alone, np.square(answers - bucket.ratings), "root_mean"))
    return gains


def _certain(
    weights: Sequence[Floats], gains: Sequence[Gain | None], stacks: Sequence[Stack], rates: Bools
) -> list[Floats]:
    """The weights where they certainly gain, and where nobody could tell; elsewhere the best part's 1."""
    if not rates.any():
        return list(weights)
    alone = [np.eye(len(rates))[_best_part(bucket, rates)] for bucket in stacks]
    return [w if gain is None or gain.low > 0 else best for w, gain, best in zip(weights, gains, alone, strict=True)]


def _best_part(bucket: Stack, rates: Bools) -> int:
    """The part that errs least, of those that rate."""
    if not rates.any():
        return 0
    errors = np.square(bucket.predictions - bucket.ratings[:, None]).sum(0)
    return int(np.argmin(np.where(rates, errors, np.inf)))


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

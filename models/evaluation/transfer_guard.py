"""The guard against negative transfer: how far to trust a transfer, by how much is known here and where it comes from.

Validation users are put as in the protocol `crossdomain`: none of the fits has seen what they did in the target. They
are shown s interactions of the source and k of the target, and each cell (s, k) of a grid has a weight of its own,

    ratings    w r_transfer + (1 - w) r_others             least squares, 0 <= w <= 1
    lists      order_preferences + (1 - v) order_ratings + v W s_transfer     likeliest choices, v of `LIST_SHARES`

where `order_ratings` weighs W in all, so that v says whose ratings order a list and nothing else, and `others` is the
blend of all other parts as it would be served without the transfer. Weights are judged on users that they were not
fitted on, fold by fold; unless the one-sided 95 % interval of their gain, bootstrapped over users, excludes a loss, the
weight is 0 and what is served is what would be served without the transfer. So too where fewer than `gain.MIN_USERS`
knew that much: a weight that nobody could test is a weight that nobody gets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.blend import Blend, BlendPart, Bucket, Gain
from models.datasets.dataset import Dataset
from models.evaluation.blend import SIZES, Stack, fit_blend, stack, std_scale
from models.evaluation.gain import gain_of
from models.evaluation.metrics import Floats, Ints
from models.evaluation.predictors import Predictor
from models.evaluation.ranking_blend import MAX_USERS, choices_of, log_likelihood, shuffled_ratings
from models.training.domains import domain_of

SOURCE_SIZES: Mapping[int, tuple[int, int | None]] = {0: (0, 0), 1: (1, 9), 10: (10, None)}
"""Where each bucket of source evidence begins → the least and the most that is shown in it; None: all there is."""
LIST_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
N_FOLDS = 5


@dataclass(frozen=True)
class _Asked:
    """Who answers about whom."""

    parts: Sequence[tuple[BlendPart, Predictor]]
    """The transfer last."""
    data: Dataset
    domain: int
    seed: int


def fit_guarded(
    parts: Sequence[tuple[BlendPart, Predictor]],
    transfer: tuple[BlendPart, Predictor],
    data: Dataset,
    users: Tensor,
    domain: int,
    sources: Sequence[int],
    seed: int,
) -> Blend:
    """The blend of `parts` and a `transfer` from the domains `sources`, for one domain, from what `users` did in it.

    No part may have learnt from what these users did there. Raises ValueError where none of them has ratings enough.
    """
    base = fit_blend(parts, data, users, domain, seed)
    asked = _Asked([*parts, transfer], data, domain, seed)
    buckets = []
    for start, sizes in SOURCE_SIZES.items():
        histories = _histories(data, users, sources, sizes, seed)
        known = torch.tensor(sorted(histories), dtype=torch.long)
        for bucket, support_sizes in zip(base.buckets, SIZES, strict=True):
            rated = _with_transfer(bucket, start, asked, known, histories, support_sizes)
            buckets.append(_in_lists(rated, bucket, asked, known, histories, support_sizes))
    return Blend(domain=base.domain, parts=[part for part, _ in asked.parts], buckets=buckets)


def transfer_share(others: Floats, transfer: Floats, ratings: Floats) -> float:
    """w in [0, 1] that minimises |ratings - (1 - w) others - w transfer|^2, (M,) each.

    >>> transfer_share(np.array([1.0, 1.0]), np.array([3.0, 3.0]), np.array([2.0, 3.0]))
    0.75
    """
    step = transfer - others
    length = float(step @ step)
    return 0.0 if length == 0 else float(np.clip(step @ (ratings - others) / length, 0, 1))


def _histories(
    data: Dataset, users: Tensor, sources: Sequence[int], sizes: tuple[int, int | None], seed: int
) -> dict[int, Tensor]:
    """Rows of what is known from the sources, by user, at random; without those who have too little of it."""
    least, most = sizes
    generator = torch.Generator().manual_seed(seed)
    there = torch.isin(domain_of(data), torch.tensor(list(sources), dtype=torch.long))
    found = {}
    for user in users.tolist():
        rows = torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))
        rows = rows[there[rows]]
        if len(rows) < least:
            continue
        largest = len(rows) if most is None else min(most, len(rows))
        size = largest if most is None else int(torch.randint(least, largest + 1, (1,), generator=generator))
        found[user] = rows[torch.randperm(len(rows), generator=generator)[:size]]
    return found


def _with_transfer(
    bucket: Bucket, start: int, asked: _Asked, users: Tensor, histories: Mapping[int, Tensor], sizes: Sequence[int]
) -> Bucket:
    """A bucket of the others' blend with the transfer's weight in ratings, after `start` or more in the source."""
    told = stack(asked.parts, asked.data, users, asked.domain, sizes, asked.seed, histories)
    weights = np.array([*bucket.weights, 0.0])
    centres = np.array([*(bucket.centres or [0.0] * len(bucket.weights)), 0.0])
    shifted = Stack(told.users, told.predictions + told.centres - centres, told.std, told.ratings, centres)
    others, transfer = shifted.predictions @ weights, shifted.predictions[:, -1]
    gain = _rating_gain(others, transfer, told.ratings, told.users)
    scale = bucket.std_scale
    if gain is not None and gain.low > 0:
        share = round(transfer_share(others, transfer, told.ratings), 6)
        weights = np.array([*(np.array(bucket.weights) * (1 - share)), share])
        scale = std_scale(shifted, weights)
    return Bucket(
        min_support=bucket.min_support,
        min_source=start,
        weights=[float(w) for w in np.round(weights, 9)],
        centres=[float(c) for c in centres],
        std_scale=scale,
        transfer_gain=gain,
    )


def _rating_gain(others: Floats, transfer: Floats, ratings: Floats, users: Ints) -> Gain | None:
    mixed = np.empty_like(ratings)
    for fold in range(N_FOLDS):
        held = users % N_FOLDS == fold
        share = transfer_share(others[~held], transfer[~held], ratings[~held])
        mixed[held] = (1 - share) * others[held] + share * transfer[held]
    return gain_of(users, np.square(others - ratings), np.square(mixed - ratings), "root_mean")


def _in_lists(
    rated: Bucket,
    bucket: Bucket,
    asked: _Asked,
    users: Tensor,
    histories: Mapping[int, Tensor],
    sizes: Sequence[int],
) -> Bucket:
    """The same with the transfer's weight in lists, where they have an order of their own."""
    if bucket.ranking_weights is None:
        return rated
    generator = torch.Generator().manual_seed(asked.seed)
    drawn = users[torch.randperm(len(users), generator=generator)[:MAX_USERS]]
    shuffled = [shuffled_ratings(asked.data, int(user), asked.domain, generator) for user in drawn]
    predictors = [predictor for _, predictor in asked.parts]
    made = [choices_of(predictors, asked.data, asked.domain, drawn, shuffled, size, histories) for size in sizes]
    choices = [c for c in made if c is not None]
    orders = _orders(bucket.ranking_weights, [part.role != "ranking" for part, _ in asked.parts[:-1]])
    best, gain = 0, None
    if choices:
        who = np.concatenate([c.users.numpy() for c in choices])
        found = [torch.cat([log_likelihood(c, torch.tensor(order)) for c in choices]) for order in orders]
        likelihoods = torch.stack(found).double().numpy()  # (V, M)
        best, gain = int(likelihoods.mean(1).argmax()), _list_gain(likelihoods, who)
    if gain is None or gain.low <= 0:
        best = 0
    return rated.model_copy(update={"ranking_weights": orders[best], "transfer_ranking_gain": gain})


def _orders(weights: Sequence[float], rates: Sequence[bool]) -> list[list[float]]:
    """The weights in lists that are tried, with the transfer's at the end; first those without it."""
    rated = sum(w for w, rate in zip(weights, rates, strict=True) if rate)
    return [
        [*(round((1 - v) * w if rate else w, 6) for w, rate in zip(weights, rates, strict=True)), round(v * rated, 6)]
        for v in LIST_SHARES
    ]


def _list_gain(likelihoods: Floats, users: Ints) -> Gain | None:
    """What the best order of the other folds is worth; `likelihoods` is (V, M), an order a row."""
    chosen = np.empty(len(users))
    for fold in range(N_FOLDS):
        held = users % N_FOLDS == fold
        if held.all():
            return None
        chosen[held] = likelihoods[int(likelihoods[:, ~held].mean(1).argmax()), held]
    return gain_of(users, -likelihoods[0], -chosen, "mean")

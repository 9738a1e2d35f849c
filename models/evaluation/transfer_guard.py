"""The guard against negative transfer: how far to trust a transfer, by how much is known here and where it comes from.

Validation users are put as in the protocol `crossdomain`: none of the fits has seen what they did in the target. They
are shown s interactions of the source and k of the target, and each cell (s, k) of a grid has a weight of its own,

    ratings    w r_transfer + (1 - w) r_others             least squares, 0 <= w <= 1
    lists      a order_others + c r_transfer               conditional logit (`ranking_blend`), a, c >= 0

where `others` is the blend of all other parts as it would be served without the transfer. Weights are judged on users
that they were not fitted on, fold by fold; unless the one-sided 95 % interval of their gain, bootstrapped over users,
excludes a loss, w is 0 (and c is 0, a is 1) and what is served is what would be served without the transfer. So too
where fewer than `MIN_USERS` knew that much: a weight that nobody could test is a weight that nobody gets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from models.blend import Blend, BlendPart, Bucket, Gain
from models.datasets.dataset import Dataset
from models.evaluation.blend import SIZES, Stack, fit_blend, stack, std_scale
from models.evaluation.metrics import Floats, Ints
from models.evaluation.predictors import Predictor
from models.evaluation.ranking_blend import MAX_USERS, Choices, choices_of, log_likelihood, shuffled_ratings
from models.evaluation.significance import Statistic, paired_bootstrap, per_user
from models.training.domains import domain_of

SOURCE_SIZES: Mapping[int, tuple[int, int | None]] = {0: (0, 0), 1: (1, 9), 10: (10, None)}
"""Where each bucket of source evidence begins → the least and the most that is shown in it; None: all there is."""
MIN_USERS = 20
"""Validation users below which nothing is known of a cell."""
N_FOLDS = 5
LEVEL = 0.9
"""Of the two-sided interval whose lower end is the one-sided 95 % bound."""


@dataclass(frozen=True)
class _Asked:
    """Who answers about whom."""

    parts: Sequence[tuple[BlendPart, Predictor]]
    """The transfer last."""
    data: Dataset
    domain: int
    seed: int

    @property
    def predictors(self) -> list[Predictor]:
        return [predictor for _, predictor in self.parts]


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
    return _gain(users, np.square(others - ratings), np.square(mixed - ratings), "root_mean")


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
    base = torch.tensor(bucket.ranking_weights)
    generator = torch.Generator().manual_seed(asked.seed)
    drawn = users[torch.randperm(len(users), generator=generator)[:MAX_USERS]]
    shuffled = [shuffled_ratings(asked.data, int(user), asked.domain, generator) for user in drawn]
    made = [choices_of(asked.predictors, asked.data, asked.domain, drawn, shuffled, size, histories) for size in sizes]
    choices = [
        Choices(c.users, torch.stack([_order(c.scores[..., :-1], base), c.scores[..., -1]], -1), c.liked)
        for c in made
        if c is not None
    ]
    gain = _list_gain(choices)
    a, c = (1.0, 0.0)
    if gain is not None and gain.low > 0:
        a, c = _list_weights(choices)
    order = [round(a * w, 6) for w in bucket.ranking_weights]
    return rated.model_copy(update={"ranking_weights": [*order, round(c, 6)], "transfer_ranking_gain": gain})


def _order(scores: Tensor, weights: Tensor) -> Tensor:
    """(B, N) the others' order, minus infinity where an item is out."""
    mixed = scores.nan_to_num(neginf=0.0) @ weights
    return mixed.masked_fill(scores[..., 0].isinf(), -torch.inf)


def _list_gain(choices: Sequence[Choices]) -> Gain | None:
    users, before, after = [], [], []
    for fold in range(N_FOLDS):
        fitted = [_of(c, c.users % N_FOLDS != fold) for c in choices]
        if not sum(len(c.users) for c in fitted):
            continue
        weights = torch.tensor(_list_weights(fitted))
        for c in choices:
            held = _of(c, c.users % N_FOLDS == fold)
            users.append(held.users.numpy())
            before.append(-log_likelihood(held, torch.tensor([1.0, 0.0])).double().numpy())
            after.append(-log_likelihood(held, weights).double().numpy())
    if not users:
        return None
    return _gain(np.concatenate(users), np.concatenate(before), np.concatenate(after), "mean")


def _list_weights(choices: Sequence[Choices]) -> tuple[float, float]:
    """(a, c) that make what was liked most likely."""

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = torch.tensor(flat, dtype=torch.float32, requires_grad=True)
        total = -torch.stack([log_likelihood(c, weights).mean() for c in choices if len(c.users)]).mean()
        (gradient,) = torch.autograd.grad(total, weights)
        return float(total.detach()), gradient.double().numpy()

    found = minimize(loss, np.array([1.0, 0.1]), jac=True, method="L-BFGS-B", bounds=[(0, None)] * 2)
    return float(found.x[0]), float(found.x[1])


def _gain(users: Ints, before: Floats, after: Floats, statistic: Statistic) -> Gain | None:
    """How much smaller the losses are after than before; None of fewer than `MIN_USERS` users."""
    who, lost, counts = per_user(users, before, np.ones(len(users)))
    if len(who) < MIN_USERS:
        return None
    _, left, _ = per_user(users, after, np.ones(len(users)))
    found = paired_bootstrap(left, lost, counts, statistic, level=LEVEL)
    return Gain(gain=round(-found.difference, 6), low=round(-found.high, 6), users=len(who))


def _of(choices: Choices, keep: Tensor) -> Choices:
    return Choices(choices.users[keep], choices.scores[keep], choices.liked[keep])

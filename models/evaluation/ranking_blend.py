"""Learn in what order to put a catalogue: a conditional logit over the parts' scores.

Which of all items somebody will like next is a choice among them (McFadden, "Conditional logit analysis of qualitative
choice behavior", 1974), and in each evidence bucket b non-negative weights c_b maximise the mean over users of

    log p(i | c_b),    p(i | c_b) = exp(c_b . s_ui) / sum_j exp(c_b . s_uj)

for the liked items i that were held out, among the items j that the user has not met; s_ui are the parts' scores of
an item, ratings to expect and preferences alike. Weights of neighbouring buckets are drawn together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from models.datasets.dataset import Dataset
from models.evaluation.metrics import Floats
from models.evaluation.predictors import BATCH, Predictor
from models.recommender import Evidence

LIKED_SHARE = 0.625
"""A rating beyond this share of its domain's scale is a like: above 3.5 of 1 to 5."""
QUERY_SHARE = 0.2
MAX_USERS = 300
SMOOTHNESS = 0.01
"""Pull between the weights of neighbouring buckets, in squared standard deviations of the scores."""


@dataclass(frozen=True)
class Choices:
    """Choices of B users at one support size."""

    scores: Tensor
    """(B, N, P) of all items of the domain, -inf where the user has met the item."""
    liked: Tensor
    """(B, N) 1 / number of the user's held-out likes where an item is one, else 0."""


def fit_ranking(
    parts: Sequence[Predictor],
    data: Dataset,
    users: Tensor,
    domain: int,
    sizes: Sequence[Sequence[int]],
    seed: int,
) -> list[list[float] | None]:
    """Weights of the parts in each bucket, whose users are shown `sizes[bucket]` interactions.

    None throughout where nobody has likes to hold out.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = users[torch.randperm(len(users), generator=generator)[:MAX_USERS]]
    shuffled = [_shuffled(data, int(user), domain, generator) for user in drawn]
    choices = [
        [made for size in bucket if (made := _choices(parts, data, domain, drawn, shuffled, size)) is not None]
        for bucket in sizes
    ]
    everything = [made for bucket in choices for made in bucket]
    if not everything:
        return [None] * len(sizes)
    spread = torch.stack([made.scores[made.scores.isfinite().all(-1)].std(0) for made in everything]).mean(0)
    spread = spread.clamp(min=1e-6)  # (P,)
    for made in everything:
        made.scores.div_(spread)
    solved = _solve(choices, len(parts))
    return [[float(w) for w in np.round(row / spread.double().numpy(), 6)] for row in solved]


def _shuffled(data: Dataset, user: int, domain: int, generator: torch.Generator) -> Tensor:
    """Rows of a user's ratings in the domain, in an order that all support sizes share."""
    rows = torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))
    seen = data.interactions
    rows = rows[(seen.kinds[rows] == 0) & (data.items.domain[seen.items[rows]] == domain)]
    return rows[torch.randperm(len(rows), generator=generator)]


def _choices(
    parts: Sequence[Predictor], data: Dataset, domain: int, users: Tensor, shuffled: Sequence[Tensor], size: int
) -> Choices | None:
    """What the parts score and what was liked, of the users with `size` ratings beside a fifth that is held out."""
    low, high = (float(bound[domain]) for bound in data.schema.scales())
    threshold = low + LIKED_SHARE * (high - low)
    support, likes, kept = [], [], []
    for user, rows in zip(users.tolist(), shuffled, strict=True):
        n_query = max(1, round(QUERY_SHARE * len(rows)))
        query = rows[:n_query]
        query = query[data.interactions.values[query] > threshold]
        if len(query) and len(rows) - n_query >= size:
            support.append(rows[n_query : n_query + size].sort().values)
            likes.append(query)
            kept.append(user)
    if not kept:
        return None
    positions = (data.items.domain == domain).nonzero().flatten()
    place = torch.full((data.n_items,), -1)
    place[positions] = torch.arange(len(positions))
    known = data.evidence_of(support, data.user_attributes[torch.tensor(kept)])
    scores = torch.stack([_scores(part, known, domain, positions) for part in parts], dim=-1)  # (B, N, P)
    liked = torch.zeros(scores.shape[:2])
    for b, (met, rows) in enumerate(zip(support, likes, strict=True)):
        scores[b, place[data.interactions.items[met]]] = -torch.inf
        liked[b, place[data.interactions.items[rows]]] = 1 / len(rows)
    return Choices(scores, liked)


def _scores(part: Predictor, known: Evidence, domain: int, positions: Tensor) -> Tensor:
    blocks = torch.split(torch.arange(known.batch_size), BATCH)
    return torch.cat([part.scores(known.rows(block), domain, positions).mean.cpu() for block in blocks])


def _solve(choices: Sequence[Sequence[Choices]], n_parts: int) -> Floats:
    """(buckets, P) weights of the standardised scores."""

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = torch.tensor(flat.reshape(len(choices), n_parts), dtype=torch.float32, requires_grad=True)
        total = SMOOTHNESS * (weights[1:] - weights[:-1]).square().sum()
        for bucket, own in zip(choices, weights, strict=True):
            for made in bucket:
                logits = made.scores.nan_to_num(neginf=0.0) @ own
                logits = logits.masked_fill(made.scores[..., 0].isinf(), -torch.inf)
                log_p = logits.log_softmax(dim=1).masked_fill(made.liked == 0, 0.0)
                total = total - (made.liked * log_p).sum(1).mean() / len(bucket)
        (gradient,) = torch.autograd.grad(total, weights)
        return float(total.detach()), gradient.double().numpy().reshape(-1)

    start = np.full(len(choices) * n_parts, 0.5)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start))
    return np.asarray(found.x).reshape(len(choices), n_parts)

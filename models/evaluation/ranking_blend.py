"""Learn in what order to put a catalogue: a conditional logit over the parts' scores.

Which of all items somebody will like next is a choice among them (McFadden, "Conditional logit analysis of qualitative
choice behavior", 1974), and in each evidence bucket b non-negative weights c_b maximise the mean over users of

    log p(i | c_b),    p(i | c_b) = exp(c_b . s_ui) / sum_j exp(c_b . s_uj)

for the liked items i that were held out, among the items j that the user has not met; s_ui are the parts' scores of
an item, ratings to expect and preferences alike, in standard deviations over the user's catalogue. Weights of
neighbouring buckets are drawn together.

Likelihood counts every item and a list only its beginning, so each part's weights are at last multiplied by what makes
the lists of the same users best, one factor for all buckets; or set to a share of the others', for what tells of the
many items that nobody will like need not be what tells of the few at the top.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from models.blend import per_score
from models.datasets.dataset import Dataset
from models.evaluation.metrics import Floats, ndcg_at
from models.evaluation.predictors import BATCH, Predictor
from models.recommender import Evidence

LIKED_SHARE = 0.625
"""A rating beyond this share of its domain's scale is a like: above 3.5 of 1 to 5."""
QUERY_SHARE = 0.2
MAX_USERS = 300
FACTORS = (1.0, 0.5, 2.0, 0.25, 4.0, 0.0)
"""What weights may be multiplied by for the sake of lists; of those that are as good the first is taken."""
SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""What a part's weights may be set to, in sums of the others'."""
LENGTH = 100
"""Of the lists that are judged."""
SMOOTHNESS = 0.01
"""Pull between the weights of neighbouring buckets, in squared standard deviations of the scores."""


@dataclass(frozen=True)
class Choices:
    """Choices of B users at one support size."""

    users: Tensor
    """(B,)."""
    scores: Tensor
    """(B, N, P) of all items of the domain, in each user's standard deviations; -inf where the user has met it."""
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
    shuffled = [shuffled_ratings(data, int(user), domain, generator) for user in drawn]
    choices = [
        [made for size in bucket if (made := choices_of(parts, data, domain, drawn, shuffled, size)) is not None]
        for bucket in sizes
    ]
    if not any(choices):
        return [None] * len(sizes)
    weights = fitted_to_lists(_solve(choices, len(parts)), choices)
    return [[float(w) for w in np.round(row, 6)] for row in weights]


def shuffled_ratings(data: Dataset, user: int, domain: int, generator: torch.Generator) -> Tensor:
    """Rows of a user's ratings in the domain, in an order that all support sizes share."""
    rows = torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))
    seen = data.interactions
    rows = rows[(seen.kinds[rows] == 0) & (data.items.domain[seen.items[rows]] == domain)]
    return rows[torch.randperm(len(rows), generator=generator)]


def choices_of(
    parts: Sequence[Predictor],
    data: Dataset,
    domain: int,
    users: Tensor,
    shuffled: Sequence[Tensor],
    size: int,
    histories: Mapping[int, Tensor] | None = None,
) -> Choices | None:
    """What the parts score and what was liked, of the users with `size` ratings beside a fifth that is held out.

    `shuffled` has each user's ratings in the domain; `histories` are rows in other domains that are known besides.
    """
    low, high = (float(bound[domain]) for bound in data.schema.scales())
    threshold = low + LIKED_SHARE * (high - low)
    support, known, likes, kept = [], [], [], []
    for user, rows in zip(users.tolist(), shuffled, strict=True):
        n_query = max(1, round(QUERY_SHARE * len(rows)))
        query = rows[:n_query]
        query = query[data.interactions.values[query] > threshold]
        if len(query) and len(rows) - n_query >= size:
            support.append(rows[n_query : n_query + size])
            known.append(support[-1] if histories is None else torch.cat([histories[user], support[-1]]))
            likes.append(query)
            kept.append(user)
    if not kept:
        return None
    positions = (data.items.domain == domain).nonzero().flatten()
    place = torch.full((data.n_items,), -1)
    place[positions] = torch.arange(len(positions))
    who = torch.tensor(kept)
    evidence = data.evidence_of([rows.sort().values for rows in known], data.user_attributes[who])
    scores = torch.stack([_scores(part, evidence, domain, positions) for part in parts], dim=-1)  # (B, N, P)
    scores = scores * per_score(torch.ones(len(scores), len(parts)), scores.unbind(-1))[:, None]
    liked = torch.zeros(scores.shape[:2])
    for b, (met, rows) in enumerate(zip(support, likes, strict=True)):
        scores[b, place[data.interactions.items[met]]] = -torch.inf
        liked[b, place[data.interactions.items[rows]]] = 1 / len(rows)
    return Choices(who, scores, liked)


def _scores(part: Predictor, known: Evidence, domain: int, positions: Tensor) -> Tensor:
    blocks = torch.split(torch.arange(known.batch_size), BATCH)
    return torch.cat([part.scores(known.rows(block), domain, positions).mean.cpu() for block in blocks])


def log_likelihood(made: Choices, weights: Tensor) -> Tensor:
    """(B,) mean over what each user liked of log p(i | weights); `weights` is (P,)."""
    logits = made.scores.nan_to_num(neginf=0.0) @ weights
    logits = logits.masked_fill(made.scores[..., 0].isinf(), -torch.inf)
    log_p = logits.log_softmax(dim=1).masked_fill(made.liked == 0, 0.0)
    return (made.liked * log_p).sum(1)


def _solve(choices: Sequence[Sequence[Choices]], n_parts: int) -> Floats:
    """(buckets, P) weights of the standardised scores."""

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = torch.tensor(flat.reshape(len(choices), n_parts), dtype=torch.float32, requires_grad=True)
        total = SMOOTHNESS * (weights[1:] - weights[:-1]).square().sum()
        for bucket, own in zip(choices, weights, strict=True):
            for made in bucket:
                total = total - log_likelihood(made, own).mean() / len(bucket)
        (gradient,) = torch.autograd.grad(total, weights)
        return float(total.detach()), gradient.double().numpy().reshape(-1)

    start = np.full(len(choices) * n_parts, 0.5)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start))
    return np.asarray(found.x).reshape(len(choices), n_parts)


def fitted_to_lists(weights: Floats, choices: Sequence[Sequence[Choices]]) -> Floats:
    """The weights with each part's column multiplied by, or set to, what gives the best lists (`FACTORS`, `SHARES`)."""
    for part in range(weights.shape[1]):
        own = np.arange(weights.shape[1]) == part
        others = weights[:, ~own].sum(axis=1, keepdims=True)
        tried = [weights * np.where(own, factor, 1.0) for factor in FACTORS]
        tried += [np.where(own, share * others, weights) for share in SHARES]
        weights = max(tried, key=lambda candidate: _ndcg(candidate, choices))
    return weights


def _ndcg(weights: Floats, choices: Sequence[Sequence[Choices]]) -> float:
    """Mean over users and support sizes."""
    rows = zip(choices, weights.tolist(), strict=True)
    return float(np.concatenate([_list_ndcg(made, own) for bucket, own in rows for made in bucket]).mean())


def _list_ndcg(made: Choices, weights: Sequence[float]) -> Floats:
    """(B,) NDCG@100 of the held-out likes in each user's list; one weight per part."""
    met = made.scores[..., 0].isinf()
    ranking = (made.scores.nan_to_num(neginf=0.0) @ torch.tensor(weights)).masked_fill(met, -torch.inf)
    first = ranking.topk(min(LENGTH, ranking.shape[1]), dim=1).indices
    liked = made.liked > 0
    ideal = np.arange(first.shape[1]) < liked.sum(1, keepdim=True).numpy()
    return ndcg_at(liked.gather(1, first).double().numpy(), ideal.astype(np.float64), LENGTH)

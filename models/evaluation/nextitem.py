"""What comes next, for people and for items that are almost unknown: the `nextitem` protocol.

After Zheng et al., "Cold-start Sequential Recommendation via Meta Learner" (AAAI 2021), K = 1, 3 or 5 *support
sequences* are all that is known of whoever is cold:

    users, K    a person whom training has not met; the support is their first K runs of five interactions, and their
                next one is to be found among all items that training has seen
    items, K    an item of which training has seen K histories that lead to it and nothing else; people whom training
                has not met went on to it, and from what they did before it is to be found among the items that are as
                cold (among all items nobody would find it, and popularity would be all that is measured)

All candidates are ranked, none are sampled: figures on sampled candidates order methods differently (Krichene and
Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020).
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.datasets.dataset import Dataset
from models.evaluation.draws import DrawsError
from models.evaluation.exam import Exam, Group
from models.evaluation.predictors import Predictor
from models.recommender import Evidence, Scores
from models.training.co_rating import co_rating_vectors

SEQUENCES = (1, 3, 5)
RUN = 5
"""Interactions of a support sequence of a user."""
HISTORY = RUN * max(SEQUENCES)
"""Interactions shown of a person who is asked about a cold item."""
COLD_ITEM_SHARE = 0.1
"""Of the items that are known well enough to be asked about."""
KNOWN = 10
"""Interactions that make an item known well enough."""
ASKED = 5
"""People asked about a cold item, at most."""
HELD_SHARE = 0.2
VECTOR_SIZE = 64
NEAREST = "nearest to the support"
BASELINES = ("popularity", NEAREST)


def next_item_exam(data: Dataset, seed: int) -> Exam:
    """The questions of one seed. Raises DrawsError where nobody has a history that is long enough."""
    generator = torch.Generator().manual_seed(seed)
    _, held = data.split_users(HELD_SHARE, seed)
    seen = data.interactions
    is_held = torch.isin(seen.users, held)  # (M,)
    shots = _cold_items(data, is_held, generator)  # (N,)
    place = torch.rand(len(seen), generator=generator).masked_fill(is_held, 2.0)
    kept = ~is_held & (_ranks(seen.items, place) < shots[seen.items])
    training = data.where(kept)
    groups = [_of_users(data, held, shots, k) for k in SEQUENCES]
    groups += [_of_items(data, is_held, shots, k, generator) for k in SEQUENCES]
    groups = [group for group in groups if len(group)]
    if not groups:
        raise DrawsError(f"nobody held out has {HISTORY + 1} interactions")
    exam = Exam("nextitem", "", data, training, groups, measure="next_item", baselines=BASELINES)
    lengths = {g.label: len(exam.catalogue.nonzero() if g.candidates is None else g.candidates) for g in groups}
    by_chance = "; ".join(f"{label}: {_chance(n)}" for label, n in lengths.items())
    description = (
        f"The true next item among all candidates, for cold users and items with K = 1, 3, 5 support sequences. Of a "
        f"user: the first K runs of {RUN} interactions. Of an item: K histories that lead to it; candidates are the "
        f"items as cold. Seed {seed}. By chance: {by_chance}."
    )
    return replace(exam, description=description)


class NearestToSupport(Predictor):
    """Items by the cosine of their vector with the mean vector of the support: nearest neighbours without learning.

    Vectors are those of who touches items together, from the training data.
    """

    rates = False

    def __init__(self, training: Dataset) -> None:
        self.vectors = normalize(co_rating_vectors(training, VECTOR_SIZE), dim=1)  # (N, E)

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        share = support.weights / support.weights.sum(dim=1, keepdim=True).clamp(min=1e-9)
        mean = (share.unsqueeze(1) @ self.vectors[support.items * support.mask]).squeeze(1)
        return Scores(normalize(mean, dim=1) @ self.vectors[positions].T, kind="preference")


def _cold_items(data: Dataset, is_held: Tensor, generator: torch.Generator) -> Tensor:
    """(N,) interactions that training may see of each item: K of the cold ones, no limit for the others."""
    seen = data.interactions
    counts = torch.bincount(seen.items[~is_held], minlength=data.n_items)
    known = torch.nonzero((counts >= KNOWN) & (torch.bincount(seen.items[is_held], minlength=data.n_items) > 0))[:, 0]
    drawn = known[torch.randperm(len(known), generator=generator)[: round(COLD_ITEM_SHARE * len(known))]]
    shots = torch.full((data.n_items,), len(seen))
    for n, k in enumerate(SEQUENCES):
        shots[drawn[n :: len(SEQUENCES)]] = k
    return shots


def _ranks(groups: Tensor, keys: Tensor) -> Tensor:
    """(M,) how many entries of the same group have a lower key."""
    order = torch.from_numpy(np.lexsort((keys.numpy(), groups.numpy())))
    counts = torch.bincount(groups)
    starts = (counts.cumsum(0) - counts)[groups[order]]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)) - starts)


def _of_users(data: Dataset, held: Tensor, shots: Tensor, k: int) -> Group:
    """Cold users and their next interaction with an item that is not cold; the same users for every k."""
    users, supports, queries = [], [], []
    warm = shots[data.interactions.items] == len(data.interactions)
    for user in held.tolist():
        rows = torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))
        rows = rows[warm[rows]]
        if len(rows) > HISTORY:
            users.append(user)
            supports.append(rows[: k * RUN])
            queries.append(rows[k * RUN : k * RUN + 1])
    return _group(f"users, K={k}", data, users, supports, queries)


def _of_items(data: Dataset, is_held: Tensor, shots: Tensor, k: int, generator: torch.Generator) -> Group:
    """Cold items, and held-out people who went on to them after a run of interactions or more."""
    seen = data.interactions
    place = torch.arange(len(seen)) - data.offsets[seen.users]
    asked = is_held & (shots[seen.items] == k) & (place >= RUN)
    keys = torch.rand(len(seen), generator=generator).masked_fill(~asked, 2.0)
    rows = torch.nonzero(asked & (_ranks(seen.items, keys) < ASKED)).flatten().tolist()
    users = [int(seen.users[row]) for row in rows]
    supports = [torch.arange(max(row - HISTORY, int(data.offsets[u])), row) for row, u in zip(rows, users, strict=True)]
    group = _group(f"items, K={k}", data, users, supports, [torch.tensor([row]) for row in rows])
    return replace(group, candidates=torch.nonzero(shots == k).flatten())


def _group(label: str, data: Dataset, users: list[int], supports: list[Tensor], queries: list[Tensor]) -> Group:
    domain = int(data.items.domain[data.interactions.items[queries[0][0]]]) if queries else 0
    return Group.of_rows(label, data, domain, torch.tensor(users, dtype=torch.long), supports, queries)


def _chance(n: int) -> str:
    """What a random order of n candidates gives."""
    places = np.arange(1, n + 1)
    ndcg = (1 / np.log2(places[:10] + 1)).sum() / n
    return f"HR@10 {min(10, n) / n:.4f}, NDCG@10 {ndcg:.4f}, MRR {(1 / places).mean():.4f} ({n} candidates)"

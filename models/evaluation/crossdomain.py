"""Cross-domain protocol: people whose history lies in one domain are answered in another, where they are cold.

Of the users who are in both domains a share beta is cold: they lose what they did in the target, all of it is asked,
and what they did in the source stays, in training and as evidence (Man et al., "Cross-Domain Recommendation: An
Embedding and Mapping Approach", IJCAI 2017). Beside that they are asked with 1, 3 and 5 of their target ratings known.

Where identities are hidden, a share of the warm users of both domains are two people for whoever learns; and the cold
ones are asked once more with their target ratings alone, as people whose other identity nobody knows.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.evaluation.draws import DrawsError
from models.evaluation.exam import Exam, Group
from models.evaluation.predictors import Predictor
from models.recommender import Evidence, Scores
from models.training.domains import Direction, domain_of, hide_identities, overlapping_users, without

BETAS = (0.2, 0.5, 0.8)
SHOTS = (1, 3, 5)
MIN_QUERY = 5
"""Target ratings that must be left to ask about after the longest support."""
VALIDATION_SHARE = 0.1
"""Share of the warm users of both domains that selection may look at and nobody is asked about."""
MIN_OVERLAP = 20
ITEM_REG, USER_REG = 5.0, 5.0


@dataclass(frozen=True)
class Crossing:
    """One way to put the questions."""

    direction: Direction
    beta: float
    """Share of the users of both domains that are cold in the target."""
    hidden: float = 0.0
    """Share of the warm users of both domains whose identity is hidden."""
    reference_draws: bool = False
    """Whether the cold are those whom the goals on Douban were set on (`_reference_cold`)."""

    @property
    def label(self) -> str:
        """What its groups of questions begin with."""
        return f"{self.beta:.0%}" + (f", {self.hidden:.0%} hidden" if self.hidden else "")


def cross(data: Dataset, crossing: Crossing, seed: int) -> Exam:
    """The exam of one draw of cold users. Raises DrawsError where too few users are in both domains."""
    direction = crossing.direction
    both = overlapping_users(data, direction)
    if len(both) < MIN_OVERLAP:
        raise DrawsError(f"only {len(both)} users are in both domains; {MIN_OVERLAP} are needed to ask about")
    generator = torch.Generator().manual_seed(seed)
    if crossing.reference_draws:
        cold = _reference_cold(data, both, crossing.beta, seed)
        warm = both[~torch.isin(both, cold)]
        warm = warm[torch.randperm(len(warm), generator=generator)]
    else:
        shuffled = both[torch.randperm(len(both), generator=generator)]
        n_cold = round(crossing.beta * len(both))
        cold, warm = shuffled[:n_cold].sort().values, shuffled[n_cold:]
    n_validation = max(1, round(VALIDATION_SHARE * len(warm)))
    validation, paired = warm[:n_validation].sort().values, warm[n_validation:]
    hidden = paired[: round(crossing.hidden * len(paired))].sort().values
    training = hide_identities(without(data, cold, direction.target), hidden, direction.target)
    whole = replace(data, user_ids=training.user_ids, user_attributes=training.user_attributes)
    return Exam(
        "crossdomain",
        _description(data, crossing, len(both), len(cold), n_validation),
        whole,
        training,
        _groups(whole, crossing, cold, generator),
        measure="transfer",
        validation_users=validation,
        direction=direction,
        hides_identities=bool(crossing.hidden),
    )


def _reference_cold(data: Dataset, both: Tensor, beta: float, seed: int) -> Tensor:
    """⌊beta n⌋ of the users of both domains, drawn by NumPy from their ids in the order of text.

    With seeds 0, 1 and 2, and the errors of all three draws pooled, always answering 5 and answering an item's shrunken
    mean come out at the figures that the goals on Douban stand beside, to the last digit, at each of three shares.
    """
    by_id = torch.tensor(sorted(both.tolist(), key=lambda user: data.user_ids[user]))
    drawn = np.random.default_rng(seed).choice(len(by_id), int(beta * len(by_id)), replace=False)
    return by_id[torch.from_numpy(drawn)].sort().values


def _groups(data: Dataset, crossing: Crossing, cold: Tensor, generator: torch.Generator) -> list[Group]:
    source, target = crossing.direction.source, crossing.direction.target
    seen, where = data.interactions, domain_of(data)
    asked = (where == target) & (seen.kinds == 0)
    users: dict[str, list[int]] = {"all": [], "few": []}
    histories: list[Tensor] = []
    everything: list[Tensor] = []
    few_histories: list[Tensor] = []
    supports: list[Tensor] = []
    queries: list[Tensor] = []
    for user in cold.tolist():
        rows = torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))
        history, ratings = rows[where[rows] == source], rows[asked[rows]]
        if not len(ratings):
            continue
        users["all"].append(user)
        histories.append(history)
        everything.append(ratings)
        if len(ratings) >= max(SHOTS) + MIN_QUERY:
            shuffled = ratings[torch.randperm(len(ratings), generator=generator)]
            users["few"].append(user)
            few_histories.append(history)
            supports.append(shuffled[: max(SHOTS)])
            queries.append(shuffled[max(SHOTS) :])
    all_users, few = (torch.tensor(users[name], dtype=torch.long) for name in ("all", "few"))
    groups = [Group.of_rows(crossing.label, data, target, all_users, histories, everything)]
    if not len(few):
        return groups
    nothing = [rows[:0] for rows in supports]
    ways = [("", few_histories)] + ([("alone, ", nothing)] if crossing.hidden else [])
    for way, pasts in ways:
        for k in SHOTS:
            known = [torch.cat([past, rows[:k]]) for past, rows in zip(pasts, supports, strict=True)]
            groups.append(Group.of_rows(f"{crossing.label}, {way}k={k}", data, target, few, known, queries))
    return groups


def _description(data: Dataset, crossing: Crossing, n_both: int, n_cold: int, n_validation: int) -> str:
    source, target = (data.schema.domains[d].name for d in (crossing.direction.source, crossing.direction.target))
    return (
        f"From {source} to {target}: of {n_both} users in both, {n_cold} are cold in {target} ({crossing.label}) and "
        f"{n_validation} others are for selection. All ratings of the cold are asked, from their history in {source}; "
        f"k of them are known besides in the groups k, where those with {max(SHOTS) + MIN_QUERY} or more are asked "
        f"about the rest. NDCG@10 is over the asked items, gain 2^r - 1; list NDCG@10 and list Recall@10 are over all "
        f"of {target} that was learnt from but the support, where the asked items rated in the upper quarter of the "
        "scale are to be found."
        + (" 'alone' shows nothing of the source: the other identity is not known." if crossing.hidden else "")
    )


class SourceBias(Predictor):
    """Item mean of the target plus what the user's source ratings lie above their items': the plainest transfer.

        r_ui = mean_t + b_i + unit_t / unit_s * sum_j (r_uj - mean_s - b_j) / (n_u + reg),    j in the source

    Computed apart from every recommender of this project; with `with_user` False it is the item mean.
    """

    def __init__(self, training: Dataset, direction: Direction, *, with_user: bool = True) -> None:
        seen, domain = training.interactions, domain_of(training)
        low, high = training.schema.scales()
        self.direction, self.with_user, self.domain = direction, with_user, training.items.domain
        self.unit = (high - low).double()
        n_domains = len(training.schema.domains)
        total = torch.zeros(n_domains).double().index_add_(0, domain, seen.values.double())
        self.mean = total / torch.bincount(domain, minlength=n_domains).clamp(min=1)
        deviation = seen.values.double() - self.mean[domain]
        counts = torch.bincount(seen.items, minlength=training.n_items)
        self.bias = torch.zeros(training.n_items).double().index_add_(0, seen.items, deviation) / (counts + ITEM_REG)

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        of = self.domain[support.items]  # (b, L)
        known = support.mask & (of == self.direction.source)
        deviation = (support.values.double() - self.mean[of] - self.bias[support.items]) / self.unit[of] * known
        user = deviation.sum(1) / (known.sum(1) + USER_REG) * self.unit[domain] * self.with_user  # (b,)
        return Scores((self.mean[domain] + self.bias[positions])[None, :] + user[:, None])


class TargetOnly(Predictor):
    """A predictor that is shown nothing but what happened in the target."""

    def __init__(self, predictor: Predictor, items_domain: Tensor, target: int) -> None:
        self.predictor, self.items_domain, self.target = predictor, items_domain, target
        self.rates = predictor.rates

    def scores(self, support: Evidence, domain: int, positions: Tensor) -> Scores:
        known = support.mask & (self.items_domain[support.items] == self.target)
        shown = replace(support, items=torch.where(known, support.items, 0), weights=support.weights.where(known, 0))
        return self.predictor.scores(shown, domain, positions)

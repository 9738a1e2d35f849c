"""Protocols: how a data set becomes training data and questions.

    kshot        cold users, k = 0, 1, 3, 5, 10, 20, 50 of their ratings, ten others to predict
    melu         cold users, cold items, both (Lee et al., KDD 2019)
    zeroshot     the same quarters without a single interaction: attributes and content alone
    itemcold     items that training has not seen, for known and for new users
    time         the past predicts the future
    loo          each user's last interaction, ranked among everything they have not met
    foldin       top-N for unseen users (strong generalisation, Liang et al., WWW 2018)
    nextitem     what comes next, for users and items with one, three or five support sequences
    crossdomain  users who are cold in one domain and have a history in another

`kshot`, `melu` and `zeroshot` use published draws where there are any for the data; `supportsize` and `served` put the
questions of `kshot` to recommenders trained for one support size, and to a running service.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.evaluation.crossdomain import BETAS, Crossing, cross
from models.evaluation.draws import Draw, DrawsError, FixedDraws, draw_by_seed, draws_file, read_fixed
from models.evaluation.exam import Exam, Group
from models.evaluation.nextitem import next_item_exam
from models.evaluation.results import BASELINES
from models.training.domains import Direction

SHOTS = (0, 1, 3, 5, 10, 20, 50)
QUERY_SIZE = 10
TEST_SHARE = 0.2
LIKED = 3.5
"""Top-N protocols: a rating above it counts as a like."""
FOLD_IN_SHARE = 0.8
QUARTERS = ("user_cold", "item_cold", "both_cold")
"""Which side of a question training has not met."""
MOVIELENS_1M_USERS = 6040


@dataclass(frozen=True)
class ProtocolOptions:
    """What a protocol may need besides the data."""

    seed: int = 0
    """Of the draws. Training has its own."""
    draws: Path | None = None
    """File of published draws; None looks where WARMSTART_RESEARCH_DATA points."""
    source: str | None = None
    """Cross-domain: where histories come from; None: the first domain that is not the target."""
    target: str | None = None
    """Cross-domain: what is asked about; None: the last domain that is not the source."""
    beta: float = BETAS[0]
    """Cross-domain: share of the users of both domains that are cold in the target."""
    hidden: float = 0.0
    """Cross-domain: share of the others whose identity is hidden between the domains."""
    reference_draws: bool = False
    """Cross-domain: whether the cold are those whom the goals on Douban were set on."""


def kshot(data: Dataset, options: ProtocolOptions) -> Exam:
    """The k-shot curve of users that training has not met."""
    fixed = _fixed(data, options)
    if fixed:
        draws, training = fixed.kshot, _without(data, fixed)
        whose = "Published draws: 679 cold users of MovieLens-1M, two draws, warm items only."
    else:
        _, held = data.split_users(TEST_SHARE, options.seed)
        draws = draw_by_seed(data, held, 0, QUERY_SIZE, max(SHOTS), options.seed)
        training = data.where(~torch.isin(data.interactions.users, held))
        whose = f"{len(draws)} of {len(held)} held-out users have the ratings for it; drawn with seed {options.seed}."
    if not draws:
        raise DrawsError(f"no held-out user has {QUERY_SIZE + max(SHOTS)} ratings")
    groups = [_group(f"k={k}", data, draws, [draw.support[:k] for draw in draws]) for k in SHOTS]
    description = f"Ten ratings of each user, predicted from k others. {whose}"
    return Exam("kshot", description, data, training, groups)


def melu(data: Dataset, options: ProtocolOptions) -> Exam:
    """The three cold quarters of MeLU's split."""
    fixed = _fixed(data, options)
    if fixed is None:
        raise DrawsError("melu needs the published draws: name their file or set WARMSTART_RESEARCH_DATA")
    groups = []
    for quarter in QUARTERS:
        draws = [draw for draw in fixed.melu if draw.quarter == quarter]
        groups.append(_group(quarter, data, draws, [draw.support for draw in draws]))
    description = "Ten ratings of each user of a quarter, predicted from their others there; three published draws."
    return Exam("melu", description, data, _without(data, fixed), groups)


def zeroshot(data: Dataset, options: ProtocolOptions) -> Exam:
    """The cold quarters with nothing to go by but attributes of the user and content of the item."""
    fixed = _fixed(data, options)
    if fixed:
        asked = {quarter: [draw for draw in fixed.melu if draw.quarter == quarter] for quarter in QUARTERS}
        training, whose = _without(data, fixed), "The queries of `melu`: three published draws."
    else:
        generator = torch.Generator().manual_seed(options.seed)
        seen, cold = data.interactions, _cold_items(data, generator)
        _, held = data.split_users(TEST_SHARE, options.seed)
        cold_item, new_user = cold[seen.items], torch.isin(seen.users, held)
        sides = (new_user & ~cold_item, ~new_user & cold_item, new_user & cold_item)
        asked = {}
        for quarter, side in zip(QUARTERS, sides, strict=True):
            asked[quarter], among = [], side & (seen.kinds == 0)
            for user in torch.unique(seen.users[among]).tolist():
                rows = _history(data, user)
                rows = rows[among[rows]]
                rows = rows[torch.randperm(len(rows), generator=generator)[:QUERY_SIZE]]
                asked[quarter].append(Draw(user, rows, rows[:0]))
        training = data.where(~cold_item & ~new_user)
        whose = f"A random fifth of the users and a random fifth of the items are cold; seed {options.seed}."
    groups = [_group(q, data, draws, [draw.query[:0] for draw in draws]) for q, draws in asked.items()]
    description = f"Up to ten ratings of each user of a quarter, predicted from no interaction at all. {whose}"
    return Exam("zeroshot", description, data, training, groups, baselines=("popularity", *BASELINES))


def itemcold(data: Dataset, options: ProtocolOptions) -> Exam:
    """Items without a single rating in training, known by their content alone."""
    generator = torch.Generator().manual_seed(options.seed)
    seen, cold = data.interactions, _cold_items(data, generator)
    _, held = data.split_users(TEST_SHARE, options.seed)
    cold_item, new_user = cold[seen.items], torch.isin(seen.users, held)
    groups = []
    for label, among in (("known users", ~new_user), ("new users", new_user)):
        draws = []
        for user in torch.unique(seen.users[among & cold_item & (seen.kinds == 0)]).tolist():
            rows = _history(data, user)
            asked = rows[cold_item[rows] & (seen.kinds[rows] == 0)]
            asked = asked[torch.randperm(len(asked), generator=generator)[:QUERY_SIZE]]
            known = rows[~cold_item[rows]]
            draws.append(Draw(user, asked, known[-max(SHOTS) :]))
        groups.append(_group(label, data, draws, [draw.support for draw in draws]))
    description = (
        f"A random fifth of the items is unseen in training; up to ten ratings of them are predicted from the user's "
        f"last {max(SHOTS)} on other items. `known users` were in training, `new users` were not."
    )
    return Exam("itemcold", description, data, data.where(~cold_item & ~new_user), groups)


def temporal(data: Dataset, options: ProtocolOptions) -> Exam:
    """Training sees what was before a moment; questions are about what came after."""
    seen = data.interactions
    known_time = ~seen.times.isnan()
    if not bool(known_time.any()):
        raise DrawsError("the time protocol needs interactions with times")
    cut = seen.times[known_time].sort().values[int((1 - TEST_SHARE) * int(known_time.sum()))]
    before = seen.times < cut
    after = known_time & ~before & (seen.kinds == 0)
    returning: list[Draw] = []
    arriving: dict[int, list[Draw]] = {0: [], 5: []}
    for user in torch.unique(seen.users[after]).tolist():
        rows = _history(data, user)
        past, future = rows[before[rows]], rows[after[rows]]
        if len(past):
            returning.append(Draw(user, future[:QUERY_SIZE], past[-max(SHOTS) :]))
        else:
            for k, draws in arriving.items():
                if len(future) > k:
                    draws.append(Draw(user, future[k : k + QUERY_SIZE], future[:k]))
    named = [("returning users", returning), *((f"new users, k={k}", draws) for k, draws in arriving.items())]
    groups = [_group(label, data, draws, [d.support for d in draws]) for label, draws in named if draws]
    description = "Training ends where 80 % of the interactions have happened; each user's next ten ratings are asked."
    return Exam("time", description, data, data.where(before), groups)


def loo(data: Dataset, options: ProtocolOptions) -> Exam:
    """Leave one out: the last interaction of each user, ranked against the whole catalogue."""
    draws = []
    last = torch.zeros(len(data.interactions), dtype=torch.bool)
    for user in torch.unique(data.interactions.users).tolist():
        rows = _history(data, user)
        if len(rows) >= 5:
            last[rows[-1]] = True
            draws.append(Draw(user, rows[-1:], rows[:-1]))
    group = _group("last interaction", data, draws, [draw.support for draw in draws])
    description = "The last interaction of each user with five or more, among all items they have not met."
    return Exam("loo", description, data, data.where(~last), [group], measure="ranking")


def foldin(data: Dataset, options: ProtocolOptions) -> Exam:
    """Top-N for users that training has not seen: 80 % of their likes are shown, the rest is to be found."""
    liked = data.where((data.interactions.values > LIKED) & (data.interactions.kinds == 0))
    counts = torch.bincount(liked.interactions.users, minlength=data.n_users)
    liked = liked.where(counts[liked.interactions.users] >= 5)
    generator = torch.Generator().manual_seed(options.seed)
    users = torch.unique(liked.interactions.users)
    users = users[torch.randperm(len(users), generator=generator)]
    n = min(600, len(users) // 10)
    validation, test = users[:n].sort().values, users[n : 2 * n].sort().values
    training = liked.where(~torch.isin(liked.interactions.users, test))
    learnt = ~torch.isin(liked.interactions.users, torch.cat([validation, test]))
    catalogue = torch.zeros(data.n_items, dtype=torch.bool)
    catalogue[liked.interactions.items[learnt]] = True
    draws = []
    for user in test.tolist():
        rows = _history(liked, user)
        rows = rows[catalogue[liked.interactions.items[rows]]]
        rows = rows[torch.randperm(len(rows), generator=generator)]
        shown = int(FOLD_IN_SHARE * len(rows))
        if 0 < shown < len(rows):
            draws.append(Draw(user, rows[shown:], rows[:shown]))
    group = _group("unseen users", liked, draws, [draw.support for draw in draws])
    description = (
        f"Ratings above {LIKED} of users with five or more; {n} validation and {n} test users, seed {options.seed}; "
        "80 % of a test user's likes are shown. Everybody learns from likes alone."
    )
    return Exam("foldin", description, liked, training, [group], "ranking", validation)


def nextitem(data: Dataset, options: ProtocolOptions) -> Exam:
    """What cold users do next, and which cold item it was that people went on to."""
    return next_item_exam(data, options.seed)


def crossdomain(data: Dataset, options: ProtocolOptions) -> Exam:
    """One draw of users who are cold in the target, at one beta."""
    try:
        direction = Direction.named(data.schema, options.source, options.target)
    except ValueError as error:
        raise DrawsError(str(error)) from error
    return cross(data, Crossing(direction, options.beta, options.hidden, options.reference_draws), options.seed)


PROTOCOLS: dict[str, Callable[[Dataset, ProtocolOptions], Exam]] = {
    "kshot": kshot,
    "melu": melu,
    "zeroshot": zeroshot,
    "itemcold": itemcold,
    "time": temporal,
    "loo": loo,
    "foldin": foldin,
    "nextitem": nextitem,
    "crossdomain": crossdomain,
}
"""Protocols that make an exam of a data set. `supportsize` and `served` are ways to sit the exam of `kshot`."""


def _fixed(data: Dataset, options: ProtocolOptions) -> FixedDraws | None:
    """The published draws, where they are of this data set."""
    path = draws_file(options.draws)
    if path is None or (options.draws is None and data.n_users != MOVIELENS_1M_USERS):
        return None
    return read_fixed(path, data)


def _without(data: Dataset, fixed: FixedDraws) -> Dataset:
    """Warm users × warm items."""
    seen = data.interactions
    return data.where(~torch.isin(seen.users, fixed.cold_users) & ~fixed.cold_items[seen.items])


def _cold_items(data: Dataset, generator: torch.Generator) -> Tensor:
    """(N,) bool, a random fifth of the items that anybody has touched."""
    rated = torch.unique(data.interactions.items)
    cold = torch.zeros(data.n_items, dtype=torch.bool)
    cold[rated[torch.randperm(len(rated), generator=generator)[: round(TEST_SHARE * len(rated))]]] = True
    return cold


def _group(label: str, data: Dataset, draws: list[Draw], support: list[Tensor]) -> Group:
    users = torch.tensor([draw.user for draw in draws], dtype=torch.long)
    domain = int(data.items.domain[data.interactions.items[draws[0].query[0]]]) if draws else 0
    return Group.of_rows(label, data, domain, users, support, [draw.query for draw in draws])


def _history(data: Dataset, user: int) -> Tensor:
    """Rows of a user's interactions, oldest first."""
    return torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))

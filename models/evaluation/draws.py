"""Which questions are asked: fixed draws that published figures share, or draws by seed.

Redrawing query and support moves the figures of a cold-start table by more than methods differ, so where draws have
been published they are read from their file (`movielens_1m_draws.json`, items by title, users by number) together with
the split they belong to (`melu_split.json` beside it).
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.datasets.dataset import Dataset

FOLDER_VARIABLE = "WARMSTART_RESEARCH_DATA"
DRAWS_FILE = "movielens_1m_draws.json"
SPLIT_FILE = "melu_split.json"
FIRST_COLD_YEAR = 1998
"""MeLU: items released from 1998 on are cold."""
YEAR = re.compile(r"\((\d{4})\)\s*$")


class DrawsError(Exception):
    """The draws are not there, or do not fit the data."""


@dataclass(frozen=True)
class Draw:
    """One question, as rows of `data.interactions`."""

    user: int
    query: Tensor
    """(Q,) rows."""
    support: Tensor
    """(L,) rows, in the order in which evidence comes in."""
    quarter: str = ""


@dataclass(frozen=True)
class FixedDraws:
    """The published draws, mapped onto a data set."""

    kshot: list[Draw]
    melu: list[Draw]
    cold_users: Tensor
    """Indices of the users that training must not see."""
    cold_items: Tensor
    """(N,) bool, items that training must not see."""


def draws_file(given: Path | None) -> Path | None:
    """The file named, or the one in the folder that WARMSTART_RESEARCH_DATA names, or None."""
    if given is not None:
        return given
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) / DRAWS_FILE if folder else None


class Lookup:
    """(user, item) → row of `data.interactions`; the latest where an item was rated twice."""

    def __init__(self, data: Dataset) -> None:
        seen = data.interactions
        self.n_items = data.n_items
        keys = seen.users * self.n_items + seen.items
        self.keys, self.order = torch.sort(keys, stable=True)

    def rows(self, user: int, items: Sequence[int]) -> Tensor:
        """Rows of a user's interactions with these items. Raises DrawsError where there is none."""
        wanted = user * self.n_items + torch.tensor(items, dtype=torch.long)
        place = torch.searchsorted(self.keys, wanted, right=True) - 1
        if len(wanted) and not (len(self.keys) and bool((self.keys[place.clamp(min=0)] == wanted).all())):
            raise DrawsError("the draws ask about a rating that the data does not have")
        return self.order[place]


def read_fixed(path: Path, data: Dataset) -> FixedDraws:
    """Read the published draws for `data`. Raises DrawsError where a user, title or rating is missing."""
    try:
        drawn: dict[str, list[Any]] = json.loads(path.read_text())
        cold: list[int] = json.loads((path.parent / SPLIT_FILE).read_text())["cold_users"]
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise DrawsError(f"{path} and {SPLIT_FILE} beside it cannot be read: {error}") from error
    lookup = Lookup(data)
    user_of = {user_id.removeprefix("1m_"): index for index, user_id in enumerate(data.user_ids)}
    item_of = {title: index for index, title in enumerate(data.items.ids)}
    item_of |= {title: index for index, title in enumerate(data.items.titles)}
    cold_items = torch.tensor([_year(title) >= FIRST_COLD_YEAR for title in data.items.titles])
    of_quarter = cold_items[data.interactions.items]
    try:
        kshot = [
            Draw(
                user_of[str(user)],
                lookup.rows(user_of[str(user)], [item_of[title] for title in query]),
                lookup.rows(user_of[str(user)], [item_of[title] for title in support]),
            )
            for user, query, support in drawn["kshot"]
        ]
        melu = []
        for quarter, number, _, query in drawn["melu"]:
            user = user_of[str(number)]
            asked = lookup.rows(user, [item_of[title] for title in query])
            history = torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))
            same = of_quarter[history] == (quarter in {"item_cold", "both_cold"})
            melu.append(Draw(user, asked, history[same & ~torch.isin(history, asked)], quarter))
        cold_users = torch.tensor([user_of[str(user)] for user in cold])
    except KeyError as error:
        raise DrawsError(f"the draws name {error.args[0]!r}, which the data does not have") from error
    return FixedDraws(kshot, melu, cold_users, cold_items)


def draw_by_seed(
    data: Dataset, users: Tensor, domain: int, query_size: int, support_size: int, seed: int
) -> list[Draw]:
    """One draw for each of `users` with enough ratings in the domain: a random query, and a random support of the rest.

    The support is in random order, so that its first k are k random ratings.
    """
    generator = torch.Generator().manual_seed(seed)
    seen = data.interactions
    usable = (seen.kinds == 0) & (data.items.domain[seen.items] == domain)
    draws = []
    for user in users.tolist():
        rows = torch.arange(int(data.offsets[user]), int(data.offsets[user + 1]))
        rows = rows[usable[rows]]
        if len(rows) < query_size + support_size:
            continue
        rows = rows[torch.randperm(len(rows), generator=generator)]
        draws.append(Draw(user, rows[:query_size], rows[query_size : query_size + support_size]))
    return draws


def _year(title: str) -> int:
    found = YEAR.search(title)
    return int(found.group(1)) if found else 0

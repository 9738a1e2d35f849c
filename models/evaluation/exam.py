"""What a protocol gives: what recommenders may learn from, and the questions put to them afterwards.

A question shows a user's support (some interactions, and attributes) and asks for ratings of the query items, or for an
order of the whole catalogue; the answers are held against what the user did, which no recommender has seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from models.datasets.dataset import Dataset
from models.evaluation.results import BASELINES
from models.recommender import Evidence
from models.training.domains import Direction


@dataclass(frozen=True)
class Group:
    """Questions of one kind (`k=3`, `user_cold`), one per row; a user may be asked several times."""

    label: str
    domain: int
    users: Tensor
    """(B,) int64, index of the user in the data; what the bootstrap resamples."""
    support: Evidence
    items: Tensor
    """(B, Q) int64, the query."""
    values: Tensor
    """(B, Q) float32, what the users thought of it."""
    mask: Tensor
    """(B, Q) bool."""
    candidates: Tensor | None = None
    """(C,) int64, the items that rankings are made of; None: those of the exam."""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def support_sizes(self) -> Tensor:
        """(B,) interactions of each support."""
        return self.support.mask.sum(1)

    @classmethod
    def of_rows(
        cls, label: str, data: Dataset, domain: int, users: Tensor, support: Sequence[Tensor], query: Sequence[Tensor]
    ) -> "Group":
        """Questions from rows of `data.interactions`; a support is put in order of time, as evidence always is."""
        attributes = data.user_attributes[users]
        asked = data.evidence_of(query, attributes)
        known = data.evidence_of([rows.sort().values for rows in support], attributes)
        return cls(label, domain, users, known, asked.items, asked.values, asked.mask)

    def rows(self, index: Tensor) -> "Group":
        """Some of the questions."""
        return replace(
            self,
            users=self.users[index],
            support=self.support.rows(index),
            items=self.items[index],
            values=self.values[index],
            mask=self.mask[index],
        )

    def batches(self, size: int) -> Iterator["Group"]:
        """The questions, so many at a time."""
        for index in torch.split(torch.arange(len(self)), size):
            yield self.rows(index)


@dataclass(frozen=True)
class Exam:
    """A protocol applied to a data set."""

    protocol: str
    description: str
    data: Dataset
    """Everything, the answers included. Recommenders never see it."""
    training: Dataset
    """What recommenders learn from: the same users and items, fewer interactions."""
    groups: list[Group]
    measure: Literal["rating", "ranking", "next_item", "transfer"] = "rating"
    """`rating`: the query items are rated and ordered. `ranking`: the whole catalogue but the support is ordered.
    `next_item`: the same, one item being right. `transfer`: both, in one domain."""
    validation_users: Tensor | None = None
    """Users of `training` kept for selection, where the protocol names them; otherwise training draws some."""
    baselines: tuple[str, ...] = BASELINES
    """Whom every row is compared with."""
    direction: Direction | None = None
    """Where the questions are about users who are cold in one domain alone."""
    hides_identities: bool = False
    """Whether nobody but validation users is known in both domains: nobody at all may then be learnt from as both."""

    @property
    def ranks(self) -> bool:
        """Whether all that is asked for is an order."""
        return self.measure in {"ranking", "next_item"}

    @property
    def catalogue(self) -> Tensor:
        """(N,) bool, the items that a ranking is made of: those that recommenders could learn from."""
        seen = self.training.interactions
        learnt = torch.zeros(self.training.n_items, dtype=torch.bool)
        if self.validation_users is not None:
            seen = seen.rows(~torch.isin(seen.users, self.validation_users))
        learnt[seen.items] = True
        if self.direction is not None:
            learnt &= self.training.items.domain == self.direction.target
        return learnt

    @property
    def keeps_validation_apart(self) -> bool:
        """Whether recipes that learn from everyone leave validation users out as well."""
        return self.validation_users is not None and (self.direction is None or self.hides_identities)

    def limited(self, n_users: int, seed: int) -> "Exam":
        """The same exam for `n_users` users of each group, drawn at random, the same ones in groups that have them."""
        lot = torch.rand(self.data.n_users, generator=torch.Generator().manual_seed(seed))
        groups = []
        for group in self.groups:
            unique = torch.unique(group.users)
            drawn = unique[lot[unique].argsort()[:n_users]]
            groups.append(group.rows(torch.isin(group.users, drawn).nonzero().flatten()))
        return replace(self, groups=groups, description=f"{self.description} Limited to {n_users} users a group.")

"""A data set in memory: users, items and interactions as tensors of indices.

Recommenders fit on a `Dataset`; the folder reader, the fetchers and the service's own export make one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from models.datasets.schema import AttributeEncoder, Attributes, Schema
from models.recommender import Evidence, ItemContent


@dataclass(frozen=True)
class Interactions:
    """M interactions, sorted by user, then time (unknown times first), then order of arrival."""

    users: Tensor
    """(M,) int64, index of the user."""
    items: Tensor
    """(M,) int64, index of the item."""
    values: Tensor
    """(M,) float32, the rating given, or the rating that an event of another kind stands for."""
    weights: Tensor
    """(M,) float32, 1 for a rating, the kind's weight otherwise."""
    kinds: Tensor
    """(M,) int64, index into `Schema.kinds`."""
    times: Tensor
    """(M,) float64 Unix seconds, NaN where unknown."""

    def __len__(self) -> int:
        return self.users.shape[0]

    def rows(self, index: Tensor) -> "Interactions":
        """Some of the interactions, by mask or ascending index."""
        return Interactions(**{name: tensor[index] for name, tensor in vars(self).items()})

    @classmethod
    def sorted(
        cls, users: Tensor, items: Tensor, values: Tensor, weights: Tensor, kinds: Tensor, times: Tensor
    ) -> "Interactions":
        """Interactions in any order, put into the canonical one."""
        by_time = torch.argsort(times.nan_to_num(nan=-torch.inf), stable=True)
        order = by_time[torch.argsort(users[by_time], stable=True)]
        made = cls(users.long(), items.long(), values.float(), weights.float(), kinds.long(), times.double())
        return made.rows(order)


def item_content(encoder: AttributeEncoder, titles: Sequence[str], rows: Sequence[Attributes]) -> ItemContent:
    """Content of items from their titles and raw attributes, the same in training and in service."""
    texts = [" ".join(part for part in pair if part) for pair in zip(titles, encoder.texts(rows), strict=True)]
    return ItemContent(encoder.encode(rows), texts, encoder.images(rows))


@dataclass(frozen=True)
class Items:
    """N items of all domains: what a person sees of them and what a recommender reads."""

    ids: list[str]
    titles: list[str]
    domain: Tensor
    """(N,) int64, index into `Schema.domains`."""
    attributes: list[Attributes]
    """Raw attributes, as in items.csv."""
    content: ItemContent
    same_as: dict[int, int] = field(default_factory=dict)
    """Item index → index of the same thing in another domain."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Dataset:
    """Everything a recommender is fitted on."""

    name: str
    schema: Schema
    user_ids: list[str]
    user_attributes: Tensor
    """(U, A) float32, encoded."""
    items: Items
    interactions: Interactions

    @property
    def n_users(self) -> int:
        """U."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """N."""
        return len(self.items)

    @cached_property
    def offsets(self) -> Tensor:
        """(U + 1,) int64: the interactions of user u are rows offsets[u] to offsets[u + 1]."""
        counts = torch.bincount(self.interactions.users, minlength=self.n_users)
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over ids, attributes, content and interactions: equal data, equal fingerprint."""
        digest = hashlib.sha256(self.schema.model_dump_json().encode())
        for ids in (self.user_ids, self.items.ids, self.items.titles, self.items.content.texts):
            digest.update("\x00".join(ids).encode())
        content = self.items.content
        tensors = [self.user_attributes, self.items.domain, content.features]
        pictures = [] if content.images is None else [content.images]
        for tensor in [*tensors, *pictures, *vars(self.interactions).values()]:
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def where(self, keep: Tensor) -> "Dataset":
        """The same users and items with only some interactions; `keep` is an (M,) mask."""
        return replace(self, interactions=self.interactions.rows(keep))

    def evidence(self, users: Tensor, last: int | None = None, attributes: bool = True) -> Evidence:
        """What is known of some users: all their interactions, or the `last` ones, and their attributes."""
        rows = [torch.arange(int(self.offsets[u]), int(self.offsets[u + 1])) for u in users.tolist()]
        if last is not None:
            rows = [r[max(0, len(r) - last) :] for r in rows]
        known = self.user_attributes[users]
        return self.evidence_of(rows, known if attributes else torch.zeros_like(known))

    def evidence_of(self, rows: Sequence[Tensor], attributes: Tensor) -> Evidence:
        """Evidence of one user per entry, from rows of `interactions` in the order given."""
        length = max((len(r) for r in rows), default=0)
        index = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for i, r in enumerate(rows):
            index[i, : len(r)] = r
            mask[i, : len(r)] = True
        if len(self.interactions) == 0:
            index = index[:, :0]
            mask = mask[:, :0]
        seen = self.interactions
        return Evidence(
            items=seen.items[index] * mask,
            values=seen.values[index] * mask,
            weights=seen.weights[index] * mask,
            kinds=seen.kinds[index] * mask,
            times=seen.times[index].where(mask, torch.nan),
            attributes=attributes,
        )

    def split_users(self, share: float, seed: int) -> tuple["Dataset", Tensor]:
        """(the data without the interactions of a random share of users, the indices of those users (V,)).

        Only users with an interaction are drawn; at least one stays on each side.
        """
        active = torch.unique(self.interactions.users)
        generator = torch.Generator().manual_seed(seed)
        shuffled = active[torch.randperm(len(active), generator=generator)]
        n = min(max(1, round(share * len(active))), len(active) - 1)
        held = shuffled[:n].sort().values
        return self.where(~torch.isin(self.interactions.users, held)), held

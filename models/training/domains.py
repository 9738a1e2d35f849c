"""Several domains in one table: which one histories come from, which one is asked about, who and what is in both."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.datasets.dataset import Dataset, Interactions, Items
from models.datasets.schema import Schema
from models.recommender import Evidence, ItemTable, RecommenderConfig


class TransferSettings(RecommenderConfig):
    """Settings that every transfer shares: between which domains it goes."""

    source: str | None = None
    """Domain that histories come from; None: the first that is not the target."""
    target: str | None = None
    """Domain that is asked about; None: the last that is not the source."""


@dataclass(frozen=True)
class Direction:
    """A transfer from one domain to another, by their indices in `Schema.domains`."""

    source: int
    target: int

    @classmethod
    def named(cls, schema: Schema, source: str | None = None, target: str | None = None) -> "Direction":
        """The direction between two domains; one that is not named is the first (source) or last (target) other one.

        Raises ValueError for a domain that the data does not have, or where there are not two.
        """
        names = [domain.name for domain in schema.domains]
        for name in (source, target):
            if name is not None and name not in names:
                raise ValueError(f"there is no domain {name!r}; the data has {', '.join(names)}")
        if len(names) < 2:
            raise ValueError(f"a transfer needs two domains; the data has only {', '.join(names)}")
        if source is not None and source == target:
            raise ValueError(f"a transfer from {source!r} to itself carries nothing")
        to = names.index(target) if target is not None else max(d for d, name in enumerate(names) if name != source)
        start = names.index(source) if source is not None else min(d for d in range(len(names)) if d != to)
        return cls(start, to)

    @classmethod
    def of(cls, settings: TransferSettings, schema: Schema) -> "Direction":
        """The direction that settings ask for. Raises ValueError like `named`."""
        return cls.named(schema, settings.source, settings.target)

    @property
    def reversed(self) -> "Direction":
        """The other way round."""
        return Direction(self.target, self.source)


def domain_of(data: Dataset) -> Tensor:
    """(M,) the domain of each interaction."""
    return data.items.domain[data.interactions.items]


def only(data: Dataset, domain: int) -> Dataset:
    """The same users and items with the interactions of one domain."""
    return data.where(domain_of(data) == domain)


def alone(data: Dataset, domain: int) -> Dataset:
    """The data as if it had no other domain: its items and interactions, and the same users."""
    there = (data.items.domain == domain).nonzero().flatten()
    place = torch.full((data.n_items,), -1)
    place[there] = torch.arange(len(there))
    rows = there.tolist()
    items = Items(
        ids=[data.items.ids[i] for i in rows],
        titles=[data.items.titles[i] for i in rows],
        domain=torch.zeros_like(there),
        attributes=[data.items.attributes[i] for i in rows],
        content=data.items.content.rows(there),
    )
    seen = data.interactions.rows(domain_of(data) == domain)
    return replace(
        data,
        schema=data.schema.model_copy(update={"domains": [data.schema.domains[domain]]}),
        items=items,
        interactions=replace(seen, items=place[seen.items]),
    )


def users_in(data: Dataset, domain: int) -> Tensor:
    """(U,) bool, who has an interaction in a domain."""
    there = torch.zeros(data.n_users, dtype=torch.bool)
    there[data.interactions.users[domain_of(data) == domain]] = True
    return there


def overlapping_users(data: Dataset, direction: Direction) -> Tensor:
    """(V,) int64, ascending: who has interactions in both domains, so that a transfer can be learnt from them."""
    return (users_in(data, direction.source) & users_in(data, direction.target)).nonzero().flatten()


def overlapping_items(data: Dataset, direction: Direction) -> Tensor:
    """(P, 2) int64: pairs of a source item and the target item that is the same thing (`same_as`)."""
    domain = data.items.domain.tolist()
    pairs = [
        (a, b)
        for a, b in sorted(data.items.same_as.items())
        if domain[a] == direction.source and domain[b] == direction.target
    ]
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2)


def without(data: Dataset, users: Tensor, domain: int) -> Dataset:
    """The data without what some users did in one domain; their other interactions stay."""
    return data.where(~(torch.isin(data.interactions.users, users) & (domain_of(data) == domain)))


def hide_identities(data: Dataset, users: Tensor, domain: int) -> Dataset:
    """The data with each of `users` as two people that nothing links: what they did in `domain` is by a new user.

    New users stand behind the others, as `<id>@<domain>` with the attributes of the person, so that indices of users
    and items stay what they were.
    """
    seen, n = data.interactions, data.n_users
    alias = torch.arange(n)
    alias[users] = n + torch.arange(len(users))
    moved = domain_of(data) == domain
    name = data.schema.domains[domain].name
    parts = {**vars(seen), "users": torch.where(moved, alias[seen.users], seen.users)}
    return replace(
        data,
        user_ids=[*data.user_ids, *(f"{data.user_ids[user]}@{name}" for user in users.tolist())],
        user_attributes=torch.cat([data.user_attributes, data.user_attributes[users]]),
        interactions=Interactions.sorted(**parts),
    )


def evidence_in(evidence: Evidence, table: ItemTable, domain: int) -> Evidence:
    """The same evidence as if nothing were known from other domains; as short as the longest that is left."""
    there = evidence.mask & (table.domain[torch.where(evidence.mask, evidence.items, 0)] == domain)  # (B, L)
    order = (~there).long().argsort(dim=1, stable=True)[:, : int(there.sum(1).max()) if len(there) else 0]
    kept = {name: tensor.gather(1, order) for name, tensor in vars(evidence).items() if name != "attributes"}
    weights = kept["weights"].where(there.gather(1, order), 0)
    return Evidence(**{**kept, "weights": weights}, attributes=evidence.attributes)

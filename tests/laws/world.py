"""A small synthetic world whose truth is known: who would rate what how, noise aside.

    x_ui = b_u + b_i + p_u . q_i,    p_u = H a_u + own taste,    q_i = G c_i + own character
    r_ui = clip(round(middle_d + unit_d (x_ui + noise)))

So attributes tell about tastes, content tells about items, and neither tells all. People rate what they like more often
than what they do not. Whatever a recommender may take for granted about its data, this world has the opposite: rows of
the domains are interleaved, scales differ, some times are unknown, some events are clicks, some items are untouched.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from models.datasets.dataset import Dataset, Interactions, Items, item_content
from models.datasets.schema import AttributeEncoder, Attributes, Domain, Kind, Schema
from models.recommender import Evidence, ItemContent

N_USERS, N_HELD = 200, 50
N_ITEMS, N_NEW = 80, 12
N_GENRES, N_GROUPS, N_FACTORS = 6, 4, 3
GENRE_WORDS = (
    "laser orbit robot",
    "kiss wedding letter",
    "clue murder alibi",
    "joke pie clown",
    "saddle dust",
    "ghost",
)
DOMAINS = (
    Domain(name="films", rating_min=1, rating_max=5, kinds={"click": Kind(value=4, weight=0.25, reward=0.5)}),
    Domain(name="books", rating_min=0, rating_max=10, kinds={"click": Kind(value=7.5, weight=0.25, reward=0.5)}),
)
SUPPORT_SIZES = (0, 3, 12)
"""Interactions per domain that the evidence of a held-out user is measured at."""


@dataclass(frozen=True)
class World:
    """The data, with its truth."""

    data: Dataset
    """All users and items, the held-out users' interactions included."""
    held: Tensor
    """(V,) int64, users whose interactions no fit sees."""
    truth: Tensor
    """(U, N) the rating each user would give on average, on the item's scale."""
    newcomers: list[ItemContent]
    """For each domain, items that are not in the data."""

    @cached_property
    def training(self) -> Dataset:
        """What recommenders are fitted on."""
        return self.data.where(~torch.isin(self.data.interactions.users, self.held))

    def evidence(self, users: Tensor, per_domain: int) -> Evidence:
        """The first `per_domain` interactions of each user in each domain, and their attributes."""
        return self.data.evidence_of([self._first(int(u), per_domain) for u in users], self.data.user_attributes[users])

    def mixed_evidence(self) -> Evidence:
        """Evidence of the held-out users, of all lengths from nothing up."""
        rows = [self._first(int(u), i % 9) for i, u in enumerate(self.held)]
        return self.data.evidence_of(rows, self.data.user_attributes[self.held])

    def unseen(self, domain: int) -> Tensor:
        """(V, N) bool: items of a domain that are in no held-out user's evidence at any of `SUPPORT_SIZES`."""
        unseen = (self.data.items.domain == domain).repeat(len(self.held), 1)
        for v, user in enumerate(self.held.tolist()):
            unseen[v, self.data.interactions.items[self._first(user, max(SUPPORT_SIZES))]] = False
        return unseen

    def liked_later(self, domain: int) -> Tensor:
        """(V, N) bool: the unseen items that a held-out user does go on to rate, and above the middle of the scale."""
        seen = self.data.interactions
        low, high = self.data.schema.scales()
        touched = torch.zeros(self.truth.shape, dtype=torch.bool)
        liked = seen.values > (low + high)[self.data.items.domain[seen.items]] / 2
        touched[seen.users[liked], seen.items[liked]] = True
        return touched[self.held] & self.unseen(domain)

    def _first(self, user: int, per_domain: int) -> Tensor:
        rows = torch.arange(int(self.data.offsets[user]), int(self.data.offsets[user + 1]))
        domain = self.data.items.domain[self.data.interactions.items[rows]]
        of_each = [rows[domain == d][:per_domain] for d in range(len(self.data.schema.domains))]
        return torch.cat(of_each).sort().values


def make_world(n_domains: int, seed: int = 0) -> World:
    """A world of one domain (five points) or two (five points and 0 to 10, the same people and tastes)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    n_items = N_ITEMS + N_NEW * n_domains
    domain = integers(n_domains, n_items)
    domain[N_ITEMS:] = torch.arange(n_domains).repeat_interleave(N_NEW)
    genres = torch.zeros(n_items, N_GENRES).scatter_(1, integers(N_GENRES, n_items, 2), 1.0)
    year = 1990 + integers(30, n_items)
    group, age = integers(N_GROUPS, N_USERS), 18 + integers(50, N_USERS)

    character = (genres @ normal(N_GENRES, N_FACTORS)) / genres.sum(1, keepdim=True) + 0.3 * normal(n_items, N_FACTORS)
    taste = normal(N_GROUPS, N_FACTORS)[group] + 0.5 * normal(N_USERS, N_FACTORS)
    quality = 0.4 * genres @ normal(N_GENRES) / genres.sum(1) + 0.02 * (year - 2005) + 0.3 * normal(n_items)
    generosity = 0.01 * (age - 43) + 0.4 * normal(N_USERS)
    like = generosity[:, None] + quality + 0.6 * taste @ character.T  # (U, N), in units of a five-point scale

    item_rows: list[Attributes] = [
        {
            "genres": [f"genre{g}" for g in genres[i].nonzero().flatten().tolist()],
            "year": int(year[i]),
            "plot": " ".join(GENRE_WORDS[g] for g in genres[i].nonzero().flatten().tolist()),
        }
        for i in range(n_items)
    ]
    user_rows: list[Attributes] = [{"group": f"group{group[u]}", "age": int(age[u])} for u in range(N_USERS)]
    schema = Schema(
        domains=list(DOMAINS[:n_domains]),
        user_attributes=AttributeEncoder.learn({"group": "categorical", "age": "numeric"}, user_rows),
        item_attributes=AttributeEncoder.learn(
            {"genres": "multi", "year": "numeric", "plot": "text"}, item_rows[:N_ITEMS]
        ),
        kinds=["rating", "click"],
    )
    low, high = (scale[domain] for scale in schema.scales())
    unit = (high - low) / 4
    truth = ((low + high) / 2 + unit * like).clamp(low, high)

    interactions = _interactions(like[:, :N_ITEMS], truth[:, :N_ITEMS], domain[:N_ITEMS], schema, generator)
    titles = [f"Item {i}" for i in range(n_items)]
    content = item_content(schema.item_attributes, titles, item_rows)
    items = Items(
        ids=[f"item{i}" for i in range(N_ITEMS)],
        titles=titles[:N_ITEMS],
        domain=domain[:N_ITEMS],
        attributes=item_rows[:N_ITEMS],
        content=content.rows(torch.arange(N_ITEMS)),
    )
    data = Dataset(
        name=f"world-{n_domains}",
        schema=schema,
        user_ids=[f"user{u}" for u in range(N_USERS)],
        user_attributes=schema.user_attributes.encode(user_rows),
        items=items,
        interactions=interactions,
    )
    held = torch.randperm(N_USERS, generator=generator)[:N_HELD].sort().values
    newcomers = [content.rows(N_ITEMS + d * N_NEW + torch.arange(N_NEW)) for d in range(n_domains)]
    return World(data, held, truth[:, :N_ITEMS], newcomers)


def _interactions(
    like: Tensor, truth: Tensor, domain: Tensor, schema: Schema, generator: torch.Generator
) -> Interactions:
    """20 to 45 events of each user, in the order in which items caught their eye; items 0 and 7 never do."""
    n_users, n_items = like.shape
    gumbel = -torch.rand(like.shape, generator=generator).log().neg().log()
    attraction = 0.8 * like + gumbel
    attraction[:, [0, 7]] = -torch.inf
    chosen = attraction.argsort(dim=1, descending=True)
    n_events = torch.randint(20, 46, (n_users,), generator=generator)
    picked = torch.arange(n_items) < n_events[:, None]
    users = torch.arange(n_users)[:, None].expand(-1, n_items)[picked]
    order = torch.rand(picked.shape, generator=generator).masked_fill(~picked, 2).argsort(dim=1)
    items = chosen.gather(1, order)[picked]  # the events of a user, shuffled: first ones are not the favourites

    low, high = (scale[domain[items]] for scale in schema.scales())
    noise = 0.5 * (high - low) / 4 * torch.randn(len(items), generator=generator)
    values = (truth[users, items] + noise).round().clamp(low, high)
    clicked = (torch.rand(len(items), generator=generator) < 0.05) & (values > (low + high) / 2)
    click_value = torch.tensor([d.kinds["click"].value for d in schema.domains])[domain[items]]
    times = 1e9 + 3600.0 * torch.arange(len(items), dtype=torch.float64)
    return Interactions.sorted(
        users,
        items,
        torch.where(clicked, click_value, values),
        torch.where(clicked, 0.25, 1.0),
        clicked.long(),
        times.masked_fill(users % 10 == 3, torch.nan),
    )

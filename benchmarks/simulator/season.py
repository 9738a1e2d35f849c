"""One season of the world, drawn by its seed: films, what is known of them, who comes, and what they will say.

All policies meet the same season: the same checkpoint, the same visitors in the same order, and of each film the same
rating by the same visitor, whichever policy comes to show it.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.simulator.truth import Floats, Indices, Truth
from models.datasets.dataset import Dataset, Interactions, Items
from models.datasets.schema import Attributes, Domain
from models.evaluation.served import decode_attributes

PLACES = 5
"""Of a slate."""
RATED = 0.5
"""Share of the places that get a rating, whatever they show."""


@dataclass(frozen=True)
class Setting:
    """What sort of season it is."""

    n_first: int
    """Films that are there from the start."""
    n_new: int
    """Films that come halfway, of which nothing is known but their content."""
    n_history: int
    """Users whose ratings of the first films a checkpoint of `bayes` was trained on; 0: there is no checkpoint, and the
    service goes by content and by what comes in."""
    n_visitors: int = 2500
    """Other users, of whom nothing is known at first but their attributes. Each comes as often as any other."""


SETTINGS = {
    "opening": Setting(n_first=300, n_new=150, n_history=0),
    "newcomers": Setting(n_first=300, n_new=150, n_history=2500),
    "settled": Setting(n_first=450, n_new=0, n_history=2500, n_visitors=250),
}
"""A catalogue of which nobody has said anything; one that is known well and gets new films; one where there is nothing
left to be found out."""


@dataclass(frozen=True)
class Season:
    """What happens, but for what is shown."""

    domain: Domain
    history: Dataset | None
    """What the checkpoint is trained on: the first films, with the ratings of this world, by those who rated them in
    MovieLens."""
    films: Items
    """All films, the first ones first."""
    n_first: int
    visitors: list[Attributes]
    worth: Floats
    """(V, n) what a shown film earns, noise aside."""
    ratings: Floats
    """(V, n) what each visitor gives each film that they rate."""
    arrivals: Indices
    """(rounds,) who comes."""
    rates: NDArray[np.bool_]
    """(rounds, places) which places get a rating."""

    @classmethod
    def draw(cls, data: Dataset, truth: Truth, setting: Setting, rounds: int, seed: int) -> "Season":
        """The season of that seed."""
        generator = np.random.default_rng(seed)
        films: Indices = generator.permutation(len(truth.films))[: setting.n_first + setting.n_new]
        people = generator.permutation(data.n_users)
        visitors = people[: setting.n_visitors]
        liking = truth.liking(visitors, films)
        times = -(-rounds // setting.n_visitors)
        arrivals = np.concatenate([generator.permutation(setting.n_visitors) for _ in range(times)])[:rounds]
        raters = people[setting.n_visitors : setting.n_visitors + setting.n_history]
        encoder = data.schema.user_attributes
        return cls(
            domain=data.schema.domains[0],
            history=_history(data, truth, films[: setting.n_first], np.sort(raters), seed) if len(raters) else None,
            films=_items(data.items, torch.from_numpy(truth.films[films])),
            n_first=setting.n_first,
            visitors=[decode_attributes(encoder, data.user_attributes[int(u)]) for u in visitors],
            worth=truth.worth(liking),
            ratings=truth.ratings(liking, generator),
            arrivals=arrivals,
            rates=generator.random((rounds, PLACES)) < RATED,
        )


def _items(items: Items, index: torch.Tensor) -> Items:
    chosen = index.tolist()
    return Items(
        ids=[items.ids[i] for i in chosen],
        titles=[items.titles[i] for i in chosen],
        domain=items.domain[index],
        attributes=[items.attributes[i] for i in chosen],
        content=items.content.rows(index),
    )


def _history(data: Dataset, truth: Truth, films: Indices, raters: Indices, seed: int) -> Dataset:
    """Who rated what in MovieLens, with the ratings of this world."""
    chosen = torch.from_numpy(truth.films[films])
    item_of = torch.full((data.n_items,), -1)
    item_of[chosen] = torch.arange(len(films))
    user_of = torch.full((data.n_users,), -1)
    user_of[raters] = torch.arange(len(raters))
    seen = data.interactions
    users, items = user_of[seen.users], item_of[seen.items]
    kept = (users >= 0) & (items >= 0)
    users, items = users[kept], items[kept]
    given = truth.ratings(truth.liking(raters, films), np.random.default_rng([seed, 1]))
    rows = seen.rows(kept)
    values = torch.from_numpy(given[users.numpy(), items.numpy()])
    interactions = Interactions.sorted(users, items, values, rows.weights, rows.kinds, rows.times)
    return replace(
        data,
        name=f"{data.name}-season",
        user_ids=[data.user_ids[int(u)] for u in raters],
        user_attributes=data.user_attributes[torch.from_numpy(raters)],
        items=_items(data.items, chosen),
        interactions=interactions,
    )

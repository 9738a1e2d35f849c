"""Learning while serving: rows of items, in closed form, from what came in about them after the fit.

A row is a function of the fit, the item's content and the item's events, each with what its user had done *before* it.
So all workers that read the same log have the same row, whenever they read it and whatever they had before: rows are
learnt anew each time, from the rows of the fit and not from those learnt last, and one item at a time, so that not even
the last bit depends on which items were learnt together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from app.engine.answering import Known, Padded
from app.engine.catalogue import Catalogue
from app.engine.serving import Served, imported_ids
from models.recommender import Columns, ItemEvidence, Recommender


@dataclass(frozen=True, slots=True)
class ItemEvent:
    """An event of an item, as evidence of the item."""

    key: int
    """In storage."""
    event_id: str | None
    value: float
    """The rating, or the rating that it stands for."""
    weight: float
    user: Known
    """What was known of the user when it occurred, the item itself left out."""


@dataclass(frozen=True, slots=True)
class ItemEvents:
    """What came in about one item, oldest first."""

    item_key: int
    events: Sequence[ItemEvent]


def teaches(served: Served, key: int, event_id: str | None, installation: int) -> bool:
    """Whether a checkpoint has something to learn from an event: it has closed forms, and the fit has not seen it.

    A fit has seen the events of this installation up to where it was trained from, and those imported from the data set
    that it was trained on. `installation` is the installation's number.
    """
    if not _learns(served) or key <= seen_through(served, installation):
        return False
    return event_id is None or not event_id.startswith(imported_ids(served.fingerprint))


def seen_through(served: Served, installation: int) -> int:
    """Key of the newest event of this installation that the fit may have seen, 0 where it has seen none."""
    through = served.learnt_through
    return through.key if through is not None and through.installation == installation else 0


def learn(served: Served, catalogue: Catalogue, items: Sequence[ItemEvents], installation: int) -> Served:
    """The checkpoint with the rows of some items learnt from their events; itself where no row changes."""
    if not _learns(served):
        return served
    versions = served.versions.copy()
    rows: list[int] = []
    learnt: list[Columns] = []
    for item in items:
        position = catalogue.position_of.get(item.item_key, -1)
        row = int(served.row_of[position]) if position >= 0 else -1
        target = served.domains.get(catalogue.items[position].domain, -1)
        if row < 0 or target < 0:
            continue
        events = [event for event in item.events if teaches(served, event.key, event.event_id, installation)]
        version = _digest(events)
        if version == versions[position]:
            continue
        columns = _learn(served, row, target, events)
        if columns and all(bool(column.isfinite().all()) for column in columns.values()):
            versions[position] = version
            rows.append(row)
            learnt.append(columns)
    if not rows:
        return served
    index = torch.tensor(rows, device=served.table.domain.device)
    columns = {name: torch.cat([one[name] for one in learnt]) for name in learnt[0]}
    return replace(served, table=served.table.with_learnt(index, columns), versions=versions)


@torch.no_grad()
def _learn(served: Served, row: int, target: int, events: Sequence[ItemEvent]) -> Columns:
    """The learnt columns of one item; those of the fit where there is nothing to learn from."""
    device = served.prior.domain.device
    states = torch.zeros(0, served.recommender.state_size, device=device)
    if events:
        users = Padded.of([event.user for event in events]).for_table(served)
        states = served.recommender.adapt(users, served.prior, target)
    evidence = ItemEvidence(
        index=torch.zeros(len(events), dtype=torch.long, device=device),
        states=states,
        values=_floats([event.value for event in events], device),
        weights=_floats([event.weight for event in events], device),
    )
    rows = torch.tensor([row], device=device)
    columns = served.recommender.learn_items(served.prior, rows, evidence)
    return columns if events else {name: served.prior[name][rows] for name in columns}


def _floats(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _learns(served: Served) -> bool:
    """Whether there is a closed form for the recommender's rows."""
    return served.recommender.kind == "rating" and type(served.recommender).learn_items is not Recommender.learn_items


def _digest(events: Sequence[ItemEvent]) -> np.uint64:
    """Tells apart what a row may be learnt from; 0 for nothing."""
    if not events:
        return np.uint64(0)
    digest = blake2b(digest_size=8)
    for event in events:
        user = event.user
        digest.update(np.array([event.key, event.value, event.weight, len(user.positions)]).tobytes())
        for array in (user.positions, user.values, user.weights, user.times):
            digest.update(array.tobytes())
        digest.update(repr((user.kinds, sorted(user.attributes.items()))).encode())
    return np.uint64(int.from_bytes(digest.digest()) | 1)

"""Evidence of a user: from the request, or from the cache and storage, in the engine's terms."""

import math
import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import orjson
import torch

from app.cache import CacheKey
from app.engine.answering import Known, UserState
from app.engine.runtime import Snapshot
from app.engine.serving import ServedDomain
from app.errors import Problem, invalid
from app.services.installation import Installation
from app.storage import users
from app.storage.records import Event, StoredUser
from app.telemetry import STATES
from models.datasets.schema import Attributes, Domain

MAX_AHEAD_SECONDS = 300.0
"""How far a caller's clock may run ahead of ours."""

Found = tuple[int, float, float, float | None, str]
"""An interaction as evidence: catalogue position, rating it stands for, weight, time, kind."""


class SupportEvent(Protocol):
    """An interaction sent along with a request."""

    @property
    def item_id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def value(self) -> float | None: ...
    @property
    def domain(self) -> str | None: ...
    @property
    def occurred_at(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Gathered:
    """Evidence with what else the answer needs of it."""

    known: Known
    support_size: int
    """Interactions in the domain asked about."""
    seen: np.ndarray[Any, np.dtype[np.int64]]
    """Local indices, in the domain asked about, of items with an interaction."""
    ignored: list[str]
    """Items that nobody has added."""
    user: StoredUser | None = None
    states: Sequence[UserState | None] = ()
    """From the cache, or from a request beside this one; empty where there are none."""
    flight: Hashable = None
    """Under which others wait for the states that this request makes; None where nobody does."""


def check_value(domain: Domain, kind: str, value: float | None, pointer: str, row: int) -> None:
    """Raise Problem (validation-error) unless the domain gives an event of that kind and value a meaning.

    `pointer` and `row` say where in the body the event stands.
    """
    if kind != "rating":
        if kind not in domain.kinds:
            known = ", ".join(["rating", *domain.kinds])
            raise invalid(f"{pointer}/{row}/kind", f"this domain knows the kinds {known}")
    elif value is None:
        raise invalid(f"{pointer}/{row}/value", "a rating needs a value")
    elif not domain.rating_min <= value <= domain.rating_max:
        raise invalid(
            f"{pointer}/{row}/value", f"ratings here lie between {domain.rating_min:g} and {domain.rating_max:g}"
        )


def check_time(occurred_at: float, now: float, pointer: str, row: int) -> None:
    """Raise Problem (timestamp-out-of-range) for an event that lies in the future."""
    if occurred_at > now + MAX_AHEAD_SECONDS:
        error = {"pointer": f"{pointer}/{row}/occurred_at", "reason": "lies more than 5 minutes ahead of our clock"}
        raise Problem("timestamp-out-of-range", "An event cannot have occurred in the future.", errors=[error])


def _in_order(support: Sequence[SupportEvent]) -> Iterable[tuple[int, SupportEvent]]:
    """The events with their rows, oldest first; those without a time come before the others, as they were given."""
    rows = enumerate(support)
    if all(event.occurred_at is None for event in support):
        return rows
    return sorted(rows, key=lambda row: -math.inf if row[1].occurred_at is None else row[1].occurred_at)


def from_request(
    snapshot: Snapshot, target: str, support: Sequence[SupportEvent], attributes: Attributes, pointer: str
) -> Gathered:
    """Evidence given in the request, put into the order in which it occurred where it says so.

    Of several ratings of one item the last counts. Raises Problem: validation-error, timestamp-out-of-range.
    """
    found: dict[tuple[int, int], Found] = {}
    ignored = []
    shelves = snapshot.catalogue.shelves
    now = time.time()
    for i, event in _in_order(support):
        if event.occurred_at is not None:
            check_time(event.occurred_at, now, pointer, i)
        shelf = shelves.get(event.domain or target)
        if shelf is None:
            raise invalid(f"{pointer}/{i}/domain", "no domain has that name")
        check_value(shelf.domain, event.kind, event.value, pointer, i)
        position = shelf.position_of.get(event.item_id)
        if position is None:
            ignored.append(event.item_id)
            continue
        worth = shelf.domain.evidence_of(event.kind, event.value)
        assert worth is not None
        key = (position, -1 if event.kind == "rating" else i)
        found.pop(key, None)
        found[key] = (position, worth[0], worth[1], event.occurred_at, event.kind)
    return _gathered(snapshot, target, list(found.values()), attributes, ignored)


async def from_storage(installation: Installation, snapshot: Snapshot, domain: ServedDomain, user_id: str) -> Gathered:
    """Evidence of a stored user, from the cache where it has it. An unknown user is a newcomer without any."""
    target = domain.shelf.domain.name
    async with installation.database.read() as connection:
        user = await users.get(connection, user_id)
    if user is None:
        return _gathered(snapshot, target, [], {}, [])
    # The domain stands for checkpoints and item rows, and lives as long as the request that makes the states.
    flight = (user.key, user.revision, id(domain))
    made: Gathered | None = await installation.flights.join(flight)
    if made is not None:
        STATES.labels("shared").inc(len(made.states))
        return made
    try:
        return await _looked_up(installation, snapshot, domain, user, flight)
    except BaseException:
        installation.flights.land(flight, None)
        raise


async def _looked_up(
    installation: Installation, snapshot: Snapshot, domain: ServedDomain, user: StoredUser, flight: Hashable
) -> Gathered:
    """Evidence of a user from the cache, or else from storage. Lands the flight where all states are there."""
    target = domain.shelf.domain.name
    keys = [_history_key(user), *_state_keys(domain, snapshot, user)]
    history, *states = await installation.cache.get(keys)
    if history is None:
        async with installation.database.read() as connection:
            events = await users.history(connection, user.key, installation.settings.max_history)
        await installation.cache.put({keys[0]: _dump_history(events)})
    else:
        events = _load_history(history)
    gathered = of_events(snapshot, target, events, user.attributes)
    loaded = [
        None if state is None else _load_state(state, part.served.version_of(gathered.known.positions))
        for state, part in zip(states, domain.parts, strict=True)
    ]
    STATES.labels("cache").inc(sum(state is not None for state in loaded))
    STATES.labels("adapted").inc(sum(state is None for state in loaded))
    found = replace(gathered, user=user, states=loaded if any(loaded) else ())
    if all(state is not None for state in loaded):
        installation.flights.land(flight, found)
        return found
    return replace(found, flight=flight)


def let_go(installation: Installation, gathered: Gathered) -> None:
    """To be called when a request is done with its evidence, for others may wait for states that it never made."""
    if gathered.flight is not None:
        installation.flights.land(gathered.flight, None)


def of_events(snapshot: Snapshot, target: str, events: Sequence[Event], attributes: Attributes) -> Gathered:
    """Evidence from stored events, oldest first."""
    found: list[Found] = []
    for event in events:
        position = snapshot.catalogue.position_of.get(event.item_key)
        if position is None:
            continue
        spec = snapshot.catalogue.shelves[snapshot.catalogue.items[position].domain].domain
        worth = spec.evidence_of(event.kind, event.value)
        if worth is not None:
            found.append((position, *worth, event.occurred_at, event.kind))
    return _gathered(snapshot, target, found, attributes, [])


async def remember(
    installation: Installation,
    snapshot: Snapshot,
    domain: ServedDomain,
    gathered: Gathered,
    states: Sequence[UserState | None],
) -> None:
    """Put the states that were made for a stored user into the cache, and give them to those who wait for them."""
    if gathered.user is None:
        return
    known = gathered.states or [None] * len(states)
    limit = installation.settings.cache_max_state_bytes
    entries = {
        key: _dump_state(state, part.served.version_of(gathered.known.positions))
        for key, state, old, part in zip(
            _state_keys(domain, snapshot, gathered.user), states, known, domain.parts, strict=True
        )
        if state is not None and old is None and state.state.numel() * 4 <= limit
    }
    if entries:
        await installation.cache.put(entries)
    if gathered.flight is not None:  # only now: whoever comes next finds them in the cache
        installation.flights.land(gathered.flight, replace(gathered, states=states, flight=None))


def _gathered(
    snapshot: Snapshot,
    target: str,
    found: Sequence[Found],
    attributes: Attributes,
    ignored: list[str],
) -> Gathered:
    columns = zip(*found, strict=True) if found else [()] * 5
    positions, values, weights, times, kinds = columns
    known = Known(
        np.array(positions, dtype=np.int64),
        np.array(values, dtype=np.float32),
        np.array(weights, dtype=np.float32),
        np.array(times, dtype=np.float64),  # None becomes NaN
        kinds,
        attributes,
    )
    catalogue = snapshot.catalogue
    here = known.positions[catalogue.shelf_of[known.positions] == catalogue.shelves[target].number]
    return Gathered(known, len(here), catalogue.local[here], ignored)


def _history_key(user: StoredUser) -> CacheKey:
    return CacheKey("history", "", user.key, user.revision, 0)


def _state_keys(domain: ServedDomain, snapshot: Snapshot, user: StoredUser) -> list[CacheKey]:
    name, table_revision = domain.shelf.domain.name, snapshot.catalogue.revision
    return [CacheKey(part.served.digest, name, user.key, user.revision, table_revision) for part in domain.parts]


def _dump_history(events: Sequence[Event]) -> bytes:
    return orjson.dumps([[e.item_key, e.kind, e.value, e.occurred_at] for e in events])


def _load_history(content: bytes) -> list[Event]:
    return [Event(key, kind, value, when, None) for key, kind, value, when in orjson.loads(content)]


def _dump_state(state: UserState, version: int) -> bytes:
    """`version` is that of the item rows that the state was made from."""
    head: Mapping[str, Any] = {
        "n": state.support_size,
        "before": state.loss_before,
        "after": state.loss_after,
        "rows": version,
    }
    return orjson.dumps(head) + b"\n" + state.state.float().numpy().tobytes()


def _load_state(content: bytes, version: int) -> UserState | None:
    """The state, unless rows that it was made from have been learnt since."""
    head, _, body = content.partition(b"\n")
    said = orjson.loads(head)
    if said.get("rows", 0) != version:
        return None
    return UserState(torch.from_numpy(np.frombuffer(body, np.float32).copy()), said["n"], said["before"], said["after"])

"""What goes into storage and what comes out of it. Plain values: no row, no connection, no ORM object leaves storage.

Times are Unix seconds as floats, kept to the microsecond. Keys are storage's own numbers, never used twice; ids are
what callers name things by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from models.datasets.schema import AttributeKind, Kind

Json = Mapping[str, Any]
"""A JSON object."""


@dataclass(frozen=True, slots=True)
class NewDomain:
    """A domain as an operator or a checkpoint declares it."""

    name: str
    rating_min: float
    rating_max: float
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """What each kind of event other than `rating` is worth."""
    attributes: Mapping[str, AttributeKind] = field(default_factory=dict)
    """Declared item attributes; may be empty."""
    title: str | None = None
    """A name for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDomain(NewDomain):
    """A domain in storage."""

    key: int
    created_at: float


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item to put; without title and attributes it is known by its id only."""

    item_id: str
    title: str | None = None
    attributes: Json = field(default_factory=dict)
    available: bool = True


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item in storage."""

    key: int
    domain_key: int
    item_id: str
    title: str | None
    attributes: Json
    available: bool
    deleted: bool
    """A tombstone: the key stays taken and what was said of the item stays on record, but it is not listed."""
    revision: int
    """The catalogue revision at which it last changed."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of things put."""

    created: int
    updated: int


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """What users did with one item."""

    item_key: int
    n_ratings: int
    """Users who rated it; of several ratings by one user the last counts."""
    sum_ratings: float
    """Sum of those ratings."""
    n_events: int
    """Events of every kind, ratings and repetitions included."""


@dataclass(frozen=True, slots=True)
class StoredUser:
    """A user in storage."""

    key: int
    user_id: str
    attributes: Json
    revision: int
    """Raised by every interaction and every change of attributes."""


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction of a known user, as evidence."""

    item_key: int
    kind: str
    value: float | None
    occurred_at: float
    context: Json | None


@dataclass(frozen=True, slots=True)
class NewInteraction:
    """An interaction to store. Users and items that nobody has met are created."""

    user_id: str
    domain_key: int
    item_id: str
    kind: str = "rating"
    value: float | None = None
    occurred_at: float | None = None
    """None: when it is received."""
    event_id: str | None = None
    """The caller's name for the event, which makes sending it again harmless."""
    slate_id: str | None = None
    context: Json | None = None
    reward_micros: int | None = None
    """What it is worth where it follows a shown item, in millionths; None: it is no reward."""


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a batch of interactions or rewards."""

    accepted: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Erasure:
    """A user who is being forgotten."""

    key: int
    user_key: int
    erased_at: float | None = None
    """When nothing of them was left in the database."""


@dataclass(frozen=True, slots=True)
class NamedWrite:
    """A write that its caller has named, so that it is done once however often it is sent."""

    name: str
    """Keyed digest of the caller and the name."""
    request: str
    """Keyed digest of all that was sent."""


@dataclass(frozen=True, slots=True)
class ExportedInteraction:
    """An interaction with the ids that callers know."""

    key: int
    user_id: str
    domain: str
    item_id: str
    kind: str
    value: float | None
    occurred_at: float
    received_at: float
    event_id: str | None
    slate_id: str | None
    context: Json | None


@dataclass(frozen=True, slots=True)
class ExportedReward:
    """A reward with the ids that callers know."""

    slate_id: str
    item_id: str
    kind: str
    micros: int
    received_at: float
    event_id: str | None
    interaction_id: str | None
    """Event id of the interaction that it follows from."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What was taken over from one user by another."""

    interactions: int
    slates: int
    attributes: int
    """Those that the other had not."""


class ShownItem(NamedTuple):
    """One place of a slate."""

    item_key: int
    item_id: str
    score: float
    propensity: float | None
    """Probability that the policy put this item here; None where the policy cannot say."""
    explored: bool = False


@dataclass(frozen=True, slots=True)
class NewSlate:
    """A slate to log, as it is returned."""

    slate_id: str
    user_key: int | None
    """None: a stateless request, of which nothing about the person is kept."""
    domain_key: int
    created_at: float
    policy: Json
    items: Sequence[ShownItem]
    parts: Sequence[Json]
    """Which checkpoints answered, with what weight."""
    settle_at: float | None = None
    """When places without a reward get the default one; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSlate(NewSlate):
    """A slate on record."""

    default_micros: int | None = None
    """What a place without any reward counts as, once the slate is settled."""


@dataclass(frozen=True, slots=True)
class NewReward:
    """What came of a shown item."""

    slate_id: str
    item_id: str
    micros: int
    """In millionths."""
    event_id: str | None = None
    """The caller's name for it, which makes sending it again harmless."""


@dataclass(frozen=True, slots=True)
class InteractionReward:
    """What an interaction with a shown item is worth."""

    slate_id: str
    item_key: int
    kind: str
    micros: int
    event_id: str | None
    """Of the interaction."""


class ArmCounts(NamedTuple):
    """What a policy showed of an item, and what came of it."""

    shows: int = 0
    """Places of slates that had it."""
    judged: int = 0
    """Those of them with a reward, given or by default."""
    micros: int = 0
    """Sum of these rewards, in millionths."""

    def __add__(self, other: tuple[int, ...]) -> "ArmCounts":  # type: ignore[override]
        """The counts of both."""
        return ArmCounts(*(one + more for one, more in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Arm:
    """An item as a policy knows it."""

    item_key: int
    item_id: str
    policy: str
    counts: ArmCounts


@dataclass(frozen=True, slots=True)
class Wanted:
    """The checkpoint that a role should be served from."""

    domain: str
    role: str
    checkpoint: str
    digest: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """One decision about a role; the newest counts."""

    key: int
    domain: str
    role: str
    checkpoint: str | None
    """None: the role was removed."""
    digest: str | None
    created_at: float


@dataclass(frozen=True, slots=True)
class Act:
    """Something that was asked of an admin route, or done on the command line or by the service itself."""

    method: str
    route: str
    """The template, never what stood in its place."""
    key_id: str | None = None
    """Of the key that asked; None for nobody who is known, on the command line, and for the service."""
    request_id: str | None = None
    """As in the answer and in the log."""


@dataclass(frozen=True, slots=True)
class RecordedAct(Act):
    """An act on record."""

    key: int = 0
    at: float = 0.0
    status: int | None = None
    """What the caller was told; None: it has begun, and nobody was told anything that is on record."""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Revisions:
    """Counters that tell whether anything changed; each commit that changes something raises its counter."""

    catalogue: int
    """Domains and items."""
    deployments: int
    exploration: int = 0
    """How domains explore."""
    keys: int = 0
    """Who may use the service."""
    erasures: int = 0
    """Users to be forgotten."""


def microseconds(seconds: float) -> int:
    """Unix seconds as storage keeps them.

    >>> microseconds(1700000000.123456)
    1700000000123456
    """
    return round(seconds * 1_000_000)


def seconds(stored: int) -> float:
    """Unix seconds from what storage keeps.

    >>> seconds(1700000000123456)
    1700000000.123456
    """
    return stored / 1_000_000

"""What goes into requests: the JSON of docs/http.md, typed. The names are those of the OpenAPI document.

Left out is what the service then does by default; nothing is checked here that the service checks anyway.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, TypedDict

AttributeValue = float | str | Sequence[str] | None
Attributes = Mapping[str, AttributeValue]
Time = float | str
"""Unix seconds, or RFC 3339 with an offset."""
RankBy = Literal["preference", "rating"]


class Context(TypedDict, total=False):
    """Circumstances of an event."""

    dwell_seconds: float | None
    device: str | None
    location: str | None


class SupportInteraction(TypedDict):
    """Something the user did, sent along as evidence and not stored."""

    item_id: str
    value: NotRequired[float | None]
    """The rating; not needed for other kinds."""
    kind: NotRequired[str]
    domain: NotRequired[str | None]
    """Default: the domain asked about."""
    occurred_at: NotRequired[Time | None]
    context: NotRequired[Context | None]


class Filters(TypedDict, total=False):
    """Which items may be recommended."""

    include_items: Sequence[str] | None
    exclude_items: Sequence[str]
    exclude_slates: Sequence[str]
    """Leave out what these earlier answers showed: the way to ask for the next page."""
    where: Mapping[str, Sequence[str]]
    """Attribute → values of which an item must have one."""
    exclude_seen: bool


class Exploration(TypedDict, total=False):
    """How the slate is chosen from the scores."""

    policy: Literal["greedy", "epsilon_greedy", "ucb", "thompson", "lin_ucb", "lin_thompson"]
    epsilon: float | None
    scale: float
    bonus: Literal["auto", "posterior", "count"]
    arms: Literal["beta", "normal"]
    prior_strength: float
    samples: int
    candidates: int


class InteractionIn(TypedDict):
    """An event to store."""

    user_id: str
    domain: str
    item_id: str
    kind: NotRequired[str]
    value: NotRequired[float | None]
    event_id: NotRequired[str | None]
    """Your own name of the event. Without one the client makes one up, so that it may send the event again."""
    occurred_at: NotRequired[Time | None]
    slate_id: NotRequired[str | None]
    """The answer that the item was chosen from, if it was."""
    context: NotRequired[Context | None]


class RewardIn(TypedDict):
    """What came of an item that was shown."""

    slate_id: str
    item_id: str
    value: float
    event_id: NotRequired[str | None]


class ItemIn(TypedDict):
    """An item of a batch."""

    domain: str
    item_id: str
    title: NotRequired[str]
    attributes: NotRequired[Attributes]
    available: NotRequired[bool]


class UserIn(TypedDict):
    """A user of a batch."""

    user_id: str
    attributes: NotRequired[Attributes]


class KindBody(TypedDict):
    """What a kind of event is worth."""

    value: float
    weight: NotRequired[float]
    reward: NotRequired[float]


class GateBody(TypedDict, total=False):
    """What a checkpoint has to show by the log before it is taken into service."""

    slates: int
    places: int
    epsilon: float | None
    confidence: float
    margin: float
    effective_samples: float

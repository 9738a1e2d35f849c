"""Bodies of requests: strict types, no unknown fields."""

from typing import Annotated

from pydantic import Field, FiniteFloat, ValidationInfo, field_validator, model_validator

from app.api.fields import Attributes, Body, Id, ItemAttributes, Time
from app.engine.policies.settings import Exploration
from app.services.recommend import RankBy
from models.datasets.schema import AttributeKind
from models.recommender import Role

MAX_SUPPORT = 1000
MAX_BATCH = 500
MAX_K = 1000
MAX_QUESTIONS = 50
MAX_TOKEN_SECONDS = 86_400


class Context(Body):
    """Circumstances of an event."""

    dwell_seconds: Annotated[FiniteFloat, Field(ge=0)] | None = None
    device: Annotated[str, Field(max_length=64)] | None = None
    location: Annotated[str, Field(max_length=64)] | None = None


class SupportInteraction(Body):
    """Something the user did, sent along as evidence and not stored."""

    item_id: Id
    value: FiniteFloat | None = None
    """The rating; not needed for other kinds."""
    kind: Id = "rating"
    domain: Id | None = None
    """Default: the domain asked about."""
    occurred_at: Time | None = None
    context: Context | None = None


Support = Annotated[list[SupportInteraction], Field(max_length=MAX_SUPPORT)]


class UserEvidence(Body):
    """Everything that is known of a user, in the request itself."""

    attributes: Attributes = {}
    support: Support = []


class Filters(Body):
    """Which items may be recommended."""

    include_items: Annotated[list[Id], Field(max_length=5000)] | None = None
    """Choose among these only."""
    exclude_items: Annotated[list[Id], Field(max_length=5000)] = []
    exclude_slates: Annotated[list[Id], Field(max_length=50)] = []
    """Leave out what these earlier answers showed: the honest way to page."""
    where: Annotated[dict[str, Annotated[list[str], Field(min_length=1, max_length=100)]], Field(max_length=16)] = {}
    """Attribute → values of which an item must have one; several attributes must all hold."""
    exclude_seen: bool = True
    """Leave out what the user has already rated or used."""


# Frozen, so that all requests may share them; pydantic would copy a plain default for each.
_NO_FILTERS = Filters()

K = Annotated[int, Field(ge=1, le=MAX_K)]


class RecommendationRequest(Body):
    """Top k for a known user, or for the evidence given."""

    domain: Id
    user_id: Id | None = None
    user: UserEvidence | None = None
    k: K = 10
    filters: Filters = Field(default_factory=lambda: _NO_FILTERS)
    exploration: Exploration | None = None
    """Default: as the domain is set to."""
    rank_by: RankBy = "preference"
    """`preference`: what the user would choose and like. `rating`: what they would rate highest if they chose it."""
    explain: bool = False
    allow_fallback: bool = True
    """false: 503 `model-unavailable` rather than an answer whose `fallback` says that no checkpoint gave it."""

    @model_validator(mode="after")
    def _one_user(self) -> "RecommendationRequest":
        if (self.user_id is None) == (self.user is None):
            raise ValueError("give either user_id or user")
        return self


class ColdStartRequest(Body):
    """Top k for somebody who is not stored: attributes, and whatever they have said so far."""

    domain: Id
    attributes: Attributes = {}
    support: Support = []
    k: K = 10
    filters: Filters = Field(default_factory=lambda: _NO_FILTERS)
    exploration: Exploration | None = None
    """Default: as the domain is set to."""
    rank_by: RankBy = "preference"
    """`preference`: what the user would choose and like. `rating`: what they would rate highest if they chose it."""
    explain: bool = False
    allow_fallback: bool = True
    """false: 503 `model-unavailable` rather than an answer whose `fallback` says that no checkpoint gave it."""


class QuestionsRequest(Body):
    """What to ask somebody about who is not stored, given what they have said so far."""

    domain: Id
    attributes: Attributes = {}
    support: Support = []
    """Their answers, and whatever else is known that they did."""
    skipped: Annotated[list[Id], Field(max_length=MAX_SUPPORT)] = []
    """Items that they were asked about and do not know. They are not asked about again, and tell who they are."""
    n: Annotated[int, Field(ge=1, le=MAX_QUESTIONS)] = 1
    """Questions wanted. Each is chosen as if those before it had been answered."""


class PredictionRequest(Body):
    """Ratings to expect of given items."""

    domain: Id
    user_id: Id | None = None
    user: UserEvidence | None = None
    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_K)]
    allow_fallback: bool = True
    """false: 503 `model-unavailable` rather than an answer whose `fallback` says that no checkpoint gave it."""

    @model_validator(mode="after")
    def _one_user(self) -> "PredictionRequest":
        if (self.user_id is None) == (self.user is None):
            raise ValueError("give either user_id or user")
        return self


class InteractionIn(Body):
    """An event to store."""

    user_id: Id
    domain: Id
    item_id: Id
    kind: Id = "rating"
    value: FiniteFloat | None = None
    event_id: Id | None = None
    """Your own name of the event: sending it again is then harmless."""
    occurred_at: Time | None = None
    slate_id: Id | None = None
    """The answer that the item was chosen from, if it was."""
    context: Context | None = None


class InteractionsRequest(Body):
    """A batch of events, stored whole or not at all."""

    interactions: Annotated[list[InteractionIn], Field(min_length=1, max_length=MAX_BATCH)]


class RewardIn(Body):
    """What came of an item that was shown."""

    slate_id: Id
    item_id: Id
    value: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]
    """To the millionth; the policies expect 0 to 1. Several rewards of one place of a slate add up."""
    event_id: Id | None = None
    """Your own name of the reward: sending it again is then harmless."""


class RewardsRequest(Body):
    """A batch of rewards, stored whole or not at all."""

    rewards: Annotated[list[RewardIn], Field(min_length=1, max_length=MAX_BATCH)]


class ExplorationRequest(Body):
    """How a domain explores, where a request does not say."""

    domain: Id
    exploration: Exploration
    reward_wait_seconds: Annotated[FiniteFloat, Field(gt=0, le=31_536_000)] | None = None
    """Time after which a place without a reward gets `default_reward`; null: never."""
    default_reward: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)] = 0.0


class KindBody(Body):
    """What a kind of event is worth."""

    value: FiniteFloat
    weight: Annotated[FiniteFloat, Field(gt=0, le=1)] = 1.0
    reward: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)] = 0.0


class DomainBody(Body):
    """A domain's rating scale and kinds of events."""

    title: Annotated[str, Field(max_length=200)] | None = None
    rating_min: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)] = 1.0
    rating_max: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)] = 5.0
    kinds: Annotated[dict[Id, KindBody], Field(max_length=32)] = {}
    item_attributes: Annotated[dict[Id, AttributeKind], Field(max_length=64)] = {}

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> "DomainBody":
        if not self.rating_min < self.rating_max:
            raise ValueError("rating_min must be below rating_max")
        return self

    @field_validator("kinds")
    @classmethod
    def _kinds_stand_for_ratings(cls, kinds: dict[str, KindBody], info: ValidationInfo) -> dict[str, KindBody]:
        if "rating" in kinds:
            raise ValueError("the kind rating is there already: its value is its own")
        low, high = info.data.get("rating_min"), info.data.get("rating_max")
        if low is not None and high is not None and any(not low <= kind.value <= high for kind in kinds.values()):
            raise ValueError("the value of a kind is the rating that it stands for, from rating_min to rating_max")
        return kinds


class ItemBody(Body):
    """What is known of an item."""

    title: Annotated[str, Field(max_length=500)] = ""
    attributes: ItemAttributes = {}
    """Pictures are data URIs of PNG or JPEG files, and kept as thumbnails."""
    available: bool = True


class ItemIn(ItemBody):
    """An item of a batch."""

    domain: Id
    item_id: Id


class ItemsRequest(Body):
    """A batch of items, stored whole or not at all."""

    items: Annotated[list[ItemIn], Field(min_length=1, max_length=MAX_BATCH)]


class UserBody(Body):
    """What is known of a user beside interactions."""

    attributes: Attributes = {}


class UserIn(UserBody):
    """A user of a batch."""

    user_id: Id


class UsersRequest(Body):
    """A batch of users, stored whole or not at all."""

    users: Annotated[list[UserIn], Field(min_length=1, max_length=MAX_BATCH)]


class MergeRequest(Body):
    """Whose history is to be taken over."""

    from_id: Annotated[Id, Field(alias="from")]
    """The user who is gone afterwards, such as somebody who had not signed in yet."""


class TokenRequest(Body):
    """A token for one user."""

    user_id: Id
    ttl_seconds: Annotated[int, Field(ge=1, le=MAX_TOKEN_SECONDS)] = 900
    """How long it is to hold; a day at most."""


class ScopeBody(Body):
    """Which part of the log is evaluated, and as what."""

    slates: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Newest slates that are read."""
    places: Annotated[int, Field(ge=1, le=MAX_K)] = 1
    """First places of each slate that count."""
    epsilon: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    """Share of the places that the evaluated policy fills at random. Default: as the domain is set to."""
    confidence: Annotated[FiniteFloat, Field(ge=0.5, lt=1)] = 0.95


class EvaluationRequest(ScopeBody):
    """What a domain earns by its log, and what it would with another checkpoint."""

    domain: Id
    checkpoint: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """A checkpoint to evaluate beside what is in service."""
    role: Role | None = None
    """Default: the role of the checkpoint's recommender."""


class GateBody(ScopeBody):
    """What a checkpoint has to show by the log before it is taken into service."""

    margin: Annotated[FiniteFloat, Field(ge=0, le=1e6)] = 0.0
    """How much less reward a place than what is in service it may earn at the most."""
    effective_samples: Annotated[FiniteFloat, Field(gt=0, le=1e9)] = 100.0
    """Places that the log has to be worth."""


class ReloadRequest(Body):
    """Take a checkpoint into service."""

    domain: Id
    checkpoint: Annotated[str, Field(min_length=1, max_length=200)]
    role: Role | None = None
    """Default: the role of the checkpoint's recommender."""
    gate: GateBody | None = None
    """Refuse unless the log shows, with this confidence, that it earns no less than what is in service."""
    shadow: bool = False
    """Put it on trial only: a share of answers is made with it too, and compared, for nobody to see."""

    @model_validator(mode="after")
    def _no_gate_to_a_trial(self) -> "ReloadRequest":
        if self.shadow and self.gate is not None:
            raise ValueError("give either gate or shadow")
        return self


class RollbackRequest(Body):
    """Go back to the checkpoint that was in service before."""

    domain: Id
    role: Role
    shadow: bool = False
    """End the trial of a checkpoint there; what is in service stays."""

"""Bodies of requests and answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationInfo, field_validator, model_validator

from app.api.fields import Attributes, Body, Id, Time

MAX_SUPPORT = 1000
MAX_BATCH = 500
MAX_K = 1000


class Out(BaseModel):
    """A body of an answer, or part of one."""

    model_config = ConfigDict(use_attribute_docstrings=True)


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


class Exploration(Body):
    """How the slate is chosen from the scores."""

    policy: Literal["greedy"] = "greedy"


K = Annotated[int, Field(ge=1, le=MAX_K)]


class RecommendationRequest(Body):
    """Top k for a known user, or for the evidence given."""

    domain: Id
    user_id: Id | None = None
    user: UserEvidence | None = None
    k: K = 10
    filters: Filters = Filters()
    exploration: Exploration = Exploration()
    explain: bool = False

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
    filters: Filters = Filters()
    exploration: Exploration = Exploration()
    explain: bool = False


class PredictionRequest(Body):
    """Ratings to expect of given items."""

    domain: Id
    user_id: Id | None = None
    user: UserEvidence | None = None
    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_K)]

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


class KindBody(Body):
    """What a kind of event is worth."""

    value: FiniteFloat
    weight: Annotated[FiniteFloat, Field(gt=0, le=1)] = 1.0
    reward: FiniteFloat = 0.0


class DomainBody(Body):
    """A domain's rating scale and kinds of events."""

    title: Annotated[str, Field(max_length=200)] | None = None
    rating_min: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)] = 1.0
    rating_max: Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)] = 5.0
    kinds: Annotated[dict[Id, KindBody], Field(max_length=32)] = {}
    item_attributes: Annotated[dict[Id, Literal["numeric", "categorical", "multi", "text"]], Field(max_length=64)] = {}

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
    attributes: Attributes = {}
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


Role = Literal["content", "collaborative", "adaptive", "transfer"]


class ReloadRequest(Body):
    """Take a checkpoint into service."""

    domain: Id
    checkpoint: Annotated[str, Field(min_length=1, max_length=200)]
    role: Role | None = None
    """Default: the role of the checkpoint's recommender."""


class RollbackRequest(Body):
    """Go back to the checkpoint that was in service before."""

    domain: Id
    role: Role


class Adaptation(Out):
    """How a part adapted to the user."""

    support_size: int
    """Interactions it adapted on."""
    loss_before: float | None
    """Mean squared error on them before adapting; null without any."""
    loss_after: float | None
    cached: bool
    """Whether the state came from the cache."""


class PartOut(Out):
    """One recommender's share in an answer."""

    role: Role
    recommender: str
    checkpoint: str | None
    digest: str | None
    weight: float
    adaptation: Adaptation | None
    """null where its weight was 0 and it was not asked."""


class ScoredItem(Out):
    """An item of a slate."""

    item_id: str
    title: str
    score: float
    """The rating to expect, on the domain's scale."""
    std: float | None
    """Standard deviation of that rating; null where no part has one."""
    propensity: float | None
    """Probability that the policy put this item here; null where it is deterministic."""
    explored: bool
    why: list[dict[str, Any]] | None = None
    """With `explain`: each part's own score."""


class ExplorationOut(Out):
    """The policy that chose the slate."""

    policy: str
    propensity_valid: bool


class RecommendationResponse(Out):
    """A slate, and everything about how it came to be."""

    slate_id: str
    domain: str
    items: list[ScoredItem]
    parts: list[PartOut]
    schedule: Literal["learnt", "fixed"]
    """Where the parts' weights come from."""
    exploration: ExplorationOut
    ignored: list[str]
    """Items of the support that nobody has added."""
    fallback: str | None
    """What was missing, where no checkpoint could answer."""


class PredictedItem(Out):
    """A rating to expect."""

    item_id: str
    rating: float
    std: float | None


class PredictionResponse(Out):
    """Ratings in the order asked."""

    domain: str
    predictions: list[PredictedItem]
    parts: list[PartOut]
    schedule: Literal["learnt", "fixed"]
    ignored: list[str]
    fallback: str | None


class IngestResponse(Out):
    """What became of a batch of events."""

    accepted: int
    duplicates: int


class WrittenResponse(Out):
    """What became of things put."""

    created: int
    updated: int


class DomainOut(Out):
    """A domain and what serves it."""

    domain: str
    title: str | None
    rating_min: float
    rating_max: float
    kinds: dict[str, KindBody]
    item_attributes: dict[str, str]
    items: int
    """Items that are not deleted."""
    parts: list[dict[str, str]]
    """Roles with a checkpoint in service."""


class ItemOut(Out):
    """An item."""

    item_id: str
    domain: str
    title: str
    attributes: dict[str, Any]
    available: bool


class ItemsResponse(Out):
    """A page of items."""

    items: list[ItemOut]
    next_cursor: str | None


class SimilarItem(Out):
    """An item like another."""

    item_id: str
    title: str
    similarity: float
    """Cosine of the two items' content, 1 for the same."""


class UserOut(Out):
    """A user and what they did last."""

    user_id: str
    attributes: dict[str, Any]
    revision: int
    interactions: list[dict[str, Any]]
    """Newest last; of several ratings of an item, the one that counts."""


class CheckpointOut(Out):
    """A checkpoint on disk."""

    checkpoint: str
    digest: str | None
    recommender: str | None
    role: str | None
    domains: list[str]
    metrics: dict[str, float]
    created: str | None
    serving: list[dict[str, str]]
    """Domains and roles that it is in service for."""
    problem: str | None = None
    """Why it cannot be served, if it cannot."""


class DeploymentOut(Out):
    """What a reload or a rollback did."""

    domain: str
    role: Role
    checkpoint: str
    digest: str
    previous: str | None


class AliveOut(Out):
    """The process answers."""

    status: Literal["alive"]


class ReadyOut(Out):
    """Requests will be answered."""

    status: Literal["ready"]
    domains: list[str]
    checkpoints: list[str]
    """Checkpoints in service."""

"""Bodies of answers, as the OpenAPI document shows them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.api.requests import KindBody
from models.blend import Gain
from models.recommender import Role


class Out(BaseModel):
    """A body of an answer, or part of one."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Adaptation(Out):
    """How a part adapted to the user."""

    support_size: int
    """Interactions it adapted on."""
    loss_before: float | None
    """Mean squared error on them before adapting; null without any."""
    loss_after: float | None
    cached: bool
    """Whether the state came from the cache."""


class TransferOut(Out):
    """What a part in the role `transfer` carried over from other domains."""

    used: bool
    """Whether it had a weight, and anything to carry."""
    sources: list[str]
    """Domains whose evidence it carries."""
    source_size: int
    """Interactions known there."""
    gain: Gain | None
    """RMSE that its weight saved validation users of whom as much was known; null where that was not measured."""
    ranking_gain: Gain | None
    """Nats that its weight in lists made what they chose likelier."""


class PartOut(Out):
    """One recommender's share in an answer."""

    role: Role
    recommender: str
    checkpoint: str | None
    digest: str | None
    weight: float
    """In the rating to expect: shares of 1, and rating points per point of score in the role `ranking`."""
    ranking_weight: float
    """In the order of a list."""
    adaptation: Adaptation | None
    """null where its weights were 0 and it was not asked."""
    transfer: TransferOut | None
    """null in other roles than `transfer`."""


class ScoredItem(Out):
    """An item of a slate."""

    item_id: str
    title: str
    score: float
    """The rating to expect, on the domain's scale."""
    std: float | None
    """Standard deviation of that rating; null where no part has one."""
    propensity: float | None
    """Probability that the policy put this item here, given the places before; null where it cannot be said."""
    explored: bool
    """Whether the greedy slate would not have had it."""
    why: list[dict[str, Any]] | None = None
    """With `explain`: each part's own score."""


class ExplorationOut(Out):
    """The policy that chose the slate."""

    policy: str
    propensity_valid: bool
    """Whether each item's propensity is known: never for a deterministic policy with nothing mixed in."""
    seed: int | None = None
    """What the choice was made with; absent where chance had no part in it."""
    samples: int | None = None
    """Draws behind the propensities where they are estimates."""


class RecommendationResponse(Out):
    """A slate, and everything about how it came to be."""

    slate_id: str
    domain: str
    items: list[ScoredItem]
    ranked_by: Literal["preference", "rating"]
    """What the order is by: `preference` where the domain has learnt one and the request wants it."""
    parts: list[PartOut]
    schedule: Literal["learnt", "fixed"]
    """Where the parts' weights come from."""
    exploration: ExplorationOut
    ignored: list[str]
    """Items of the support that nobody has added."""
    fallback: str | None
    """What was missing, where no checkpoint could answer."""


class QuestionOut(Out):
    """An item worth asking about."""

    item_id: str
    title: str
    chance: float | None
    """Probability that this person knows it; null where no part tells."""
    reduction: float | None
    """Share of what is uncertain about their tastes that a rating of it would remove; null where no part tells."""


class AskingPart(Out):
    """The recommender whose posterior the questions go by."""

    role: Role
    recommender: str
    checkpoint: str | None
    digest: str | None


class QuestionsResponse(Out):
    """What to ask next, the best question first."""

    domain: str
    questions: list[QuestionOut]
    part: AskingPart | None
    """null where the items are popular and unlike each other, for no part has a posterior."""
    ignored: list[str]
    """Items of the support and of `skipped` that nobody has added."""
    fallback: str | None
    """What was missing, where questions or answers do not come from a checkpoint."""


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


class ArmOut(Out):
    """An item as a policy knows it."""

    item_id: str
    policy: str
    shows: int
    """Places of slates that had it."""
    judged: int
    """Those of them with a reward, given or by default."""
    reward: float
    """Sum of these rewards."""


class ArmsResponse(Out):
    """A page of arms."""

    arms: list[ArmOut]
    next_cursor: str | None


class ExplorationSettingsOut(Out):
    """How a domain explores."""

    domain: str
    exploration: dict[str, Any]
    """The policy with its settings, defaults filled in."""
    reward_wait_seconds: float | None
    default_reward: float


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


class ShownOut(Out):
    """A place of a slate on record, and what came of it."""

    item_id: str
    title: str
    score: float
    """The rating that was expected."""
    propensity: float | None
    explored: bool
    reward: float | None
    """Sum of the rewards of this place, given or by default; null without any."""


class LoggedPartOut(Out):
    """One recommender's share in a slate on record."""

    role: Role
    recommender: str | None
    """null where its checkpoint is no longer loaded."""
    checkpoint: str | None
    digest: str | None
    weight: float
    ranking_weight: float


class SlateOut(Out):
    """A slate on record."""

    slate_id: str
    domain: str
    created_at: float
    """Unix seconds."""
    policy: dict[str, Any]
    """The policy with its settings, its seed, and digests of what it chose from."""
    items: list[ShownOut]
    parts: list[LoggedPartOut]


class SlatesResponse(Out):
    """A page of a user's slates, newest first."""

    slates: list[SlateOut]
    next_cursor: str | None


class RewardOut(Out):
    """A reward on record."""

    item_id: str
    kind: str
    """`reward`, or the kind of the interaction that it follows from."""
    value: float
    received_at: float
    event_id: str | None
    interaction_id: str | None
    """Event id of the interaction that it follows from."""


class EventOut(Out):
    """An interaction on record."""

    domain: str
    item_id: str
    kind: str
    value: float | None
    occurred_at: float
    """Unix seconds."""
    received_at: float
    event_id: str | None
    slate_id: str | None
    context: dict[str, Any] | None


class SlateExport(SlateOut):
    """A slate with every reward of it."""

    rewards: list[RewardOut]


class UserExport(Out):
    """Everything that is stored about a user."""

    user_id: str
    attributes: dict[str, Any]
    revision: int
    interactions: list[EventOut]
    """Oldest first."""
    slates: list[SlateExport]
    """Newest first."""


class MergeResponse(Out):
    """What was taken over; nothing where there was nothing any more."""

    interactions: int
    slates: int
    attributes: int
    """Those that the other user had not."""


class AliveOut(Out):
    """The process answers."""

    status: Literal["alive"]


class LagOut(Out):
    """A checkpoint that is wanted and not in service."""

    domain: str
    role: str
    checkpoint: str
    problem: str
    """Type of the problem with it."""


class ReadyOut(Out):
    """Requests will be answered."""

    status: Literal["ready"]
    domains: list[str]
    checkpoints: list[str]
    """Checkpoints in service."""
    behind: list[LagOut]
    """What is wanted and could not be taken into service by this worker, which goes on with what it had."""


class TokenOut(Out):
    """A token of a user. It is sent as `Authorization: Bearer`, as keys are."""

    token: str
    user_id: str
    expires_at: int
    """Unix seconds."""

"""Answers of the service, under the names that they have in its OpenAPI document.

A field that a newer service adds is passed over, so an older client goes on working.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Role = Literal["content", "collaborative", "adaptive", "transfer", "ranking"]


class Answer(BaseModel):
    """An answer, or part of one."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Gain(Answer):
    """What a transfer's weight saved validation users of whom as much was known."""

    gain: float
    low: float
    """Lower bound, one-sided, of 95 %."""
    users: int


class Adaptation(Answer):
    """How a part adapted to the user."""

    support_size: int
    """Interactions it adapted on."""
    loss_before: float | None
    """Mean squared error on them before adapting; None without any."""
    loss_after: float | None
    cached: bool
    """Whether the state came from the cache."""


class TransferOut(Answer):
    """What a part in the role `transfer` carried over from other domains."""

    used: bool
    sources: list[str]
    source_size: int
    """Interactions known there."""
    gain: Gain | None
    """In RMSE of ratings."""
    ranking_gain: Gain | None
    """In nats of the likelihood of what they chose."""


class PartOut(Answer):
    """One recommender's share in an answer."""

    role: Role
    recommender: str
    checkpoint: str | None
    digest: str | None
    weight: float
    """In the rating to expect."""
    ranking_weight: float
    """In the order of the list."""
    adaptation: Adaptation | None
    transfer: TransferOut | None


class ScoredItem(Answer):
    """An item of a slate."""

    item_id: str
    title: str
    score: float
    """The rating to expect, on the domain's scale."""
    std: float | None
    """Standard deviation of that rating."""
    propensity: float | None
    """Probability that the policy put this item here, given the places before."""
    explored: bool
    """Whether the greedy slate would not have had it."""
    why: list[dict[str, Any]] | None = None
    """With `explain`: each part's own score."""


class ExplorationOut(Answer):
    """The policy that chose a slate."""

    policy: str
    propensity_valid: bool
    seed: int | None = None
    samples: int | None = None
    """Draws behind the propensities where they are estimates."""


class RecommendationResponse(Answer):
    """A slate, and everything about how it came to be."""

    slate_id: str
    domain: str
    items: list[ScoredItem]
    ranked_by: Literal["preference", "rating"]
    parts: list[PartOut]
    schedule: Literal["learnt", "fixed"]
    exploration: ExplorationOut
    ignored: list[str]
    """Items of the support that nobody has added."""
    fallback: str | None
    """What was missing, where no checkpoint could answer."""


class QuestionOut(Answer):
    """An item worth asking about."""

    item_id: str
    title: str
    chance: float | None
    """Probability that this person knows it."""
    reduction: float | None
    """Share of what is uncertain about their tastes that a rating of it would remove."""


class AskingPart(Answer):
    """The recommender whose posterior the questions go by."""

    role: Role
    recommender: str
    checkpoint: str | None
    digest: str | None


class QuestionsResponse(Answer):
    """What to ask next, the best question first."""

    domain: str
    questions: list[QuestionOut]
    part: AskingPart | None
    ignored: list[str]
    fallback: str | None


class PredictedItem(Answer):
    """A rating to expect."""

    item_id: str
    rating: float
    std: float | None


class PredictionResponse(Answer):
    """Ratings to expect, in the order asked."""

    domain: str
    predictions: list[PredictedItem]
    parts: list[PartOut]
    schedule: Literal["learnt", "fixed"]
    ignored: list[str]
    fallback: str | None


class IngestResponse(Answer):
    """What became of a batch of events or rewards."""

    accepted: int
    duplicates: int
    """Those whose event ids were stored before."""


class WrittenResponse(Answer):
    """What became of things put."""

    created: int
    updated: int


class KindBody(Answer):
    """What a kind of event is worth."""

    value: float
    weight: float = 1.0
    reward: float = 0.0


class DomainOut(Answer):
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


class ItemOut(Answer):
    """An item."""

    item_id: str
    domain: str
    title: str
    attributes: dict[str, Any]
    available: bool


class ItemsResponse(Answer):
    """A page of items."""

    items: list[ItemOut]
    next_cursor: str | None


class SimilarItem(Answer):
    """An item like another."""

    item_id: str
    title: str
    similarity: float
    """Cosine of the two items' content, 1 for the same."""


class UserOut(Answer):
    """A user and what they did last."""

    user_id: str
    attributes: dict[str, Any]
    revision: int
    interactions: list[dict[str, Any]]
    """Newest last; of several ratings of an item, the one that counts."""


class ShownOut(Answer):
    """A place of a slate on record, and what came of it."""

    item_id: str
    title: str
    score: float
    """The rating that was expected."""
    propensity: float | None
    explored: bool
    reward: float | None
    """Sum of the rewards of this place, given or by default; None without any."""


class LoggedPartOut(Answer):
    """One recommender's share in a slate on record."""

    role: Role
    recommender: str | None
    """None where its checkpoint is no longer loaded."""
    checkpoint: str | None
    digest: str | None
    weight: float
    ranking_weight: float


class SlateOut(Answer):
    """A slate on record."""

    slate_id: str
    domain: str
    created_at: float
    """Unix seconds."""
    policy: dict[str, Any]
    """The policy with its settings, its seed, and digests of what it chose from."""
    items: list[ShownOut]
    parts: list[LoggedPartOut]


class SlatesResponse(Answer):
    """A page of a user's slates, newest first."""

    slates: list[SlateOut]
    next_cursor: str | None


class RewardOut(Answer):
    """A reward on record."""

    item_id: str
    kind: str
    """`reward`, or the kind of the interaction that it follows from."""
    value: float
    received_at: float
    event_id: str | None
    interaction_id: str | None


class EventOut(Answer):
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


class UserExport(Answer):
    """Everything that is stored about a user."""

    user_id: str
    attributes: dict[str, Any]
    revision: int
    interactions: list[EventOut]
    """Oldest first."""
    slates: list[SlateExport]
    """Newest first."""


class MergeResponse(Answer):
    """What was taken over."""

    interactions: int
    slates: int
    attributes: int


class ArmOut(Answer):
    """An item as a policy knows it."""

    item_id: str
    policy: str
    shows: int
    """Places of slates that had it."""
    judged: int
    """Those of them with a reward, given or by default."""
    reward: float
    """Sum of these rewards."""


class ArmsResponse(Answer):
    """A page of arms."""

    arms: list[ArmOut]
    next_cursor: str | None


class ExplorationSettingsOut(Answer):
    """How a domain explores."""

    domain: str
    exploration: dict[str, Any]
    """The policy with its settings, defaults filled in."""
    reward_wait_seconds: float | None
    default_reward: float


class TrialOut(Answer):
    """What was seen of a checkpoint on trial."""

    domain: str
    role: str
    compared: int
    failed: int
    dropped: int
    """Answers that were not compared, for the worker had other things to do."""
    difference: float | None
    """Mean absolute difference to the ratings to expect of what serves."""
    overlap: float | None
    """Mean share of the items of lists that both chose."""
    serving_seconds: float | None
    seconds: float | None
    """Mean time to make an answer, of what serves and of this, alone and without cached states."""


class CheckpointOut(Answer):
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
    trials: list[TrialOut] = []
    """Where it is on trial, at the worker that answers."""
    problem: str | None = None
    """Why it cannot be served, if it cannot."""


class DeploymentOut(Answer):
    """What a reload or a rollback did."""

    domain: str
    role: Role
    checkpoint: str
    digest: str
    previous: str | None
    shadow: bool = False
    """It was put on trial, or taken off it: what serves is as it was."""


class EarnedOut(Answer):
    """What one policy earned with the first places of the slates that it logged."""

    policy: str
    slates: int
    judged: int
    reward: float | None
    """Mean of a judged place."""


class EstimateOut(Answer):
    """An estimate of the reward of a place."""

    estimator: Literal["ips", "snips", "dr"]
    clip: float | None
    """Largest weight of a place; None: any."""
    value: float
    low: float
    high: float


class ValueOut(Answer):
    """What the log says of one policy."""

    estimates: list[EstimateOut]
    places: int
    invalid_share: float
    effective_samples: float


class ComparisonOut(Answer):
    """The candidate less what is in service, doubly robust."""

    difference: float
    low: float
    effective_samples: float


class EvaluationResponse(Answer):
    """What a domain earns by its log."""

    domain: str
    epsilon: float
    policies: list[EarnedOut]
    replayed: int
    """Slates of stored users that could be replayed."""
    present: ValueOut | None
    candidate: ValueOut | None
    comparison: ComparisonOut | None


class AliveOut(Answer):
    """The process answers."""

    status: Literal["alive"]


class LagOut(Answer):
    """A checkpoint that is wanted and not in service."""

    domain: str
    role: str
    checkpoint: str
    problem: str
    """Type of the problem with it."""


class ReadyOut(Answer):
    """Requests will be answered."""

    status: Literal["ready"]
    domains: list[str]
    checkpoints: list[str]
    """Checkpoints in service."""
    behind: list[LagOut] = []
    """What is wanted and could not be taken into service by this worker, which goes on with what it had."""


class TokenOut(Answer):
    """A token of a user. It is sent as `Authorization: Bearer`, as keys are."""

    token: str
    user_id: str
    expires_at: int
    """Unix seconds."""


class ActOut(Answer):
    """Something that was asked of an admin route."""

    at: float
    key_id: str | None
    """Of the key that asked; null for nobody who is known, on the command line, and for the service."""
    method: str
    """`COMMAND` for what was done on the command line, `SERVICE` for what the service did by itself."""
    route: str
    """The template, never what stood in its place."""
    request_id: str | None
    status: int | None
    """What the caller was told; null where it has begun, and nothing more is on record."""
    problem: str | None
    """Type of the problem, for what was refused."""


class AuditResponse(Answer):
    """The record of admin acts, newest first."""

    acts: list[ActOut]
    next_cursor: str | None

"""Bodies of answers to admins, as the OpenAPI document shows them: checkpoints, estimates, the audit."""

from typing import Literal

from app.api.answers import Out
from models.recommender import Role


class TrialOut(Out):
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
    trials: list[TrialOut] = []
    """Where it is on trial, at the worker that answers."""
    problem: str | None = None
    """Why it cannot be served, if it cannot."""


class DeploymentOut(Out):
    """What a reload or a rollback did."""

    domain: str
    role: Role
    checkpoint: str
    digest: str
    previous: str | None
    shadow: bool = False
    """It was put on trial, or taken off it: what serves is as it was."""


class EarnedOut(Out):
    """What one policy earned with the first places of the slates that it logged."""

    policy: str
    slates: int
    judged: int
    """Places with a reward, given or by default."""
    reward: float | None
    """Mean of a judged place."""


class EstimateOut(Out):
    """An estimate of the reward of a place."""

    estimator: Literal["ips", "snips", "dr"]
    clip: float | None
    """Largest weight of a place; null: any."""
    value: float
    low: float
    high: float


class ValueOut(Out):
    """What the log says of one policy."""

    estimates: list[EstimateOut]
    places: int
    """Replayed places with a reward and a valid propensity."""
    invalid_share: float
    """Share of the replayed places with a reward that have none."""
    effective_samples: float


class ComparisonOut(Out):
    """The candidate less what is in service, doubly robust."""

    difference: float
    low: float
    """Its lower bound at the confidence asked for."""
    effective_samples: float


class EvaluationResponse(Out):
    """What a domain earns by its log."""

    domain: str
    epsilon: float
    """Share of the places that the evaluated policies fill at random."""
    policies: list[EarnedOut]
    replayed: int
    """Slates of stored users that could be replayed."""
    present: ValueOut | None
    """The checkpoints in service; null where no place tells."""
    candidate: ValueOut | None
    comparison: ComparisonOut | None


class ActOut(Out):
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


class AuditResponse(Out):
    """The record of admin acts, newest first."""

    acts: list[ActOut]
    next_cursor: str | None

"""The blend: with what weights the parts of a domain are mixed, by how much is known of the user.

Two mixtures of the same parts. Ratings to expect come from the parts that rate; a part in the role `ranking`, whose
scores have no scale, may move them by a learnt slope. Lists are put in order by `ranking_weights`: all parts count.

Two schedules. The fixed one needs no data: content carries newcomers, the rest takes over as evidence comes in. A
`Blend` is learnt on validation users (`models.evaluation.blend`, `models.evaluation.ranking_blend`) and lives in
`blend.json` beside the checkpoints; it names the digests it was fitted on and says nothing about any other combination.
Where no mixture certainly did better than its best part, that part answers alone.

A transfer answers from what is known in other domains, so its weight goes by the amount of that too; and it has none
where it did not certainly help (`models.evaluation.transfer_guard`).
"""

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from models.recommender import Role, Scores

BUCKET_STARTS = (0, 1, 3, 5, 10, 20, 50)
"""Evidence buckets: 0, 1-2, 3-4, 5-9, 10-19, 20-49, 50 and more interactions."""
NON_CONTENT: tuple[Role, ...] = ("adaptive", "transfer", "collaborative")
"""Who gets what content leaves, in the fixed schedule: the first of these that is there."""
TIE_BREAK = 1e-6
"""Weight of ratings in the fixed schedule of rankings: they order what the ranking part finds alike."""


def fixed_schedule(roles: Sequence[Role], support_size: int, source_size: int | None = None) -> list[float]:
    """Weights of the parts with these roles, summing to 1, after `support_size` interactions.

    Content weighs 0.8 under 5 interactions, 0.5 from 5 to 19, 0.2 from 20 on; the rest goes to the adaptive part, else
    transfer, else collaborative. Parts that share a role share its weight; the only role there is gets everything. A
    part in the role `ranking` predicts no rating and gets nothing, nor does a transfer beside others where nothing is
    known that it could carry over (`source_size` 0).

    >>> fixed_schedule(["content", "collaborative", "adaptive"], 5)
    [0.5, 0.0, 0.5]
    >>> fixed_schedule(["collaborative"], 0)
    [1.0]
    """
    content = 0.8 if support_size < 5 else 0.5 if support_size < 20 else 0.2
    useful = [role for role in roles if role != "transfer" or source_size != 0]
    other = next((role for role in NON_CONTENT if role in useful), None)
    if other is None and "content" not in roles and "transfer" in roles:
        other = "transfer"
    if other is None:
        share: dict[Role, float] = {"content": 1.0}
    elif "content" not in roles:
        share = {other: 1.0}
    else:
        share = {"content": content, other: round(1 - content, 9)}
    return [share.get(role, 0.0) / list(roles).count(role) for role in roles]


def fixed_ranking(roles: Sequence[Role], support_size: int, source_size: int | None = None) -> list[float]:
    """Weights under which lists are put in order: those of the ratings, unless a part is there for just that.

    >>> fixed_ranking(["content", "ranking"], 5)
    [1e-06, 1.0]
    """
    weights = fixed_schedule(roles, support_size, source_size)
    if "ranking" not in roles:
        return weights
    return [1.0 if role == "ranking" else TIE_BREAK * weight for role, weight in zip(roles, weights, strict=True)]


class BlendPart(BaseModel):
    """One checkpoint of the mixture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    digest: str
    """The checkpoint's digest (sha256 of its digests.json)."""
    recommender: str


class Gain(BaseModel):
    """What a mixture was worth to validation users, as measured on those of them that its weights were not fitted on:
    beside its best part, or beside the same without a transfer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gain: float
    """How much better it is: RMSE saved in ratings, nats of likelihood of what people chose in lists."""
    low: float
    """One-sided 95 % lower bound of that (bootstrap over users). Where it is not above 0 nothing is mixed."""
    users: int
    """Validation users behind it."""


class Bucket(BaseModel):
    """Weights from `min_support` interactions on, up to the next bucket."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_support: int = Field(ge=0)
    min_source: int = Field(0, ge=0)
    """The least interactions in the domains that the transfer carries from; the bucket holds up to the next amount."""
    weights: list[float]
    """One per part, none negative: shares of 1 where the part rates; rating points per point of a ranking part."""
    centres: list[float] = []
    """One per part, what its scores are counted from: 0 where it rates. Empty: all 0."""
    ranking_weights: list[float] | None = None
    """One per part, none negative, per standard deviation of its scores of the user's catalogue; None: lists are
    ordered by the expected rating."""
    std_scale: float = Field(1.0, gt=0)
    """Factor on the mixed standard deviation that gives the mixture's own errors unit variance on validation."""
    gain: Gain | None = None
    """Of the ratings, beside the best part; None where too few validation users knew that much to measure it."""
    transfer_gain: Gain | None = None
    """In ratings; None where there is no transfer, or too few validation users knew that much to measure it."""
    transfer_ranking_gain: Gain | None = None
    """In lists."""


class Blend(BaseModel):
    """Learnt weights of one domain's parts per evidence bucket: what `blend.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[3] = 3
    domain: str
    parts: list[BlendPart] = Field(min_length=1)
    buckets: list[Bucket] = Field(min_length=1)
    """Ascending by `min_source`, then `min_support`; both begin at 0, and each amount of source has all of support."""

    @model_validator(mode="after")
    def _covers_every_support(self) -> Self:
        starts = [(bucket.min_source, bucket.min_support) for bucket in self.buckets]
        begun = {source for source, support in starts if support == 0}
        if starts[0] != (0, 0) or begun != {s for s, _ in starts} or any(a >= b for a, b in pairwise(starts)):
            raise ValueError("buckets must start at 0 and ascend")
        for bucket in self.buckets:
            lists = (bucket.weights, bucket.centres or bucket.weights, bucket.ranking_weights or bucket.weights)
            if any(len(values) != len(self.parts) for values in lists):
                raise ValueError("a bucket needs one weight and one centre per part")
            if (bucket.ranking_weights is None) != (self.buckets[0].ranking_weights is None):
                raise ValueError("either every bucket has ranking weights or none")
            if any(weight < 0 for weight in (*bucket.weights, *(bucket.ranking_weights or ()))):
                raise ValueError("weights must not be negative")
            shares = [w for w, part in zip(bucket.weights, self.parts, strict=True) if part.role != "ranking"]
            if shares and abs(sum(shares) - 1) > 1e-6:
                raise ValueError("the weights of a bucket's parts that rate must be shares of 1")
        return self

    @property
    def orders_lists(self) -> bool:
        """Whether lists have an order of their own; otherwise it is that of the expected ratings."""
        return self.buckets[0].ranking_weights is not None

    def applies_to(self, digests: Mapping[Role, str]) -> bool:
        """Whether the blend was fitted on exactly these checkpoints in these roles."""
        return {(part.role, part.digest) for part in self.parts} == set(digests.items())

    def bucket(self, support_size: int, source_size: int = 0) -> Bucket:
        """The bucket of a user with `support_size` interactions, and `source_size` where the transfer comes from."""
        return next(
            bucket
            for bucket in reversed(self.buckets)
            if bucket.min_source <= source_size and bucket.min_support <= support_size
        )

    @classmethod
    def load(cls, path: Path) -> "Blend":
        """Read `blend.json`. Raises OSError, or pydantic.ValidationError where it is not a blend of this format."""
        return cls.model_validate_json(path.read_bytes())

    def save(self, path: Path) -> None:
        """Write `blend.json`, all or nothing."""
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_text(self.model_dump_json(indent=2) + "\n")
        os.replace(aside, path)


def mix(scores: Sequence[Scores], weights: Tensor, centres: Tensor | None = None) -> Scores:
    """The mixture of the parts' scores, (B, N); `weights` and `centres` are (B, P), one column per part.

    Standard deviations are mixed linearly, which is exact when the parts err together (they see the same evidence, so
    they nearly do) and never too small otherwise. A part without one does not count in them.
    """
    mean = torch.zeros_like(scores[0].mean)
    for p, part in enumerate(scores):
        mean = mean + weights[:, p, None] * part.mean
    if centres is not None:
        mean = mean - (weights * centres).sum(1, keepdim=True)
    return Scores(mean, _mixed([s.std for s in scores], weights), _mixed([s.taste_std for s in scores], weights))


def per_score(weights: Tensor, means: Sequence[Tensor]) -> Tensor:
    """Ranking weights (B, P) per point of score, from weights per standard deviation.

    A part's scores (B, N) of a catalogue spread over more for one user than for another, and more the more is known.
    What orders a list is how far an item stands out for the user. Scores that are all the same order nothing.
    """
    spread = torch.stack([part.std(dim=1, correction=0) for part in means], dim=1)  # (B, P)
    return torch.where(spread > 1e-6, weights / spread.clamp(min=1e-6), 0)


def _mixed(stds: Sequence[Tensor | None], weights: Tensor) -> Tensor | None:
    """Weighted mean of the standard deviations that there are, (B, N); None where there are none."""
    known = [(weights[:, p, None], std) for p, std in enumerate(stds) if std is not None]
    if not known:
        return None
    total = torch.stack([weight for weight, _ in known]).sum(0)  # (B, 1)
    equal = torch.full_like(total, 1 / len(known))
    shares = [torch.where(total > 0, weight / total.clamp(min=1e-12), equal) for weight, _ in known]
    return torch.stack([share * std for share, (_, std) in zip(shares, known, strict=True)]).sum(0)

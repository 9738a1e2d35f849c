"""How a slate is chosen from the scores: the settings of the policies."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Policy = Literal["greedy", "epsilon_greedy", "ucb", "thompson", "lin_ucb", "lin_thompson"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

DEFAULT_EPSILON = 0.1
"""Of `epsilon_greedy`; the other policies mix nothing in unless told to."""

APPLIES: dict[str, tuple[Policy, ...]] = {
    "epsilon": ("epsilon_greedy", "ucb", "thompson", "lin_ucb", "lin_thompson"),
    "scale": ("ucb", "thompson", "lin_ucb", "lin_thompson"),
    "bonus": ("ucb",),
    "arms": ("thompson",),
    "prior_strength": ("thompson",),
    "samples": ("thompson", "lin_thompson"),
    "candidates": ("ucb", "thompson", "lin_ucb", "lin_thompson"),
}
"""The policies that a setting is for."""


class Exploration(BaseModel):
    """How the slate is chosen from the scores."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)

    policy: Policy = "greedy"
    epsilon: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    """Share of places filled with an item drawn uniformly from all that are open. Default: 0.1 for `epsilon_greedy`, 0
    for the others."""
    scale: Annotated[FiniteFloat, Field(ge=0, le=100)] = 1.0
    """Factor on the bonus (`ucb`, `lin_ucb`) or on the spread of the draws (`thompson`, `lin_thompson`)."""
    bonus: Literal["auto", "posterior", "count"] = "auto"
    """Of `ucb`: the standard deviation of the user's taste (`posterior`), or sqrt(2 ln N / n_i) (`count`); `auto` takes
    the first where the recommender has one."""
    arms: Literal["beta", "normal"] = "beta"
    """Of `thompson`: what is drawn from where the recommender has no posterior. `beta` is for rewards from 0 to 1."""
    prior_strength: Annotated[FiniteFloat, Field(gt=0, le=1e6)] = 10.0
    """Of `thompson`: how many rewards the recommender's score counts for, where it has no posterior."""
    samples: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Draws by which propensities are estimated (`thompson`, `lin_thompson`); 0 leaves them out."""
    candidates: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Items among which the policy chooses at most: half are those with the best scores, half those with the best
    scores once a bonus for having been shown little is added."""

    @model_validator(mode="after")
    def _settings_of_the_policy(self) -> "Exploration":
        for name in sorted(self.model_fields_set):
            if self.policy not in APPLIES.get(name, POLICIES):
                raise ValueError(f"{name} is no setting of this policy")
        return self

    @property
    def mixed_in(self) -> float:
        """Share of places that are filled uniformly at random."""
        if self.epsilon is not None:
            return self.epsilon
        return DEFAULT_EPSILON if self.policy == "epsilon_greedy" else 0.0

    @property
    def needs_arms(self) -> bool:
        """Whether the policy looks at what was shown before."""
        return self.policy not in ("greedy", "epsilon_greedy")

    @property
    def is_linear(self) -> bool:
        """Whether the policy learns a linear model of each arm."""
        return self.policy in ("lin_ucb", "lin_thompson")

    def parameters(self) -> dict[str, Any]:
        """The policy with its settings, defaults filled in, as they are logged."""
        settings = {name: getattr(self, name) for name, policies in APPLIES.items() if self.policy in policies}
        if "epsilon" in settings:
            settings["epsilon"] = self.mixed_in
        return {"policy": self.policy, **settings}


GREEDY = Exploration()

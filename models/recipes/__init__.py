"""Recipes: a recommender with the settings behind its published figures, and how they were chosen.

    recommender = "mf"                      name in the registry
    chosen = "60 trials of …"               how the settings were chosen; says so where they are the defaults
    learns_from_everyone = true             nothing is selected on validation users, so they are learnt from as well
    refits = true                           epochs are selected on validation users, then all users are learnt from

    [settings]                              those that differ from the defaults
    n_factors = 32

    [search.n_factors]                      what `warmstart tune` may try: low and high, or choices
    low = 8
    high = 64
    log = true

A recipe is named by its file; a recommender without a file has the recipe of its defaults.
"""

import tomllib
from importlib import resources
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.registry import RECOMMENDERS


class RecipeError(Exception):
    """A recipe that there is not, or that cannot be cooked."""


class Space(BaseModel):
    """The values that a search may try for one setting: a range (whole numbers where both ends are) or choices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Whether the range is searched evenly in the logarithm."""
    choices: list[Any] | None = None

    @model_validator(mode="after")
    def _is_a_range_or_choices(self) -> Self:
        ranged = self.low is not None and self.high is not None
        if ranged == (self.choices is not None) or (self.low is None) != (self.high is None):
            raise ValueError("give low and high, or choices")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError("low must be below high")
        if self.log and not (self.low is not None and self.low > 0):
            raise ValueError("a logarithmic range must be above 0")
        return self

    @property
    def whole(self) -> bool:
        """Whether the range is one of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class Recipe(BaseModel):
    """How to train one row of a results table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    recommender: str
    chosen: str = "The defaults; nothing was searched."
    learns_from_everyone: bool = False
    """No user is held out for selection: for recommenders whose fit has nothing to select."""
    refits: bool = False
    """Once epochs have been selected on users held out, it learns again from everybody, for as many. Beside rows that
    select nothing and learn from everybody at once, one that keeps a tenth of the users apart is at a disadvantage."""
    settings: dict[str, Any] = {}
    search: dict[str, Space] = Field({})

    @model_validator(mode="after")
    def _fits_the_recommender(self) -> Self:
        kind = RECOMMENDERS.get(self.recommender)
        if kind is None:
            raise ValueError(f"there is no recommender {self.recommender!r}; known are {', '.join(RECOMMENDERS)}")
        kind.Config.model_validate(self.settings)
        if unknown := set(self.search) - set(kind.Config.model_fields):
            raise ValueError(f"{self.recommender} has no setting {', '.join(sorted(unknown))}")
        return self


def load(name: str) -> Recipe:
    """The recipe of this name, or the defaults of the recommender of this name. Raises RecipeError."""
    file = resources.files(__name__) / f"{name}.toml"
    try:
        written = tomllib.loads(file.read_text()) if file.is_file() else {"recommender": name}
        return Recipe(name=name, **written)
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise RecipeError(f"recipe {name}: {error}") from error


def names() -> list[str]:
    """Names of the recipes that have a file."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))

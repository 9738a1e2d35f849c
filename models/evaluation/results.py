"""What an evaluation found, as plain JSON: `report.json`. Times live apart, in `timings.json`, because they are never
twice the same and everything else is.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from models.evaluation.significance import Interval

REQUIRED = ("random", "constant", "popularity", "bias", "bayes")
"""Rows without which no table says anything."""
BASELINES = ("bias", "bayes")
"""Whom every row is compared with, in pairs, where the protocol names nobody else."""


class Cell(BaseModel):
    """One recommender's figures in one group of questions."""

    model_config = ConfigDict(frozen=True)

    figures: dict[str, float]
    """Mean over seeds."""
    spread: dict[str, float] = {}
    """Standard deviation over seeds, where there are several."""
    against: dict[str, dict[str, Interval]] = {}
    """Baseline → figure → difference to it, over the same users."""


class Row(BaseModel):
    """One recommender in a table."""

    model_config = ConfigDict(frozen=True)

    name: str
    recommender: str
    """Name in the registry; empty for rows that are none of its recommenders."""
    settings: dict[str, Any] = {}
    chosen: str = ""
    seeds: list[int] = [0]
    epochs: list[int] = []
    """Epochs behind each seed's weights."""
    validation: dict[str, float] = {}
    """Metrics on validation users, first seed."""
    cells: dict[str, Cell]
    """Group → figures. Of a cross-domain report some may be missing, where a row sat fewer draws than others."""


class Report(BaseModel):
    """The tables of one evaluation. Making one with a required row or cell missing raises ValidationError."""

    model_config = ConfigDict(frozen=True)

    format_version: int = 1
    protocol: str
    description: str
    measure: str
    dataset: str
    dataset_fingerprint: str
    command: str
    """What makes it again."""
    groups: dict[str, tuple[int, int]]
    """Group → (users, questions)."""
    rows: list[Row]
    baselines: tuple[str, ...] = BASELINES
    """Whom every row is compared with."""
    notes: list[str] = []

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        names = [row.name for row in self.rows]
        if missing := [name for name in REQUIRED if name not in names]:
            raise ValueError(f"a report needs the rows {', '.join(missing)}")
        if len(set(names)) < len(names):
            raise ValueError("two rows of a report have the same name")
        for row in self.rows:
            partial = self.measure == "transfer" and row.name not in (*REQUIRED, *self.baselines) and row.cells
            if row.cells.keys() != self.groups.keys() and not (partial and row.cells.keys() < self.groups.keys()):
                raise ValueError(f"row {row.name} does not answer every group of questions")
        return self

    def row(self, name: str) -> Row:
        """The row of this name. Raises KeyError."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)


class Timing(BaseModel):
    """How long one row took, on the machine at hand."""

    model_config = ConfigDict(frozen=True)

    training_seconds: float | None = None
    """Mean over seeds; None for rows that learn nothing."""
    scoring_microseconds: float | None = None
    """To adapt to a user and score the whole catalogue, in batches of 128; the median of three batches."""


class Timings(BaseModel):
    """Times of all rows."""

    model_config = ConfigDict(frozen=True)

    device: str
    threads: int
    rows: dict[str, Timing]

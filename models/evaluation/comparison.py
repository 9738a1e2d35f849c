"""From measured rows to the rows of a report: figures, spread, and differences to the baselines in pairs.

One exam or several *draws* of it (other cold users, other training data, questions of the same names) make one table.
Over the training seeds of one draw the questions are the same, so totals are averaged; draws ask other questions, so
their totals stand side by side, and whoever is asked in several is resampled with all of them. A row that sat some of
the draws alone is compared on those.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.evaluation.exam import Exam
from models.evaluation.measure import Measured, Totals
from models.evaluation.results import Cell, Row
from models.evaluation.significance import Interval, paired_bootstrap, per_user
from models.recipes import Recipe

COMPARED = {
    "rating": ("rmse", "mae", "ndcg@5"),
    "ranking": ("ndcg@10", "ndcg@100", "recall@20", "recall@50"),
    "next_item": ("hit@10", "ndcg@10", "mrr"),
    "transfer": ("rmse", "mae", "ndcg@10", "list ndcg@10", "list recall@10"),
}
"""Figures that get a difference to the baselines."""


@dataclass
class Entry:
    """One row on its way into the table."""

    name: str
    recommender: str = ""
    recipe: Recipe | None = None
    epochs: list[int] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    microseconds: float | None = None
    seeds: list[int] = field(default_factory=list)
    measured: list[Mapping[str, Measured]] = field(default_factory=list)
    """Per seed: group → figures."""


Sat = tuple[Exam, Mapping[str, Entry]]
"""An exam and the entries that sat it."""


def compare(draws: Sequence[Sat], baselines: Sequence[str]) -> list[Row]:
    """Rows of draws whose groups have the same names, in the order in which the entries were added."""
    return [_row(name, [draw for draw in draws if name in draw[1]], baselines) for name in draws[0][1]]


def joined(parts: Sequence[list[Row]]) -> list[Row]:
    """Rows of the same names side by side: the cells of other groups of questions. The first part has all rows."""
    rows = []
    for row in parts[0]:
        same = [other for part in parts for other in part if other.name == row.name]
        cells = {group: cell for other in same for group, cell in other.cells.items()}
        epochs = [epoch for other in same for epoch in other.epochs]
        rows.append(row.model_copy(update={"cells": cells, "epochs": epochs}))
    return rows


def _row(name: str, draws: Sequence[Sat], baselines: Sequence[str]) -> Row:
    entries = [entries[name] for _, entries in draws]
    cells = {}
    for group in draws[0][0].groups:
        seeds = [measured[group.label] for entry in entries for measured in entry.measured]
        values = {figure: [m[figure].value for m in seeds] for figure in seeds[0]}
        cells[group.label] = Cell(
            figures={figure: round(statistics.fmean(v), 6) for figure, v in values.items()},
            spread={f: round(statistics.stdev(v), 6) for f, v in values.items()} if len(seeds) > 1 else {},
            against={
                baseline: _differences(name, baseline, draws, group.label)
                for baseline in baselines
                if baseline in draws[0][1] and baseline != name
            },
        )
    first = entries[0]
    recipe = first.recipe
    return Row(
        name=name,
        recommender=first.recommender,
        settings=recipe.settings if recipe else {},
        chosen=recipe.chosen if recipe else "",
        seeds=[seed for entry in entries for seed in entry.seeds],
        epochs=[epoch for entry in entries for epoch in entry.epochs],
        validation=first.validation,
        cells=cells,
    )


def _differences(name: str, baseline: str, draws: Sequence[Sat], label: str) -> dict[str, Interval]:
    measure = draws[0][0].measure
    found = {}
    for figure in COMPARED[measure]:
        pairs = [
            [_mean_totals([m[label] for m in entries[one].measured], figure) for one in (name, baseline)]
            for _, entries in draws
        ]
        systems, others = ([pair[side] for pair in pairs] for side in (0, 1))
        if None in systems or None in others:
            continue
        users = np.concatenate([_users(exam, label) for exam, _ in draws])
        system, other = (_concatenated([t for t in side if t is not None]) for side in (systems, others))
        _, system_totals, counts = per_user(users, system.totals, system.counts)
        _, other_totals, _ = per_user(users, other.totals, other.counts)
        interval = paired_bootstrap(system_totals, other_totals, counts, system.statistic)
        found[figure] = Interval(**{key: round(value, 6) for key, value in interval.model_dump().items()})
    return found


def _users(exam: Exam, label: str) -> np.ndarray:
    return next(group for group in exam.groups if group.label == label).users.numpy()


def _concatenated(draws: Sequence[Totals]) -> Totals:
    totals = np.concatenate([draw.totals for draw in draws])
    return Totals(totals, np.concatenate([draw.counts for draw in draws]), draws[0].statistic)


def _mean_totals(seeds: Sequence[Measured], figure: str) -> Totals | None:
    """Totals averaged over seeds; None where the row has no such figure."""
    if figure not in seeds[0]:
        return None
    totals = np.mean([measured[figure].totals for measured in seeds], axis=0)
    return Totals(totals, seeds[0][figure].counts, seeds[0][figure].statistic)

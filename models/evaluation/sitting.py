"""Sit an exam: train each recommender on what the protocol allows, put the questions, compare in pairs."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from models.blend import Blend, BlendPart
from models.datasets.dataset import Dataset
from models.evaluation.blend import fit_blend
from models.evaluation.exam import Exam
from models.evaluation.measure import Measured, Totals, measure
from models.evaluation.predictors import BlendPredictor, Constant, MostPopular, Predictor, Random, TrainedPredictor
from models.evaluation.results import BASELINES, Cell, Row, Timing
from models.evaluation.significance import Interval, paired_bootstrap, per_user
from models.evaluation.yardsticks import PlainBias
from models.recipes import Recipe
from models.recommender import FitOptions, Progress, no_progress
from models.training.train import VALIDATION_SHARE, Trained, train

COMPARED = {"rating": ("rmse", "mae", "ndcg@5"), "ranking": ("ndcg@10", "ndcg@100", "recall@20", "recall@50")}
"""Figures that get a difference to the baselines."""
PLAIN_BIAS = "bias (plain)"
BLEND = "blend"
TIMED_BATCH = 128

Save = Callable[[Recipe, int, Trained, Dataset], str]
"""Keeps what a recipe, a seed and a data set gave; returns its digest."""


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


class Sitting:
    """An exam in progress: rows are added one by one, `rows` compares them."""

    def __init__(
        self,
        exam: Exam,
        *,
        device: str = "cpu",
        deterministic: bool = False,
        progress: Progress = no_progress,
        save: Save | None = None,
    ) -> None:
        self.exam = exam
        self.device = device
        self.deterministic = deterministic
        self.progress = progress
        self.save = save
        self.entries: dict[str, Entry] = {}
        self.blends: dict[int, Blend] = {}
        self._trained: dict[tuple[str, int], Trained] = {}

    def add_simple_rows(self, seeds: Sequence[int]) -> None:
        """The rows that need no training: random, constant, and what stands for bias and popularity on their own."""
        training = self.exam.training
        for seed in seeds:
            self.add("random", Random(training, seed), seed)
        self.add("constant", Constant(training), 0)
        if self.exam.measure == "ranking":
            self.add("popularity", MostPopular(training), 0)
        elif len(training.schema.domains) == 1:
            self.add(PLAIN_BIAS, PlainBias(training), 0)

    def add_recipe(self, recipe: Recipe, seeds: Sequence[int]) -> None:
        """Train a recommender with each seed and put the questions to it."""
        if recipe.name == "popularity" and self.exam.measure == "ranking":
            return  # its row is the count of likes; a mean rating orders nothing where everything is liked
        for seed in seeds:
            trained = self._train(recipe, seed, held_out=False)
            predictor = TrainedPredictor(trained.recommender, trained.fitted.table)
            entry = self.add(recipe.name, predictor, seed)
            entry.recommender, entry.recipe = recipe.recommender, recipe
            entry.epochs.append(trained.fitted.report.epochs)
            entry.seconds.append(trained.seconds)
            entry.validation = entry.validation or {key: round(value, 6) for key, value in trained.metrics.items()}

    def add_blend(self, recipes: Sequence[Recipe], seeds: Sequence[int]) -> None:
        """The learnt blend of recipes that have been added: weights from validation users, parts as in their rows."""
        for seed in seeds:
            fitting, answering = [], []
            for recipe in recipes:
                final = self._train(recipe, seed, held_out=False)
                judged = self._train(recipe, seed, held_out=True)
                digest = (
                    self.save(recipe, seed, final, self.exam.training)
                    if self.save
                    else f"not kept: {recipe.name}, seed {seed}"
                )
                part = BlendPart(role=final.recommender.role, digest=digest, recommender=recipe.recommender)
                fitting.append((part, TrainedPredictor(judged.recommender, judged.fitted.table)))
                answering.append(TrainedPredictor(final.recommender, final.fitted.table))
            users = self.exam.validation_users
            if users is None:
                users = self.exam.training.split_users(VALIDATION_SHARE, seed)[1]
            blend = fit_blend(fitting, self.exam.training, users, self.exam.groups[0].domain, seed)
            self.blends[seed] = blend
            self.add(BLEND, BlendPredictor(blend, answering), seed)

    def add(self, name: str, predictor: Predictor, seed: int) -> Entry:
        """Put all questions to a predictor; several seeds of one name make one row."""
        entry = self.entries.setdefault(name, Entry(name))
        measured = {}
        for n, group in enumerate(self.exam.groups):
            self.progress(f"{name}, seed {seed}: answering", (n + 1) / len(self.exam.groups), {})
            measured[group.label] = measure(predictor, self.exam, group)
        entry.seeds.append(seed)
        entry.measured.append(measured)
        if entry.microseconds is None and predictor.ranks_catalogue:
            entry.microseconds = self._time(predictor)
        return entry

    def rows(self) -> list[Row]:
        """All rows with their differences to the baselines, in the order in which they were added."""
        return [self._row(entry) for entry in self.entries.values()]

    def timings(self) -> dict[str, Timing]:
        """How long each row took to train and to score."""
        return {
            name: Timing(
                training_seconds=statistics.fmean(entry.seconds) if entry.seconds else None,
                scoring_microseconds=entry.microseconds,
            )
            for name, entry in self.entries.items()
        }

    def _train(self, recipe: Recipe, seed: int, *, held_out: bool) -> Trained:
        """Train, once a recipe, seed and training set. `held_out`: no validation user is learnt from, whatever the
        recipe says."""
        everyone = recipe.learns_from_everyone and not held_out and self.exam.validation_users is None
        key = (f"{recipe.name}{' on everyone' if everyone else ''}", seed)
        if key not in self._trained:
            held = torch.empty(0, dtype=torch.long) if everyone else self.exam.validation_users

            def progress(stage: str, done: float, metrics: Mapping[str, float]) -> None:
                self.progress(f"{recipe.name}, seed {seed}: {stage}", done, metrics)

            self._trained[key] = train(
                recipe.recommender,
                recipe.settings,
                self.exam.training,
                FitOptions(seed=seed, device=self.device, progress=progress),
                held=held,
                deterministic=self.deterministic,
            )
        return self._trained[key]

    def _time(self, predictor: Predictor) -> float:
        """Microseconds a user, to adapt and to score every item."""
        group = self.exam.groups[-1]
        support = group.support.rows(torch.arange(min(TIMED_BATCH, len(group))))
        everything = (self.exam.data.items.domain == group.domain).nonzero().flatten()
        times = []
        for _ in range(4):
            started = time.perf_counter()
            predictor.scores(support, group.domain, everything)
            times.append((time.perf_counter() - started) / support.batch_size)
        return statistics.median(times[1:]) * 1e6

    def _row(self, entry: Entry) -> Row:
        cells = {}
        for group in self.exam.groups:
            seeds = [measured[group.label] for measured in entry.measured]
            values = {figure: [m[figure].value for m in seeds] for figure in seeds[0]}
            cells[group.label] = Cell(
                figures={figure: round(statistics.fmean(v), 6) for figure, v in values.items()},
                spread={f: round(statistics.stdev(v), 6) for f, v in values.items()} if len(seeds) > 1 else {},
                against={
                    baseline: self._differences(entry, self.entries[baseline], group.label, group.users.numpy())
                    for baseline in BASELINES
                    if baseline in self.entries and baseline != entry.name
                },
            )
        recipe = entry.recipe
        return Row(
            name=entry.name,
            recommender=entry.recommender,
            settings=recipe.settings if recipe else {},
            chosen=recipe.chosen if recipe else "",
            seeds=entry.seeds,
            epochs=entry.epochs,
            validation=entry.validation,
            cells=cells,
        )

    def _differences(self, entry: Entry, baseline: Entry, label: str, users: np.ndarray) -> dict[str, Interval]:
        found = {}
        for figure in COMPARED[self.exam.measure]:
            pair = [_mean_totals([m[label] for m in one.measured], figure) for one in (entry, baseline)]
            if pair[0] is None or pair[1] is None:
                continue
            system, other = pair[0], pair[1]
            _, system_totals, counts = per_user(users, system.totals, system.counts)
            _, other_totals, _ = per_user(users, other.totals, other.counts)
            interval = paired_bootstrap(system_totals, other_totals, counts, system.statistic)
            found[figure] = Interval(**{key: round(value, 6) for key, value in interval.model_dump().items()})
        return found


def _mean_totals(seeds: Sequence[Measured], figure: str) -> Totals | None:
    """Totals averaged over seeds; None where the row has no such figure."""
    if figure not in seeds[0]:
        return None
    totals = np.mean([measured[figure].totals for measured in seeds], axis=0)
    return Totals(totals, seeds[0][figure].counts, seeds[0][figure].statistic)

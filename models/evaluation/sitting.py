"""Sit an exam: train each recommender on what the protocol allows, put the questions, compare in pairs."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from models.blend import Blend, BlendPart
from models.datasets.dataset import Dataset
from models.evaluation.blend import ask, fit_blend
from models.evaluation.comparison import Entry
from models.evaluation.crossdomain import SourceBias, TargetOnly
from models.evaluation.exam import Exam
from models.evaluation.fits import FitKey, Fits
from models.evaluation.measure import measure
from models.evaluation.nextitem import NEAREST, NearestToSupport
from models.evaluation.predictors import (
    BlendPredictor,
    BlendRanking,
    Constant,
    MostPopular,
    Predictor,
    Random,
    TrainedPredictor,
)
from models.evaluation.results import Timing
from models.evaluation.yardsticks import PlainBias
from models.recipes import Recipe
from models.recommender import FitOptions, Progress, no_progress
from models.training.domains import only
from models.training.train import VALIDATION_SHARE, Trained, train

PLAIN_BIAS = "bias (plain)"
BLEND = "blend"
MOST_POPULAR = "popularity (count)"
ITEM_MEAN = "item mean (plain)"
SOURCE_BIAS = "item mean + source user bias"
TIMED_BATCH = 128

Save = Callable[[Recipe, int, Trained, Dataset], str]
"""Keeps what a recipe, a seed and a data set gave; returns its digest."""


def target_only(name: str) -> str:
    """Name of the row of a recipe that has learnt from the target alone."""
    return f"{name} (target only)"


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
        fits: Fits | None = None,
    ) -> None:
        self.exam = exam
        self.device = device
        self.deterministic = deterministic
        self.progress = progress
        self.save = save
        self.fits = fits
        self.entries: dict[str, Entry] = {}
        self.blends: dict[int, Blend] = {}
        self._trained: dict[tuple[str, int], Trained] = {}

    def add_simple_rows(self, seeds: Sequence[int]) -> None:
        """The rows that need no training: random, constant, and what stands for bias and popularity on their own."""
        training = self.exam.training
        for seed in seeds:
            self.add("random", Random(training, seed), seed)
        self.add("constant", Constant(training), 0)
        if self.exam.direction is not None:
            self.add(MOST_POPULAR, MostPopular(training), 0)
            self.add(ITEM_MEAN, SourceBias(training, self.exam.direction, with_user=False), 0)
            self.add(SOURCE_BIAS, SourceBias(training, self.exam.direction), 0)
        elif self.exam.ranks:
            self.add("popularity", MostPopular(training), 0)
            if NEAREST in self.exam.baselines:
                self.add(NEAREST, NearestToSupport(training), 0)
        elif len(training.schema.domains) == 1:
            self.add(PLAIN_BIAS, PlainBias(training), 0)

    def add_recipe(self, recipe: Recipe, seeds: Sequence[int]) -> None:
        """Train a recommender with each seed and put the questions to it."""
        if recipe.name == "popularity" and self.exam.ranks:
            return  # its row is the count of likes; a mean rating orders nothing where everything is liked
        for seed in seeds:
            trained = self._train(recipe, seed, held_out=False)
            predictor = TrainedPredictor(trained.recommender, trained.fitted.table)
            self._note(self.add(recipe.name, predictor, seed), recipe, trained)

    def add_target_only(self, recipe: Recipe, seeds: Sequence[int]) -> None:
        """Train a recommender on what happened in the target alone, and show it nothing else."""
        direction = self.exam.direction
        assert direction is not None
        alone = recipe.model_copy(update={"name": target_only(recipe.name)})
        for seed in seeds:
            trained = self._train(alone, seed, held_out=False, data=only(self.exam.training, direction.target))
            predictor = TrainedPredictor(trained.recommender, trained.fitted.table)
            shown = TargetOnly(predictor, self.exam.training.items.domain, direction.target)
            self._note(self.add(alone.name, shown, seed), alone, trained)

    def add_blend(self, recipes: Sequence[Recipe], seeds: Sequence[int], learnt: Sequence[int] = ()) -> None:
        """The learnt blend of recipes that have been added: weights from validation users, parts as in their rows.

        Each seed's fits leave other users out, so weights are learnt from those of all `seeds` and of `learnt` besides;
        not where the protocol names the users, who are the same then.
        """
        fitted = {seed: [self._part(recipe, seed) for recipe in recipes] for seed in dict.fromkeys([*seeds, *learnt])}
        domain, told = self.exam.groups[0].domain, {}
        for seed, parts in fitted.items():
            self.progress(f"{BLEND}, seed {seed}: asking validation users", 0.5, {})
            told[seed] = ask(parts, self.exam.training, self._validation_users(seed), domain, seed)
        for seed in seeds:
            finals = [self._train(recipe, seed, held_out=False) for recipe in recipes]
            parts = [
                (part.model_copy(update={"digest": self._digest(recipe, seed, final)}), judged)
                for recipe, final, (part, judged) in zip(recipes, finals, fitted[seed], strict=True)
            ]
            users = self._validation_users(seed)
            known = [told[seed]] if self.exam.validation_users is not None else list(told.values())
            lists = self.exam.ranks or self.save is not None  # nobody else reads their order
            blend = fit_blend(parts, self.exam.training, users, domain, seed, known, lists)
            self.blends[seed] = blend
            answering = [TrainedPredictor(final.recommender, final.fitted.table) for final in finals]
            mixed = BlendRanking if self.exam.measure == "ranking" else BlendPredictor
            self.add(BLEND, mixed(blend, answering), seed)

    def _part(self, recipe: Recipe, seed: int) -> tuple[BlendPart, Predictor]:
        """A part that has learnt from no validation user; it has no digest."""
        judged = self._train(recipe, seed, held_out=True)
        part = BlendPart(role=judged.recommender.role, digest="", recommender=recipe.recommender)
        return part, TrainedPredictor(judged.recommender, judged.fitted.table)

    def _digest(self, recipe: Recipe, seed: int, final: Trained) -> str:
        if self.save is None:
            return f"not kept: {recipe.name}, seed {seed}"
        return self.save(recipe, seed, final, self.exam.training)

    def _validation_users(self, seed: int) -> Tensor:
        if self.exam.validation_users is not None:
            return self.exam.validation_users
        return self.exam.training.split_users(VALIDATION_SHARE, seed)[1]

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

    def timings(self) -> dict[str, Timing]:
        """How long each row took to train and to score."""
        return {
            name: Timing(
                training_seconds=statistics.fmean(entry.seconds) if entry.seconds else None,
                scoring_microseconds=entry.microseconds,
            )
            for name, entry in self.entries.items()
        }

    def _note(self, entry: Entry, recipe: Recipe, trained: Trained) -> None:
        """Write down how a row was trained."""
        entry.recommender, entry.recipe = recipe.recommender, recipe
        entry.epochs.append(trained.fitted.report.epochs)
        entry.seconds.append(trained.seconds)
        entry.validation = entry.validation or {key: round(value, 6) for key, value in trained.metrics.items()}

    def _train(self, recipe: Recipe, seed: int, *, held_out: bool, data: Dataset | None = None) -> Trained:
        """Train, once a recipe, seed and training set. `held_out`: no validation user is learnt from, whatever the
        recipe says. `data`: another training set than the exam's."""
        kept_apart = data is None and self.exam.keeps_validation_apart
        if recipe.refits and not held_out and not kept_apart and data is None:
            return self._refit(recipe, seed)
        everyone = recipe.learns_from_everyone and not held_out and not kept_apart
        key = (f"{recipe.name}{' on everyone' if everyone else ''}", seed)
        if key not in self._trained:
            held = torch.empty(0, dtype=torch.long) if everyone else self.exam.validation_users
            self._trained[key] = self._fit(recipe, seed, self.exam.training if data is None else data, held)
        return self._trained[key]

    def _fit(self, recipe: Recipe, seed: int, data: Dataset, held: Tensor | None) -> Trained:
        """The fit that is kept, or a new one, which is kept then."""
        key = FitKey(
            recipe.recommender, recipe.settings, data, held, seed, self.exam.direction, deterministic=self.deterministic
        )
        if self.fits is not None and (kept := self.fits.find(key)) is not None:
            return kept

        def progress(stage: str, done: float, metrics: Mapping[str, float]) -> None:
            self.progress(f"{recipe.name}, seed {seed}: {stage}", done, metrics)

        trained = train(
            recipe.recommender,
            recipe.settings,
            data,
            FitOptions(seed=seed, device=self.device, progress=progress),
            held=held,
            direction=self.exam.direction,
            deterministic=self.deterministic,
        )
        if self.fits is not None:
            self.fits.keep(key, trained)
        return trained

    def _refit(self, recipe: Recipe, seed: int) -> Trained:
        """Select the epochs on validation users, then learn from everybody for as many."""
        selected = self._train(recipe, seed, held_out=True)
        again = Recipe(
            **{
                **recipe.model_dump(exclude={"refits"}),
                "settings": {**recipe.settings, "epochs": max(1, selected.fitted.report.epochs)},
                "learns_from_everyone": True,
            }
        )
        refitted = self._train(again, seed, held_out=False)
        return replace(refitted, metrics=selected.metrics, seconds=selected.seconds + refitted.seconds)

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

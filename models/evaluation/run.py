"""From a protocol's name and a list of recipes to a report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import torch

from models.blend import Blend
from models.datasets.dataset import Dataset
from models.evaluation.comparison import Sat, compare, joined
from models.evaluation.crossdomain import BETAS
from models.evaluation.exam import Exam
from models.evaluation.fits import Fits
from models.evaluation.protocols import PROTOCOLS, SHOTS, ProtocolOptions
from models.evaluation.results import REQUIRED, Report, Row, Timing, Timings
from models.evaluation.served import ServedPredictor
from models.evaluation.sitting import MOST_POPULAR, Save, Sitting, target_only
from models.recipes import Recipe, load
from models.recommender import Progress, no_progress
from models.registry import RECOMMENDERS
from models.training.domains import TransferSettings

SUPPORT_SETTING = "max_support"
"""The setting of recommenders whose training depends on how much support they practise with."""
SERVED = "service"
REDRAWN = ("itemcold",)
"""Protocols in which every seed draws questions anew, beside `crossdomain`: what a draw of items is like weighs more
than the seed of a training."""
NAMES = (*PROTOCOLS, "supportsize", "served")
TARGET_ONLY = "bayes"
"""Recipe that is trained on the target alone as well."""
CROSS_DOMAIN_ROWS = ("bayes_biases",)
"""Recipes that every cross-domain table has beside the required rows."""
CROSS_DOMAIN_BASELINES = ("bayes_biases", target_only(TARGET_ONLY), MOST_POPULAR)
ONE_DRAW = (
    "Rows of one draw take long to train and sat the first draw alone. Draws are not equally hard: "
    "such a row's differences to the baselines, on that draw, say more than its figures beside the mean of several."
)
TRAINED_ROWS = tuple(name for name in REQUIRED if name not in {"random", "constant"})


class EvaluationError(Exception):
    """An evaluation that was asked for and cannot be done."""


@dataclass(frozen=True)
class Plan:
    """What to evaluate and how."""

    protocol: str
    recommenders: Sequence[str]
    """Names of recipes; the required rows are added where they are not named."""
    seeds: Sequence[int] = (0,)
    repeat: Sequence[str] | None = None
    """Recipes that are trained with every seed, the others with the first only; None: all of them. Where a seed is a
    draw (`itemcold`, `crossdomain`) the others sit the first draw. The blend is shown with every seed where
    all its parts are, and learns its weights from the validation users of every seed anyhow."""
    blend: Sequence[str] = ()
    """Recipes whose learnt blend is a row of its own."""
    limit: int | None = None
    """Users asked in each group; all where None."""
    draws: Path | None = None
    draw_seed: int = 0
    source: str | None = None
    target: str | None = None
    betas: Sequence[float] = BETAS
    """Cross-domain: shares of the users of both domains that are cold, a group of questions each."""
    hidden: Sequence[float] = (0.0,)
    """Cross-domain: shares of the others whose identity is hidden, a group of questions each."""
    reference_draws: bool = False
    """Cross-domain: whether the cold are those whom the goals on Douban were set on."""
    device: str = "cpu"
    deterministic: bool = False
    base_url: str | None = None
    api_key: str | None = None
    settings: Mapping[str, Mapping[str, Any]] | None = None
    """Recipe → settings that replace those of its file."""
    command: str = ""
    """What the report says it was made by."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gives."""

    report: Report
    timings: Timings
    blends: dict[int, Blend]
    """Seed → learnt blend, where one was asked for."""


def evaluate(
    data: Dataset,
    plan: Plan,
    *,
    progress: Progress = no_progress,
    save: Save | None = None,
    fits: Fits | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Evaluation:
    """Train what the plan names, put the protocol's questions, compare. What is in `fits` is not trained again.

    Raises EvaluationError, DrawsError, RecipeError or ServedError for what whoever asked can put right.
    """
    if plan.protocol not in NAMES:
        raise EvaluationError(f"there is no protocol {plan.protocol!r}; known are {', '.join(NAMES)}")
    if plan.protocol == "served" and plan.base_url is None:
        raise EvaluationError("the served protocol needs the address of a running service")
    if plan.protocol == "crossdomain":
        return _cross_domains(data, plan, progress, fits)
    wanted = [*TRAINED_ROWS, *(name for name in plan.recommenders if name not in REQUIRED)]
    recipes = {name: _configured(load(name), plan) for name in dict.fromkeys([*wanted, *plan.blend])}
    how: dict[str, Any] = {"device": plan.device, "deterministic": plan.deterministic, "progress": progress}
    redrawn = plan.protocol in REDRAWN
    repeated = {*recipes} if plan.repeat is None else {*plan.repeat, *(TRAINED_ROWS if redrawn else ())}
    draws: list[Sat] = []
    blends: dict[int, Blend] = {}
    timed: dict[str, Timing] = {}
    for seeds in [[seed] for seed in plan.seeds] if redrawn else [plan.seeds]:
        first = [seed for seed in seeds if seed == plan.seeds[0]]
        exam = make_exam(data, plan, draw_seed=plan.draw_seed + (seeds[0] if redrawn else 0))
        sitting = Sitting(exam, save=save, fits=fits, **how)
        sitting.add_simple_rows(seeds)
        for name in wanted:
            for recipe in trained_for(recipes[name], plan.protocol):
                sitting.add_recipe(recipe, seeds if name in repeated else first)
        shown = seeds if repeated.issuperset(plan.blend) else first
        if plan.blend and shown:
            sitting.add_blend([recipes[name] for name in plan.blend], shown, learnt=seeds)
        if plan.base_url is not None:
            service = ServedPredictor(data, plan.base_url, api_key=plan.api_key, transport=transport)
            sitting.add(SERVED, service, seeds[0])
        draws.append((exam, sitting.entries))
        blends |= sitting.blends
        timed = timed or sitting.timings()
    exam = draws[0][0]
    notes = [ONE_DRAW] if redrawn and plan.repeat is not None else []
    report = Report(
        protocol=plan.protocol,
        description=f"{exam.description} {_draws(plan)}" if redrawn else exam.description,
        measure=exam.measure,
        dataset=data.name,
        dataset_fingerprint=data.fingerprint,
        command=plan.command,
        groups={group.label: (len(torch.unique(group.users)), len(group)) for group in exam.groups},
        rows=compare(draws, exam.baselines),
        baselines=exam.baselines,
        notes=[*notes, *(_blend_note(blend, seed, exam.measure == "ranking") for seed, blend in blends.items())],
    )
    return Evaluation(report, _timings(plan, timed), blends)


def _cross_domains(data: Dataset, plan: Plan, progress: Progress, fits: Fits | None) -> Evaluation:
    """Cold users drawn with each seed, at each beta and each share of hidden identities; a seed is that of a draw and
    of the training on it."""
    wanted = [*TRAINED_ROWS, *CROSS_DOMAIN_ROWS]
    wanted = list(dict.fromkeys([*wanted, *plan.recommenders]))
    recipes = [_directed(_configured(load(name), plan), plan) for name in wanted]
    alone = next(recipe for recipe in recipes if recipe.name == TARGET_ONLY)
    parts: list[list[Row]] = []
    exams: list[Exam] = []
    timed: dict[str, Timing] = {}
    for hidden, beta in product(plan.hidden, plan.betas):
        draws: list[Sat] = []
        for seed in plan.seeds:
            exam = make_exam(data, plan, beta=beta, hidden=hidden, draw_seed=plan.draw_seed + seed)
            how: dict[str, Any] = {"device": plan.device, "deterministic": plan.deterministic, "progress": progress}
            sitting = Sitting(exam, fits=fits, **how)
            sitting.add_simple_rows([seed])
            for recipe in recipes:
                if not draws or plan.repeat is None or recipe.name in (*TRAINED_ROWS, *CROSS_DOMAIN_ROWS, *plan.repeat):
                    sitting.add_recipe(recipe, [seed])
            sitting.add_target_only(alone, [seed])
            draws.append((exam, sitting.entries))
            timed = timed or sitting.timings()
        parts.append(compare(draws, CROSS_DOMAIN_BASELINES))
        exams.append(draws[0][0])
    report = Report(
        protocol=plan.protocol,
        description=f"{exams[0].description} {_draws(plan)}",
        measure=exams[0].measure,
        dataset=data.name,
        dataset_fingerprint=data.fingerprint,
        command=plan.command,
        groups={group.label: (len(torch.unique(group.users)), len(group)) for exam in exams for group in exam.groups},
        rows=joined(parts),
        baselines=CROSS_DOMAIN_BASELINES,
        notes=[] if plan.repeat is None else [ONE_DRAW],
    )
    return Evaluation(report, _timings(plan, timed), {})


def _draws(plan: Plan) -> str:
    n = len(plan.seeds)
    return "One draw." if n == 1 else f"{n} draws, figures are their mean."


def _directed(recipe: Recipe, plan: Plan) -> Recipe:
    """The recipe with the plan's domains, where its recommender goes from one to another."""
    if not issubclass(RECOMMENDERS[recipe.recommender].Config, TransferSettings):
        return recipe
    given = {name: value for name, value in (("source", plan.source), ("target", plan.target)) if value is not None}
    return recipe.model_copy(update={"settings": {**recipe.settings, **given}})


def _timings(plan: Plan, rows: dict[str, Timing]) -> Timings:
    device = torch.cuda.get_device_name() if plan.device.startswith("cuda") else "CPU"
    return Timings(device=device, threads=torch.get_num_threads(), rows=rows)


def make_exam(data: Dataset, plan: Plan, **options: Any) -> Exam:
    """The questions of a plan; `options` replace those of its protocol. Raises DrawsError where the data cannot answer
    them."""
    sat_as = "kshot" if plan.protocol in {"supportsize", "served"} else plan.protocol
    seed = options.pop("draw_seed", plan.draw_seed)
    known = {name: getattr(plan, name) for name in ("draws", "source", "target", "reference_draws")}
    exam = PROTOCOLS[sat_as](data, ProtocolOptions(seed=seed, **{**known, **options}))
    exam = replace(exam, protocol=plan.protocol)
    return exam if plan.limit is None else exam.limited(plan.limit, seed)


def trained_for(recipe: Recipe, protocol: str) -> list[Recipe]:
    """One recipe for each support size where the protocol is `supportsize` and training depends on it."""
    if protocol != "supportsize" or SUPPORT_SETTING not in RECOMMENDERS[recipe.recommender].Config.model_fields:
        return [recipe]
    return [
        recipe.model_copy(
            update={"name": f"{recipe.name}, trained on {k}", "settings": {**recipe.settings, SUPPORT_SETTING: k}}
        )
        for k in SHOTS
        if k > 0
    ]


def _configured(recipe: Recipe, plan: Plan) -> Recipe:
    given = (plan.settings or {}).get(recipe.name)
    if not given:
        return recipe
    chosen = f"Given on the command line over the recipe's: {json.dumps(dict(given), sort_keys=True)}."
    return Recipe(**{**recipe.model_dump(), "settings": {**recipe.settings, **given}, "chosen": chosen})


def _blend_note(blend: Blend, seed: int, lists: bool) -> str:
    """The weights that answered: those of lists, per standard deviation, or those of ratings."""
    names = ", ".join(part.recommender for part in blend.parts)
    shown = {bucket.min_support: (lists and bucket.ranking_weights) or bucket.weights for bucket in blend.buckets}
    weights = "; ".join(f"{start}+: {' / '.join(f'{w:.2f}' for w in row)}" for start, row in shown.items())
    return f"Weights of the blend ({names}), seed {seed}, from so many interactions on: {weights}."

"""`warmstart evaluate`, `tune` and `results`: which recommender is worth serving, and on how much evidence."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import __version__
from app.commands.terminal import fail, progress_bars, show
from app.commands.train import Device, TrainingError, parse_settings

if TYPE_CHECKING:
    from models.datasets.dataset import Dataset
    from models.evaluation.tables import Table
    from models.recipes import Recipe
    from models.training.train import Trained

app = typer.Typer()

USUAL_SEEDS = {"itemcold": 3, "crossdomain": 3}


@app.command("evaluate")
def evaluate_command(
    data: Annotated[Path, typer.Option(help="Data set folder.")],
    protocol: Annotated[
        str,
        typer.Option(
            help="kshot, melu, zeroshot, foldin, itemcold, time, loo, nextitem, crossdomain, supportsize, served."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to put the report into.")],
    recommenders: Annotated[
        str,
        typer.Option(
            help="Recipes or recommenders, with commas; popularity, bias, bayes are always there. Default: all."
        ),
    ] = "",
    blend: Annotated[str, typer.Option(help="Recipes whose learnt blend gets a row, with commas.")] = "",
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Seeds to train with, from 0 on. Default: 1; itemcold, crossdomain: 3 draws."),
    ] = None,
    repeat: Annotated[
        str | None,
        typer.Option(
            help="Recipes to train with every seed, with commas; the others take the first; crossdomain: one draw."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask so many users only: a quick look.")] = None,
    draws: Annotated[Path | None, typer.Option(help="File of published draws.")] = None,
    draw_seed: Annotated[int, typer.Option(help="Seed of the questions, where no draws are published.")] = 0,
    source: Annotated[str | None, typer.Option(help="crossdomain: domain that histories come from.")] = None,
    target: Annotated[str | None, typer.Option(help="crossdomain: domain that is asked about.")] = None,
    beta: Annotated[
        str, typer.Option(help="crossdomain: shares of the users of both domains that are cold, with commas.")
    ] = "0.2,0.5,0.8",
    hidden: Annotated[
        str, typer.Option(help="crossdomain: shares of the others whose identity is hidden, with commas.")
    ] = "0",
    reference_draws: Annotated[
        bool,
        typer.Option("--reference-draws", help="crossdomain: the cold whom the goals on Douban were set on."),
    ] = False,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="RECIPE.KEY=VALUE", help="A setting over the recipe's; may be repeated."),
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Keep the parts of the blend and blend.json in this folder, ready to serve.")
    ] = None,
    fits: Annotated[
        Path | None,
        typer.Option(help="Keep every fit in this folder and take it from there: a stopped evaluation goes on."),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Address of a running service that gets the same questions.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="WARMSTART_API_KEY", help="Its key, if it wants one.")] = None,
    device: Annotated[Device, typer.Option(help="Where to fit.")] = "cpu",
    deterministic: Annotated[bool, typer.Option(help="Refuse operations that may differ from run to run.")] = False,
) -> None:
    """Train recommenders and measure them on users, items or times that they have not seen."""
    from models.datasets.description import DatasetError
    from models.datasets.folder import read
    from models.evaluation.draws import DrawsError
    from models.evaluation.fits import Fits
    from models.evaluation.report import write
    from models.evaluation.run import EvaluationError, Plan, evaluate
    from models.evaluation.served import ServedError
    from models.evaluation.tables import tables
    from models.recipes import RecipeError

    usual_seeds = USUAL_SEEDS.get(protocol, 1)
    plan_options: dict[str, Any] = {
        "blend": _names(blend),
        "seeds": range(seeds or usual_seeds),
        "source": source,
        "target": target,
        "reference_draws": reference_draws,
        "repeat": None if repeat is None else _names(repeat),
        "limit": limit,
        "draws": draws,
        "draw_seed": draw_seed,
        "device": device if device != "auto" else _auto(),
        "deterministic": deterministic,
        "base_url": base_url,
        "api_key": api_key,
    }
    said = {
        "--data": data,
        "--protocol": protocol,
        "--recommenders": recommenders,
        "--blend": blend,
        "--source": source or "",
        "--target": target or "",
        "--beta": beta if protocol == "crossdomain" else "",
        "--hidden": hidden if protocol == "crossdomain" and hidden != "0" else "",
        "--reference-draws": reference_draws,
        "--seeds": seeds if seeds and seeds != usual_seeds else "",
        "--repeat": repeat or "",
        "--limit": limit or "",
        "--draws": draws or "",
        "--draw-seed": draw_seed or "",
        "--base-url": base_url or "",
        "--device": device if device != "cpu" else "",
    }
    try:
        settings = _settings(assignments or [])
        plan_options |= {"betas": _shares(beta, "--beta"), "hidden": _shares(hidden, "--hidden")}
        with progress_bars() as progress:
            found = read(data, progress)
            plan_options["recommenders"] = _names(recommenders) or usable(len(found.schema.domains))
            evaluation = evaluate(
                found,
                Plan(protocol=protocol, settings=settings, command=_command(said, assignments or []), **plan_options),
                progress=progress,
                save=None if checkpoints is None else _keeper(checkpoints),
                fits=None if fits is None else Fits(fits, __version__, plan_options["device"]),
            )
        write(evaluation.report, evaluation.timings, out)
        if checkpoints is not None:
            for seed, learnt in evaluation.blends.items():
                learnt.save(checkpoints / f"blend-{learnt.domain}-seed-{seed}.json")
    except (DatasetError, DrawsError, EvaluationError, RecipeError, ServedError, TrainingError, OSError) as error:
        raise fail(str(error)) from error
    shown = tables(evaluation.report)
    show(_grid(shown[0]), _grid(shown[-2]), f"The report is {out / 'report.html'}")


@app.command("tune")
def tune_command(
    recipe: Annotated[str, typer.Argument(help="Recipe with a search space, for example mf.")],
    data: Annotated[Path, typer.Option(help="Data set folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; the same command goes on where it was stopped.")],
    trials: Annotated[int, typer.Option(min=1, help="Finished trials to end with.")] = 30,
    protocol: Annotated[
        str | None, typer.Option(help="Search on what this protocol lets recommenders learn from; default: everything.")
    ] = None,
    draws: Annotated[Path | None, typer.Option(help="File of published draws.")] = None,
    draw_seed: Annotated[int, typer.Option(help="Seed of the questions, where no draws are published.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the search, of the validation users and of every fit.")] = 0,
    device: Annotated[Device, typer.Option(help="Where to fit.")] = "cpu",
) -> None:
    """Search a recipe's settings on validation users; nothing that an evaluation asks about is looked at."""
    from models.datasets.description import DatasetError
    from models.datasets.folder import read
    from models.evaluation.draws import DrawsError
    from models.evaluation.run import EvaluationError, Plan, make_exam
    from models.recipes import RecipeError, load
    from models.training.tune import TuneError, tune

    try:
        with progress_bars() as progress:
            found = read(data, progress)
            if protocol is not None:
                found = make_exam(found, Plan(protocol, [], draws=draws, draw_seed=draw_seed)).training
            best = tune(
                load(recipe),
                found,
                out,
                trials=trials,
                seed=seed,
                device=device if device != "auto" else _auto(),
                progress=progress,
            )
    except (DatasetError, DrawsError, EvaluationError, RecipeError, TuneError, OSError) as error:
        raise fail(str(error)) from error
    show(best.as_toml())


@app.command("results")
def results_command(
    reports: Annotated[Path, typer.Option(help="Folder of report.json files, each under a name of its own.")] = Path(
        "docs/results"
    ),
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/RESULTS.md"),
    figures: Annotated[
        Path | None, typer.Option(help="Page with a row for each recommender to write beside it.")
    ] = None,
) -> None:
    """Write the page of results from the reports that are kept, and a page of each report beside it."""
    from models.evaluation.cards import figures_page
    from models.evaluation.report import results_page, whole_reports

    try:
        out.write_text(results_page(reports))
        for name, page in whole_reports(reports).items():
            (reports / name).write_text(page)
        if figures is not None:
            figures.write_text(figures_page(reports))
    except (OSError, ValueError) as error:
        raise fail(str(error)) from error
    show(f"{out} is made of {reports}")


def usable(n_domains: int) -> list[str]:
    """The recommenders that can learn from so many domains: of one, none that carries from another."""
    from models.registry import RECOMMENDERS
    from models.training.domains import TransferSettings

    carrying = {name for name, kind in RECOMMENDERS.items() if issubclass(kind.Config, TransferSettings)}
    return [name for name in RECOMMENDERS if n_domains > 1 or name not in carrying]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _shares(text: str, option: str) -> list[float]:
    """Shares from `0.2,0.5`."""
    try:
        shares = [float(share) for share in _names(text)]
    except ValueError as error:
        raise TrainingError(f"{option} takes numbers with commas, not {text!r}.") from error
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise TrainingError(f"{option} takes shares between 0 and 1, not {text!r}.")
    return shares


def _settings(assignments: list[str]) -> dict[str, dict[str, Any]]:
    """Recipe → settings, from `recipe.key=value`."""
    settings: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        recipe, dot, rest = assignment.partition(".")
        if not dot or "=" in recipe:
            raise TrainingError(f"--set takes recipe.key=value, not {assignment!r}.")
        settings.setdefault(recipe, {}).update(parse_settings([rest]))
    return settings


def _command(said: dict[str, object], assignments: list[str]) -> str:
    """The command that makes the report again, without where it is put."""
    words = ["warmstart", "evaluate"]
    for option, value in said.items():
        if value is True:
            words += [option]
        elif value is not False and value != "":
            words += [option, str(value)]
    for assignment in assignments:
        words += ["--set", assignment]
    return shlex.join([*words, "--out", "DIR"])


def _keeper(folder: Path) -> "Callable[[Recipe, int, Trained, Dataset], str]":
    """Keeps parts of a blend as checkpoints, one folder each."""
    from models import checkpoint

    def keep(recipe: "Recipe", seed: int, trained: "Trained", data: "Dataset") -> str:
        path = folder / f"{data.name}-{recipe.name}-seed-{seed}"
        checkpoint.save(
            path,
            trained.recommender,
            trained.fitted,
            data,
            metrics=trained.metrics,
            seed=seed,
            fit_seconds=trained.seconds,
            code_version=__version__,
        )
        return checkpoint.verify(path)

    return keep


def _auto() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _grid(table: "Table") -> Any:
    from rich.table import Table as Grid

    grid = Grid(title=table.title, title_justify="left", caption=table.caption, caption_justify="left")
    for n, name in enumerate(table.header):
        grid.add_column(name, justify="left" if n == 0 else "right", no_wrap=True)
    for row in table.rows:
        grid.add_row(*row)
    return grid

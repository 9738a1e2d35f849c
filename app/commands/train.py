"""`warmstart train`: fit a recommender on a data set folder and keep it as a checkpoint."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import uuid4

import typer

from app import __version__
from app.commands.terminal import facts, fail, progress_bars, show

if TYPE_CHECKING:
    from models.checkpoint import Card, LearntThrough
    from models.datasets.dataset import Dataset
    from models.recommender import Progress

Device = Literal["auto", "cpu", "cuda"]

app = typer.Typer()


class TrainingError(Exception):
    """A training that was asked for and cannot be done; the message is a sentence for whoever asked."""


@dataclass(frozen=True)
class Kept:
    """A checkpoint that has just been trained."""

    path: Path
    digest: str
    metrics: dict[str, float]
    fit_seconds: float


@app.command("train")
def train_command(
    recommender: Annotated[str, typer.Argument(help="Name of the recommender, for example popularity.")],
    out: Annotated[Path, typer.Option(help="Folder of checkpoints to put this one into.")],
    data: Annotated[Path | None, typer.Option(help="Data set folder to learn from.")] = None,
    from_installation: Annotated[
        bool, typer.Option("--from-installation", help="Learn from what the running installation has stored.")
    ] = False,
    domain: Annotated[
        str | None, typer.Option(help="Domain to learn from alone, as if the data set had no other.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Domain that a transfer takes histories from.")] = None,
    target: Annotated[str | None, typer.Option(help="Domain that a transfer answers for.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recommender; may be repeated."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the checkpoint. Default: domain, recommender, date and digest.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split, of initial weights and of shuffling.")] = 0,
    device: Annotated[Device, typer.Option(help="Where to fit; auto takes a CUDA device where there is one.")] = "auto",
) -> None:
    """Fit a recommender and save it as a checkpoint."""
    from models.datasets.description import DatasetError
    from models.datasets.folder import read

    try:
        settings = parse_settings(assignments or []) | with_direction(recommender, source, target)
        check_settings(recommender, settings)
        if (data is None) != from_installation:
            raise TrainingError("give either --data DIR or --from-installation.")
        with _folder(data) as (folder, through), progress_bars() as progress:
            kept = train_checkpoint(
                recommender,
                settings,
                read(folder, progress),
                out,
                domain=domain,
                name=name,
                seed=seed,
                device=device,
                progress=progress,
                learnt_through=through,
            )
    except (TrainingError, DatasetError, OSError) as error:
        raise fail(str(error)) from error
    metrics = {name: f"{value:.4f}" for name, value in kept.metrics.items()}
    show(facts({"checkpoint": kept.path, "digest": kept.digest, "fitted in": f"{kept.fit_seconds:.1f} s", **metrics}))


@contextmanager
def _folder(data: Path | None) -> Iterator[tuple[Path, "LearntThrough | None"]]:
    """The data set folder to learn from; without one, an export of the installation that lives as long as the fit, and
    how far that goes."""
    if data is not None:
        yield data, None
        return
    from app.commands.exchange import run_on_installation
    from app.services.exchange import export

    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / "installation"
        moved = run_on_installation(
            "train --from-installation", lambda database, progress: export(database, folder, progress)
        )
        yield folder, moved.through


def parse_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Settings from `key=value`: a value that is JSON is that value, anything else is a string.

    >>> parse_settings(["epochs=3", "layers=[64, 32]", "penalty=trace"])
    {'epochs': 3, 'layers': [64, 32], 'penalty': 'trace'}
    """
    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise TrainingError(f"--set takes key=value, not {assignment!r}.")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    return settings


def with_direction(recommender: str, source: str | None, target: str | None) -> dict[str, str]:
    """Settings for where a transfer goes from and to. Raises TrainingError for a recommender that transfers nothing."""
    from models.registry import RECOMMENDERS
    from models.training.domains import TransferSettings

    given = {name: domain for name, domain in (("source", source), ("target", target)) if domain is not None}
    kind = RECOMMENDERS.get(recommender)
    if given and kind is not None and not issubclass(kind.Config, TransferSettings):
        raise TrainingError(f"{recommender} learns from all domains at once; --source and --target are for transfers.")
    return given


def check_domains(recommender: str, settings: Mapping[str, Any], data: "Dataset") -> None:
    """Raise TrainingError where a transfer cannot go between the domains of the data."""
    from models.registry import RECOMMENDERS
    from models.training.domains import Direction, TransferSettings

    config = RECOMMENDERS[recommender].Config.model_validate(dict(settings))
    if isinstance(config, TransferSettings):
        try:
            Direction.of(config, data.schema)
        except ValueError as error:
            raise TrainingError(f"{recommender} cannot be trained on {data.name}: {error}.") from error


def check_settings(recommender: str, settings: Mapping[str, Any]) -> None:
    """Raise TrainingError for a recommender that there is not, or settings that it does not take."""
    from pydantic import ValidationError

    from models.registry import RECOMMENDERS

    kind = RECOMMENDERS.get(recommender)
    if kind is None:
        raise TrainingError(f"there is no recommender {recommender!r}; known are {', '.join(sorted(RECOMMENDERS))}.")
    try:
        kind.Config.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"]) or "its settings"
        if first["type"] == "extra_forbidden":
            known = ", ".join(kind.Config.model_fields) or "none"
            raise TrainingError(f"{recommender} has no setting {setting!r}; its settings are {known}.") from error
        raise TrainingError(f"{recommender} does not take this value of {setting}: {first['msg']}.") from error


def train_checkpoint(
    recommender: str,
    settings: Mapping[str, Any],
    data: "Dataset",
    out: Path,
    *,
    domain: str | None = None,
    name: str | None = None,
    seed: int = 0,
    device: Device = "auto",
    progress: "Progress | None" = None,
    learnt_through: "LearntThrough | None" = None,
) -> Kept:
    """Fit `recommender` on `data`, or on one `domain` of it, and save it in the folder of checkpoints `out`.

    Its name there is `name`, or `<domain, or data set where it has several>-<recommender>-<date>-<digest>`.
    Raises TrainingError for anything that whoever asked can put right.
    """
    import torch

    from models import checkpoint
    from models.recommender import FitOptions, no_progress
    from models.training.train import VALIDATION_SHARE, train

    check_settings(recommender, settings)
    fingerprint, held = data.fingerprint, None
    if domain is not None:
        whole, data = data, _alone(data, domain)
        # Those that a fit on the whole holds apart, so that a blend finds users whom none of its parts has met.
        _, held = whole.split_users(VALIDATION_SHARE, seed)
    check_domains(recommender, settings, data)
    if name is not None and not re.fullmatch(r"\w[\w.-]*", name):
        raise TrainingError(f"{name!r} cannot name a checkpoint: use letters, digits, dots, dashes and underscores.")
    if name is not None and (out / name).exists():
        raise TrainingError(f"{out / name} exists; a checkpoint is never overwritten.")
    if len(torch.unique(data.interactions.users)) < 2:
        raise TrainingError(f"{data.name} has interactions of fewer than two users; there is nothing to learn from.")
    trained = train(
        recommender,
        settings,
        data,
        FitOptions(seed=seed, device=_resolved(device), progress=progress or no_progress),
        held=held,
    )
    aside = out / f".{uuid4().hex}"
    try:
        checkpoint.save(
            aside,
            trained.recommender,
            trained.fitted,
            data,
            metrics=trained.metrics,
            seed=seed,
            fit_seconds=trained.seconds,
            code_version=__version__,
            learnt_through=learnt_through,
            fingerprint=fingerprint,
        )
        card, digest = checkpoint.read_card(aside)
        path = out / (name or _default_name(card, digest))
        os.rename(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return Kept(path, digest, trained.metrics, trained.seconds)


def _alone(data: "Dataset", domain: str) -> "Dataset":
    """One domain of the data. Raises TrainingError where it has none of that name."""
    from models.training.domains import alone

    try:
        return alone(data, data.schema.domain_index(domain))
    except KeyError as error:
        known = ", ".join(spec.name for spec in data.schema.domains)
        raise TrainingError(f"{data.name} has no domain {domain!r}, only {known}.") from error


def _default_name(card: "Card", digest: str) -> str:
    about = re.sub(r"[^\w.-]+", "-", card.targets[0] if len(card.targets) == 1 else card.dataset).lstrip(".")
    return f"{about}-{card.recommender}-{datetime.now(UTC):%Y-%m-%d}-{digest[:8]}"


def _resolved(device: Device) -> str:
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise TrainingError("this machine has no CUDA device; use --device cpu or auto.")
    return "cuda" if device != "cpu" and available else "cpu"

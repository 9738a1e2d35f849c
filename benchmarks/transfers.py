"""How long transfers take: `python -m benchmarks.transfers --help`.

Each recommender that goes from one domain to another is fitted on everything with the settings of its recipe, and then
asked about people one at a time, as the service asks: adapt to all that is known of them, score the whole target. The
goals are minutes on one core and milliseconds. Seconds are CPU seconds where it says so: others may use the machine.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from app import __version__
from app.commands.terminal import fail, show
from models.datasets.dataset import Dataset
from models.datasets.description import DatasetError
from models.datasets.folder import read
from models.evaluation.fits import FitKey, Fits
from models.recipes import load
from models.recommender import FitOptions
from models.registry import RECOMMENDERS
from models.training.domains import Direction, TransferSettings, overlapping_users
from models.training.train import Trained, train

MOST_MINUTES, MOST_MILLISECONDS = 5, 20
ASKED = 50
"""People, one at a time."""


def transfers() -> list[str]:
    """Everything that goes from one domain to another."""
    return [name for name, kind in RECOMMENDERS.items() if issubclass(kind.Config, TransferSettings)]


def measure(name: str, data: Dataset, direction: Direction, fits: Fits | None, seed: int) -> str:
    """One line of the table."""
    trained = _fitted(name, data, direction, fits, seed)
    recommender, table = trained.recommender, trained.fitted.table
    everything = (table.domain == direction.target).nonzero().flatten()
    both = overlapping_users(data, direction)
    drawn = both[torch.randperm(len(both), generator=torch.Generator().manual_seed(seed))[:ASKED]]
    wall, cpu = [], []
    with torch.inference_mode():
        for user in (drawn[:1], *torch.split(drawn, 1)):  # the first one warms up
            evidence = data.evidence(user)
            started, busy = time.perf_counter(), time.process_time()
            recommender.score(recommender.adapt(evidence, table, direction.target), table, everything)
            wall.append(1e3 * (time.perf_counter() - started))
            cpu.append(1e3 * (time.process_time() - busy))
    middle, busiest = statistics.median(wall[1:]), max(cpu[1:])
    quick = trained.seconds <= 60 * MOST_MINUTES and statistics.median(cpu[1:]) <= MOST_MILLISECONDS
    return (
        f"{name:20} {trained.seconds:8.1f} {middle:10.2f} {statistics.median(cpu[1:]):10.2f} {busiest:10.2f}   "
        f"{'ok' if quick else 'TOO LONG'}"
    )


def _fitted(name: str, data: Dataset, direction: Direction, fits: Fits | None, seed: int) -> Trained:
    recipe = load(name)
    names = [domain.name for domain in data.schema.domains]
    settings = {**recipe.settings, "source": names[direction.source], "target": names[direction.target]}
    key = FitKey(recipe.recommender, settings, data, None, seed, direction)
    if fits is not None and (kept := fits.find(key)) is not None:
        return kept
    trained = train(recipe.recommender, settings, data, FitOptions(seed=seed), direction=direction)
    if fits is not None:
        fits.keep(key, trained)
    return trained


def main(
    data: Annotated[Path, typer.Option(help="Data set folder with two domains or more.")],
    source: Annotated[str | None, typer.Option(help="The domain that the transfer comes from.")] = None,
    target: Annotated[str | None, typer.Option(help="The domain that is asked about.")] = None,
    recommenders: Annotated[str, typer.Option(help="With commas; default: all that transfer.")] = "",
    fits: Annotated[Path | None, typer.Option(help="Folder of fits: what is there is not trained again.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Seconds to fit a transfer, milliseconds to answer one person."""
    torch.set_num_threads(1)
    try:
        whole = read(data)
        direction = Direction.named(whole.schema, source, target)
    except (DatasetError, OSError, ValueError) as error:
        raise fail(str(error)) from error
    here = int((whole.items.domain == direction.target).sum())
    names = [domain.name for domain in whole.schema.domains]
    show(
        f"{whole.name}: {names[direction.source]} to {names[direction.target]}, {len(whole.interactions)} events, "
        f"{here} items to score, one thread",
        f"{'':20} {'fit, s':>8} {'answer, ms':>10} {'CPU, ms':>10} {'worst':>10}",
    )
    kept = None if fits is None else Fits(fits, __version__)
    wanted: Sequence[str] = recommenders.split(",") if recommenders else transfers()
    for name in wanted:
        show(measure(name, whole, direction, kept, seed))


if __name__ == "__main__":
    typer.run(main)

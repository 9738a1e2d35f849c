"""What is exploration worth? `python -m benchmarks.simulator --data DIR --out DIR`; see `--help`.

Policies run through seasons of a simulated world (`truth`, `season`) against the real service (`play`). What is done is
kept in the folder, a file for each season and policy, so that a run may be stopped and go on, and the table and plots
(`report`) are made from all files there are.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

import torch

from app.engine.policies.settings import Exploration
from benchmarks.simulator import report, truth
from benchmarks.simulator.play import POLICIES, Curve, play, prepare
from benchmarks.simulator.season import SETTINGS, Season
from benchmarks.simulator.truth import Truth
from models.datasets.folder import read


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="regret, reward and coverage of policies in a world with known truth")
    parser.add_argument("--data", type=Path, required=True, help="folder of movielens-1m, which the world is fitted on")
    parser.add_argument("--out", type=Path, required=True, help="where what was done is kept")
    parser.add_argument("--setting", choices=SETTINGS, default="opening", help="what sort of season")
    parser.add_argument("--rounds", type=int, default=10_000, help="requests of a season")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)), help="seasons")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES), metavar="POLICY")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    folder: Path = arguments.out / f"{arguments.setting}-{arguments.rounds}"
    folder.mkdir(parents=True, exist_ok=True)
    run(arguments.data, arguments.out, folder, arguments)
    report.make(folder, arguments.setting, arguments.rounds)


def run(data_folder: Path, out: Path, folder: Path, arguments: argparse.Namespace) -> None:
    """Play what has not been played yet."""
    wanted = {
        seed: [name for name in arguments.policies if not path(folder, seed, name).exists()] for seed in arguments.seeds
    }
    if not any(wanted.values()):
        return
    data = read(data_folder)
    world = out / "world.npz"
    if not world.exists():
        truth.fit(data).save(world)
    known = Truth.load(world)
    for seed, names in wanted.items():
        if not names:
            continue
        season = Season.draw(data, known, SETTINGS[arguments.setting], arguments.rounds, seed)
        checkpoints = out / "checkpoints" / f"{arguments.setting}-{seed}"
        prepare(season, checkpoints, seed)
        asyncio.run(together(season, names, checkpoints, seed, folder))


async def together(season: Season, names: Sequence[str], checkpoints: Path, seed: int, folder: Path) -> None:
    """Policies through one season, at the same time."""

    starting = asyncio.Lock()

    async def one(name: str) -> None:
        curve = await play(season, Exploration.model_validate(POLICIES[name]), checkpoints, seed, starting)
        keep(path(folder, seed, name), curve)

    await asyncio.gather(*[one(name) for name in names])


def path(folder: Path, seed: int, policy: str) -> Path:
    """Where a policy's season is kept."""
    return folder / f"{seed}-{policy}.json"


def keep(target: Path, curve: Curve) -> None:
    """Whole or not at all."""
    aside = target.with_suffix(".part")
    aside.write_text(curve.model_dump_json() + "\n")
    aside.replace(target)


if __name__ == "__main__":
    main()

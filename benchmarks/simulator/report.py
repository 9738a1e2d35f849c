"""What policies did over the seasons: a table with intervals, the same as JSON, and plots."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import t

from benchmarks.simulator.play import POINT, Curve
from models.evaluation.plots import svg

LEVEL = 0.95
LATE = 0.1
"""Share of the rounds, the last ones, that are told apart: where a policy has come to."""
BASELINE = "greedy"

Curves = Mapping[str, Mapping[int, Curve]]
"""Policy → seed → what it did."""


@dataclass(frozen=True)
class Interval:
    """A mean over seasons with its Student interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Interval":
        """Of one value a season, two seasons at least."""
        half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
        mean = float(values.mean())
        return cls(mean, mean - half, mean + half)

    def told(self, sign: str = "") -> str:
        """With four decimals."""
        return f"{self.mean:{sign}.4f} [{self.low:{sign}.4f}, {self.high:{sign}.4f}]"


def read(folder: Path) -> Curves:
    """All that was kept."""
    found: dict[str, dict[int, Curve]] = {}
    for file in sorted(folder.glob("*-*.json")):
        seed, _, policy = file.stem.partition("-")
        found.setdefault(policy, {})[int(seed)] = Curve.model_validate_json(file.read_text())
    return found


def make(folder: Path, setting: str, rounds: int) -> None:
    """Print the table, and write `report.json`, `regret.svg` and `coverage.svg`."""
    curves = read(folder)
    lines, figures = table(curves)
    print(f"{setting}: seasons of {rounds:,} rounds; a place, with 95 % intervals over the seasons")
    print("\n".join(lines))
    (folder / "report.json").write_text(json.dumps(figures, indent=2) + "\n")
    (folder / "regret.svg").write_text(plot(curves, cumulative_regret, "regret so far, rewards a place"))
    (folder / "coverage.svg").write_text(plot(curves, lambda curve: np.array(curve.shown), "share of films shown"))


def table(curves: Curves) -> tuple[list[str], list[dict[str, object]]]:
    """(lines for people, the same for programs), least regret first. Policies with one season are left out."""
    lines = [
        f"{'policy':20} {'seasons':>7} {'regret':26} {'less greedy':29} "
        f"{'late':>6} {'reward':>6} {'shown':>5} {'new':>5}"
    ]
    rows: list[dict[str, object]] = []
    known = {policy: seasons for policy, seasons in curves.items() if len(seasons) > 1}
    for policy in sorted(known, key=lambda name: np.mean([np.mean(c.regret) for c in known[name].values()])):
        seasons = known[policy]
        regret = Interval.of(np.array([np.mean(curve.regret) for curve in seasons.values()]))
        late = float(np.mean([np.mean(curve.regret[-round(LATE * len(curve.regret)) :]) for curve in seasons.values()]))
        reward = float(np.mean([np.mean(curve.reward) for curve in seasons.values()]))
        shown = float(np.mean([curve.shown[-1] for curve in seasons.values()]))
        new = float(np.mean([curve.new_shown[-1] for curve in seasons.values()]))
        less = less_greedy(seasons, known.get(BASELINE, {})) if policy != BASELINE else None
        line = f"{policy:20} {len(seasons):7} {regret.told():26} {less.told('+') if less else '':29}"
        lines.append(f"{line} {late:6.4f} {reward:6.4f} {shown:5.2f} {new:5.2f}")
        told: dict[str, object] = {"policy": policy, "seasons": len(seasons), "regret": vars(regret)}
        told |= {"less_greedy": less and vars(less), "late_regret": late, "reward": reward}
        rows.append(told | {"shown": shown, "new_shown": new})
    return lines, rows


def less_greedy(seasons: Mapping[int, Curve], greedy: Mapping[int, Curve]) -> Interval | None:
    """Regret beyond greedy's of the same seasons; None where they have fewer than two in common."""
    both = sorted(seasons.keys() & greedy.keys())
    if len(both) < 2:
        return None
    return Interval.of(np.array([np.mean(seasons[seed].regret) - np.mean(greedy[seed].regret) for seed in both]))


def cumulative_regret(curve: Curve) -> NDArray[np.float64]:
    """At the end of each point."""
    total: NDArray[np.float64] = POINT * np.cumsum(curve.regret)
    return total


def plot(curves: Curves, what: Callable[[Curve], NDArray[np.float64]], label: str) -> str:
    """Means over the seasons by round, with the intervals as bands."""

    def draw(axes: Axes) -> None:
        for policy, seasons in curves.items():
            values = np.stack([what(curve) for curve in seasons.values()])  # (S, points)
            x, mean = POINT * np.arange(1, values.shape[1] + 1), values.mean(0)
            (line,) = axes.plot(x, mean, label=policy, linewidth=1)
            if len(values) > 1:
                half = t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(0, ddof=1) / np.sqrt(len(values))
                axes.fill_between(x, mean - half, mean + half, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set_xlabel("rounds")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)

    return svg(draw)

"""The simulated world: its truth, its seasons, and policies in it against the real service, for some hundred rounds."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from benchmarks.simulator import report, truth
from benchmarks.simulator.__main__ import keep, path, together
from benchmarks.simulator.play import POINT, Curve, prepare
from benchmarks.simulator.season import PLACES, Season, Setting
from benchmarks.simulator.truth import Truth
from tests.laws.world import World, make_world

ROUNDS = 400
SMALL = {
    "opening": Setting(n_first=30, n_new=20, n_history=0, n_visitors=100),
    "settled": Setting(n_first=50, n_new=0, n_history=80, n_visitors=100),
}


@pytest.fixture(scope="module")
def world() -> World:
    """80 films, people with tastes, and the truth about both."""
    return make_world(1)


@pytest.fixture(scope="module")
def known(world: World) -> Truth:
    """The world of the laws, taken for MovieLens."""
    return truth.fit(world.data, min_ratings=5)


@pytest.fixture(scope="module")
def seasons(world: World, known: Truth) -> dict[str, Season]:
    """One of each setting."""
    return {name: Season.draw(world.data, known, setting, ROUNDS, 0) for name, setting in SMALL.items()}


def test_a_film_is_worth_what_its_ratings_are_in_the_mean(known: Truth) -> None:
    liking = np.repeat(np.array([[-1.0, 1.2, 3.3, 4.4, 6.0]], np.float32), 40_000, axis=0)
    given = (known.ratings(liking, np.random.default_rng(0)) - 1) / 4
    error = given.std(0) / np.sqrt(len(given)) + 1e-4
    assert (abs(given.mean(0) - known.worth(liking[0])) < 5 * error).all()


def test_the_world_is_what_was_saved(known: Truth, tmp_path: Path) -> None:
    known.save(tmp_path / "world.npz")
    again = Truth.load(tmp_path / "world.npz")
    assert again.noise == known.noise
    assert (again.liking(np.arange(5), np.arange(7)) == known.liking(np.arange(5), np.arange(7))).all()


def test_a_season_is_its_seed_s(world: World, known: Truth, seasons: dict[str, Season]) -> None:
    """The same again under the same seed; visitors and the people behind the checkpoint are different ones."""
    season = seasons["settled"]
    again = Season.draw(world.data, known, SMALL["settled"], ROUNDS, 0)
    assert (again.ratings == season.ratings).all()
    assert (again.arrivals == season.arrivals).all()
    assert season.history is not None
    assert again.history is not None
    assert again.history.fingerprint == season.history.fingerprint
    other = Season.draw(world.data, known, SMALL["settled"], ROUNDS, 1)
    assert other.films.ids != season.films.ids
    assert set(season.history.items.ids) == set(season.films.ids[: season.n_first])
    assert sorted(season.arrivals[:100].tolist()) == list(range(100))


@pytest.mark.parametrize("setting", SMALL)
def test_policies_earn_what_the_truth_says(setting: str, seasons: dict[str, Season], tmp_path: Path) -> None:
    """Nobody does better than the best there is; chance shows everything; new films are shown once they are there; and
    where films are known, or can be got to know, going by that beats chance."""
    season = seasons[setting]
    prepare(season, tmp_path / "checkpoints", 0)
    names = ("random", "greedy", "thompson")
    asyncio.run(together(season, names, tmp_path / "checkpoints", 0, tmp_path))
    curves = {name: seasons[0] for name, seasons in report.read(tmp_path).items()}
    assert curves.keys() == set(names)
    for curve in curves.values():
        assert len(curve.regret) == ROUNDS // POINT
        assert min(curve.regret) >= 0
        assert max(curve.reward) <= season.worth.max()
        assert curve.new_shown[: ROUNDS // POINT // 2] == [0, 0]
    assert curves["random"].shown[-1] == 1
    assert curves["random"].new_shown[-1] == (setting == "opening")
    # Random slates of all films earn their mean; some films have been rated by then, and the best ones no more often.
    assert np.mean(curves["random"].reward[-1:]) == pytest.approx(season.worth.mean(), abs=0.03)
    better = "thompson" if setting == "opening" else "greedy"
    assert np.mean(curves[better].regret) < np.mean(curves["random"].regret)


def test_the_table_tells_seasons_apart_from_chance(tmp_path: Path) -> None:
    """Greedy and another one in three seasons: .1 more regret in each, up to .01; kept, read, told and plotted."""
    for seed, (base, more) in enumerate([(0.3, 0.1), (0.5, 0.11), (0.4, 0.09)]):
        for name, regret in (("greedy", base), ("random", base + more)):
            points = [regret] * 4
            curve = Curve(regret=points, reward=points, shown=points, new_shown=points)
            keep(path(tmp_path, seed, name), curve)
    lines, rows = report.table(report.read(tmp_path))
    assert [row["policy"] for row in rows] == ["greedy", "random"]
    less = rows[1]["less_greedy"]
    assert isinstance(less, dict)
    # Student's t of 2 degrees of freedom is 4.303 at 97.5 %; s / sqrt(3) is .01 / sqrt(3).
    assert less["mean"] == pytest.approx(0.1)
    assert less["high"] - less["mean"] == pytest.approx(4.303 * 0.01 / np.sqrt(3), rel=1e-3)
    assert "+0.1000 [+0.0752, +0.1248]" in lines[2]
    report.make(tmp_path, "opening", 4 * POINT)
    assert (tmp_path / "regret.svg").read_text().startswith("<?xml")


def test_places_are_rated_at_random(seasons: dict[str, Season]) -> None:
    assert seasons["opening"].rates.shape == (ROUNDS, PLACES)
    assert seasons["opening"].rates.mean() == pytest.approx(0.5, abs=0.06)

"""The search of settings: goes on after a kill, proposes the same again, and looks at validation users only."""

import signal
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from models.datasets.dataset import Dataset
from models.recipes import Recipe, Space
from models.training.tune import STUDY_FILE, TuneError, tune
from tests.models.cinema import read_cinema, write_cinema

RECIPE = Recipe(name="popularity", recommender="popularity", search={"reg": Space(low=0.5, high=50.0, log=True)})
COMMAND = [sys.executable, "-c", "from app.commands.evaluate import app; app()", "tune", "popularity"]


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_cinema(tmp_path_factory.mktemp("data") / "cinema")


def study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="popularity", storage=RDBStorage(f"sqlite:///{folder / STUDY_FILE}"))


def finished(folder: Path) -> list[dict[str, float]]:
    """Settings of the trials that have an outcome."""
    return [trial.params for trial in study(folder).get_trials(states=[TrialState.COMPLETE])]


def n_finished(folder: Path) -> int:
    """How many of them there are, read past the library: the search may be making its tables just now."""
    try:
        with sqlite3.connect(f"file:{folder / STUDY_FILE}?mode=ro", uri=True) as database:
            return int(database.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
def test_a_search_killed_in_the_middle_goes_on_to_the_trials_it_was_asked_for(tmp_path: Path) -> None:
    data = write_cinema(tmp_path / "cinema")
    command = [*COMMAND, "--data", str(data), "--out", str(tmp_path / "study"), "--trials"]
    endless = subprocess.Popen([*command, "1000000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while n_finished(tmp_path / "study") < 3:
            with suppress(subprocess.TimeoutExpired):
                pytest.fail(f"the search ended by itself with {endless.wait(timeout=0.1)}")
    finally:
        endless.kill()
    assert endless.wait() == -signal.SIGKILL
    before = finished(tmp_path / "study")
    wanted = len(before) + 2
    subprocess.run([*command, str(wanted)], check=True, capture_output=True, timeout=120)
    after = finished(tmp_path / "study")
    assert len(after) == wanted
    assert after[: len(before)] == before
    best = tomllib.loads((tmp_path / "study" / "best.toml").read_text())
    assert best["recommender"] == "popularity"
    assert best["settings"]["reg"] in [trial["reg"] for trial in after]


def test_an_interrupted_search_proposes_what_an_unbroken_one_proposes(cinema: Dataset, tmp_path: Path) -> None:
    tune(RECIPE, cinema, tmp_path / "unbroken", trials=4, seed=2)
    tune(RECIPE, cinema, tmp_path / "broken", trials=2, seed=2)
    tune(RECIPE, cinema, tmp_path / "broken", trials=4, seed=2)
    assert finished(tmp_path / "broken") == finished(tmp_path / "unbroken")


def test_the_best_is_the_trial_that_errs_least_on_validation_users(cinema: Dataset, tmp_path: Path) -> None:
    best = tune(RECIPE, cinema, tmp_path, trials=4)
    values = {trial.value: trial.params for trial in study(tmp_path).get_trials()}
    assert best.value == min(value for value in values if value is not None)
    assert best.settings == values[best.value]
    assert 0.5 <= best.settings["reg"] <= 50


def test_trials_of_two_searches_are_never_mixed(cinema: Dataset, tmp_path: Path) -> None:
    tune(RECIPE, cinema, tmp_path, trials=1)
    with pytest.raises(TuneError, match="another recipe"):
        tune(RECIPE, cinema, tmp_path, trials=2, seed=7)


def test_a_setting_that_cannot_be_trained_is_a_failed_trial_not_the_end(cinema: Dataset, tmp_path: Path) -> None:
    broken = RECIPE.model_copy(update={"search": {"reg": Space(choices=[-1.0, 5.0])}})
    best = tune(broken, cinema, tmp_path, trials=6)
    assert best.settings == {"reg": 5.0}
    states = {trial.state for trial in study(tmp_path).get_trials()}
    assert states == {TrialState.COMPLETE, TrialState.FAIL}


def test_a_recipe_without_a_search_space_is_refused(cinema: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TuneError, match="search"):
        tune(Recipe(name="bias", recommender="bias"), cinema, tmp_path, trials=1)

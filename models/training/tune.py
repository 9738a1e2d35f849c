"""Search a recipe's settings on validation users (Akiba et al., "Optuna", KDD 2019).

Each trial trains with settings that the sampler proposes and is judged by the loss on users that no trial learns from.
Trials are kept in a file as they finish, so a search that was killed goes on where it stopped when it is called again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from models.datasets.dataset import Dataset
from models.recipes import Recipe, Space
from models.recommender import FitOptions, Progress, no_progress
from models.training.train import train
from models.training.validation import loss

STUDY_FILE = "study.db"
BEST_FILE = "best.toml"


class TuneError(Exception):
    """A search that cannot be done."""


@dataclass(frozen=True)
class Best:
    """What a search found."""

    recipe: str
    recommender: str
    settings: dict[str, Any]
    """All that the recipe sets, the searched ones at their best values."""
    value: float
    """RMSE on validation users; 1 - NDCG@100 where recommenders are judged by their lists."""
    trials: int

    def as_toml(self) -> str:
        """The beginning of a recipe file."""
        lines = [
            f'recommender = "{self.recommender}"',
            f'chosen = "Best of {self.trials} trials of warmstart tune, validation loss {self.value:.4f}."',
            "",
            "[settings]",
            *(f"{name} = {json.dumps(value)}" for name, value in sorted(self.settings.items())),
        ]
        return "\n".join(lines) + "\n"


def tune(
    recipe: Recipe,
    data: Dataset,
    out: Path,
    *,
    trials: int,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> Best:
    """Search until `trials` trials have finished, those of earlier calls with the same `out` included.

    Writes `best.toml` beside the study. A trial whose fit fails counts as finished, and is never the best. Raises
    TuneError where the recipe has nothing to search, nothing can be measured, or `out` holds another search.
    """
    if not recipe.search:
        raise TuneError(f"recipe {recipe.name} has no [search] table")
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = RDBStorage(f"sqlite:///{(out / STUDY_FILE).absolute()}")
    study = optuna.create_study(storage=storage, study_name=recipe.name, direction="minimize", load_if_exists=True)
    _check_same_search(study, recipe, data, seed)
    while (done := len(_finished(study))) < trials:
        # Proposals follow from the seed and the trials so far, however often the search was interrupted.
        study.sampler = optuna.samplers.TPESampler(seed=seed * 10_007 + done)
        trial = study.ask()
        settings = {**recipe.settings, **{name: _propose(trial, name, s) for name, s in recipe.search.items()}}
        progress(f"tuning {recipe.name}", done / trials, _best_so_far(study))
        try:
            trained = train(recipe.recommender, settings, data, FitOptions(seed=seed, device=device))
        except (ValueError, RuntimeError) as error:
            trial.set_user_attr("error", str(error))
            study.tell(trial, state=TrialState.FAIL)
            continue
        if (value := loss(trained.metrics)) is None:
            raise TuneError(f"{recipe.recommender} has no figure on validation users to search by")
        trial.set_user_attr("metrics", trained.metrics)
        study.tell(trial, value)
    progress(f"tuning {recipe.name}", 1.0, _best_so_far(study))
    if not study.get_trials(states=[TrialState.COMPLETE]):
        raise TuneError(f"none of the {trials} trials could be trained")
    best = Best(
        recipe.name,
        recipe.recommender,
        {**recipe.settings, **study.best_params},
        study.best_value,
        len(_finished(study)),
    )
    (out / BEST_FILE).write_text(best.as_toml())
    return best


def _check_same_search(study: optuna.Study, recipe: Recipe, data: Dataset, seed: int) -> None:
    """Trials of two searches must not be compared: a study remembers what it is about."""
    about = {
        "recipe": recipe.model_dump(mode="json", exclude={"chosen"}),
        "data": data.fingerprint,
        "seed": seed,
    }
    known = study.user_attrs.get("about")
    if known is None:
        study.set_user_attr("about", about)
    elif known != about:
        raise TuneError("the folder holds a search of another recipe, data set or seed; name another one")


def _propose(trial: optuna.Trial, name: str, space: Space) -> Any:
    if space.choices is not None:
        return trial.suggest_categorical(name, space.choices)
    assert space.low is not None
    assert space.high is not None
    if space.whole:
        return trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that have an outcome; one that was killed has none and is proposed anew."""
    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.FAIL])


def _best_so_far(study: optuna.Study) -> dict[str, float]:
    return {"loss": study.best_value} if study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]) else {}

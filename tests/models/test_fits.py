"""Fits that are kept: an evaluation takes up what another one has trained, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from models.datasets.dataset import Dataset
from models.evaluation.fits import Fits
from models.evaluation.run import Plan, evaluate
from tests.models.cinema import read_cinema

PLAN = Plan("kshot", ["content"], blend=["bayes", "content"], seeds=(0, 1), repeat=["bayes", "content"])


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_cinema(tmp_path_factory.mktemp("data") / "cinema")


def test_an_evaluation_that_finds_all_its_fits_trains_nothing_and_says_the_same(
    cinema: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = Fits(tmp_path, "1")
    first = evaluate(cinema, PLAN, fits=fits)
    assert first.report == evaluate(cinema, PLAN).report  # keeping changes nothing

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("models.evaluation.sitting.train", refuse)
    again = evaluate(cinema, PLAN, fits=fits)
    assert again.report == first.report
    assert again.blends == first.blends
    for other in (Fits(tmp_path, "2"), Fits(tmp_path / "elsewhere", "1")):
        with pytest.raises(AssertionError, match="trained again"):
            evaluate(cinema, PLAN, fits=other)
    changed = Plan("kshot", [], settings={"bayes": {"n_factors": 3}})
    with pytest.raises(AssertionError, match="trained again"):
        evaluate(cinema, changed, fits=fits)


def test_a_damaged_fit_is_trained_again(cinema: Dataset, tmp_path: Path) -> None:
    plan = Plan("kshot", [])
    first = evaluate(cinema, plan, fits=Fits(tmp_path, "1"))
    for weights in tmp_path.glob("*/weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1])
    assert evaluate(cinema, plan, fits=Fits(tmp_path, "1")).report == first.report

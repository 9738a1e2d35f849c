"""The short form of `python -m tests.e2e.reload_under_load` and of `python -m tests.chaos.reloads`."""

from pathlib import Path

from tests.chaos.reloads import harm
from tests.chaos.world import PATIENT
from tests.e2e.movies import Movies
from tests.e2e.reload_under_load import K, run, same


def test_reloads_under_load_refuse_nothing_and_mix_nothing(movies: Movies, tmp_path: Path) -> None:
    """Every answer is 200 and its checkpoint's own; a change holds from its acknowledgement on; harmed checkpoints are
    refused."""
    outcome = run(movies, tmp_path, seconds=5, rate=50, changes=4, harmed=harm, **PATIENT)
    assert outcome.mistakes() == []
    assert set(outcome.by_digest()) == set(outcome.golden)
    one, other = outcome.golden.values()
    assert not any(same(slate[:K], others) for slate, others in zip(one, other, strict=True)), "no mixture would show"

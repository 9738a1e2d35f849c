"""`--source` and `--target`: what the command line makes of them, and what it refuses."""

import pytest

from app.commands.evaluate import _shares
from app.commands.train import TrainingError, check_domains, with_direction
from tests.models.tiny import tiny


def test_a_transfer_takes_its_domains_as_settings() -> None:
    assert with_direction("mapping", "films", None) == {"source": "films"}
    assert with_direction("mapping", "films", "books") == {"source": "films", "target": "books"}
    assert with_direction("bias", None, None) == {}


def test_what_transfers_nothing_takes_no_domains() -> None:
    with pytest.raises(TrainingError, match="learns from all domains at once"):
        with_direction("bias", "films", None)


def test_a_transfer_between_domains_that_there_are_not_is_refused_before_it_is_fitted() -> None:
    two = tiny([(0, 0, 3.0), (0, 1, 3.0)], domain=[0, 1])
    check_domains("mapping", {"source": "books", "target": "films"}, two)
    check_domains("bias", {}, tiny([(0, 0, 3.0)], domain=[0]))
    with pytest.raises(TrainingError, match="no domain 'music'"):
        check_domains("mapping", {"source": "music"}, two)
    with pytest.raises(TrainingError, match="needs two domains"):
        check_domains("mapping", {}, tiny([(0, 0, 3.0)], domain=[0]))


def test_shares_are_numbers_between_nothing_and_all() -> None:
    assert _shares("0.2, 1", "--beta") == [0.2, 1.0]
    for text in ("", "half", "2"):
        with pytest.raises(TrainingError, match="--beta takes"):
            _shares(text, "--beta")

"""`--source`, `--target` and `--domain`: what the command line makes of them, and what it refuses."""

from pathlib import Path

import pytest

from app.commands.evaluate import _shares
from app.commands.train import TrainingError, check_domains, train_checkpoint, with_direction
from models import checkpoint
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


def test_a_transfer_is_for_its_target_and_a_fit_on_one_domain_for_that_one(tmp_path: Path) -> None:
    both = tiny([(user, item, 2.0 + (user + item) % 3) for user in range(12) for item in range(4)], domain=[0, 0, 1, 1])
    carrying = train_checkpoint("collective", {"target": "films", "epochs": 1}, both, tmp_path)
    apart = train_checkpoint("bias", {}, both, tmp_path, domain="books")
    whole = train_checkpoint("bias", {}, both, tmp_path)
    cards = [checkpoint.read_card(kept.path)[0] for kept in (carrying, apart, whole)]
    assert [card.targets for card in cards] == [["films"], ["books"], ["films", "books"]]
    assert {card.dataset_fingerprint for card in cards} == {both.fingerprint}
    assert [kept.path.name.split("-")[0] for kept in (carrying, apart, whole)] == ["films", "books", "tiny"]
    assert {item.domain for item in checkpoint.load(apart.path).items} == {"books"}
    with pytest.raises(TrainingError, match="has no domain 'music', only films, books"):
        train_checkpoint("bias", {}, both, tmp_path, domain="music")

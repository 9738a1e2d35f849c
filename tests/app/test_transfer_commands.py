"""`--source`, `--target` and `--domain`: what the command line makes of them, and what it refuses."""

from pathlib import Path

import pytest
import torch

from app.commands.evaluate import _shares, usable
from app.commands.train import TrainingError, check_domains, train_checkpoint, with_direction
from models import checkpoint
from models.evaluation.source_choice import rank_sources
from models.recommender import FitOptions
from models.registry import RECOMMENDERS
from tests.laws.world import make_world
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


def test_sources_are_ranked_by_what_is_sure_to_be_saved_and_left_out_where_too_few_are_in_both() -> None:
    """Ratings of films follow a person's level, which their books tell."""
    generator = torch.Generator().manual_seed(0)
    level = 2 + 2 * torch.randint(0, 2, (120,), generator=generator)
    noise = 0.5 * torch.randn(120, 12, generator=generator)
    rows = [(u, i, float((level[u] + noise[u, i]).clamp(1, 5))) for u in range(120) for i in range(12)]
    (found,) = rank_sources(tiny(rows, domain=[0] * 4 + [1] * 8), 1, FitOptions(seed=0))
    assert (found.source, found.shared_users, found.asked) == ("films", 120, 12)
    assert found.gain is not None
    assert found.gain.low > 0
    assert found.gain_at[0] > found.gain_at[5]
    few = tiny([row for row in rows if row[0] < 40], domain=[0] * 4 + [1] * 8)
    assert [candidate.gain for candidate in rank_sources(few, 1, FitOptions(seed=0))] == [None]


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


def test_of_one_domain_nobody_is_asked_who_carries_from_another() -> None:
    """Whatever role they have: such a recommender cannot even be made there."""
    schema = make_world(1).data.schema
    for name in usable(1):
        kind = RECOMMENDERS[name]
        kind(kind.Config(), schema)
    assert usable(2) == list(RECOMMENDERS)

"""Checkpoints: what is saved is what is loaded, anything else is refused with its reason, a save is all or nothing."""

import contextlib
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from models.checkpoint import PARTS, CheckpointError, load, read_card, save, verify
from models.datasets.dataset import Dataset
from models.datasets.folder import write
from models.recommender import FitOptions
from models.training.train import Trained, train
from tests.models.folders import grid_tables


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(grid_tables(), tmp_path_factory.mktemp("data") / "grid")


@pytest.fixture(scope="module")
def trained(data: Dataset) -> Trained:
    return train("popularity", {"reg": 2.0}, data, FitOptions(seed=3))


@pytest.fixture(scope="module")
def saved(data: Dataset, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_to(tmp_path_factory.mktemp("checkpoints") / "grid", data, trained)


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A checkpoint to do harm to."""
    return Path(shutil.copytree(saved, tmp_path / "harmed"))


def save_to(path: Path, data: Dataset, trained: Trained) -> Path:
    return save(
        path,
        trained.recommender,
        trained.fitted,
        data,
        metrics=trained.metrics,
        seed=3,
        fit_seconds=trained.seconds,
        code_version="0",
    )


def resealed(path: Path) -> Path:
    """The checkpoint with digests of what it holds now: what somebody who tampers would do."""
    digests = {part: hashlib.sha256((path / part).read_bytes()).hexdigest() for part in PARTS}
    (path / "digests.json").write_text(json.dumps(digests))
    return path


def reason_of(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    return caught.value.reason


def test_a_round_trip_is_bit_identical(saved: Path, data: Dataset, trained: Trained) -> None:
    loaded = load(saved)
    evidence = data.evidence(torch.arange(data.n_users))
    scores = []
    for recommender, table in ((trained.recommender, trained.fitted.table), (loaded.recommender, loaded.table)):
        scores.append(recommender.score(recommender.adapt(evidence, table, 0), table))
    assert scores[0].mean.equal(scores[1].mean)
    assert scores[0].std is not None
    assert scores[1].std is not None
    assert scores[0].std.equal(scores[1].std)
    assert [item.item_id for item in loaded.items] == data.items.ids
    assert [item.title for item in loaded.items] == data.items.titles
    assert [item.attributes for item in loaded.items] == data.items.attributes
    assert loaded.table.domain.equal(data.items.domain)


def test_a_card_says_where_the_checkpoint_came_from(saved: Path, data: Dataset, trained: Trained) -> None:
    card, digest = read_card(saved)
    assert (card.recommender, card.dataset, card.seed) == ("popularity", "grid", 3)
    assert card.config == {"reg": 2.0}
    assert card.schema_ == data.schema
    assert card.dataset_fingerprint == data.fingerprint
    assert card.metrics == trained.metrics
    assert digest == verify(saved) == load(saved).digest
    assert digest == hashlib.sha256((saved / "digests.json").read_bytes()).hexdigest()


def test_a_loaded_recommender_takes_no_gradient(saved: Path) -> None:
    assert not any(parameter.requires_grad for parameter in load(saved).recommender.parameters())
    assert not load(saved).recommender.training


def test_a_checkpoint_is_never_overwritten(saved: Path, data: Dataset, trained: Trained) -> None:
    with pytest.raises(FileExistsError):
        save_to(saved, data, trained)


def test_a_save_that_fails_midway_leaves_nothing(tmp_path: Path, data: Dataset, trained: Trained) -> None:
    """The items cannot be written (a title is no string): card and weights, written before, are gone too."""
    broken = replace(data, items=replace(data.items, titles=[object()] * data.n_items))  # type: ignore[list-item]
    with pytest.raises(TypeError):
        save_to(tmp_path / "grid", broken, trained)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", PARTS)
def test_one_changed_bit_is_noticed(copy: Path, part: str) -> None:
    content = bytearray((copy / part).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / part).write_bytes(content)
    assert reason_of(copy) == "checkpoint-digest-mismatch"
    with pytest.raises(CheckpointError):
        verify(copy)


@pytest.mark.parametrize("part", PARTS)
def test_a_truncated_part_is_invalid_even_when_resealed(copy: Path, part: str) -> None:
    content = (copy / part).read_bytes()
    (copy / part).write_bytes(content[: len(content) // 2])
    assert reason_of(copy) == "checkpoint-digest-mismatch"
    assert reason_of(resealed(copy)) == "checkpoint-invalid"


@pytest.mark.parametrize("part", [*PARTS, "digests.json"])
def test_a_missing_part_is_noticed(copy: Path, part: str) -> None:
    (copy / part).unlink()
    assert reason_of(copy) in {"checkpoint-invalid", "checkpoint-unsupported-format"}


HEADER = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
HOSTILE = {
    "header length 2^63": (2**63).to_bytes(8, "little") + b"{}",
    "header longer than the file": (1000).to_bytes(8, "little") + b"{}",
    "overlapping offsets": len(HEADER).to_bytes(8, "little") + HEADER + bytes(12),
    "empty": b"",
    "pickle": pickle.dumps({"domain_mean": [1.0]}),
}


@pytest.mark.parametrize("part", ["weights.safetensors", "items.safetensors"])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tensor_files_are_invalid(copy: Path, case: str, part: str) -> None:
    (copy / part).write_bytes(HOSTILE[case])
    assert reason_of(resealed(copy)) == "checkpoint-invalid"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("part", "name"), [("weights.safetensors", "domain_mean"), ("items.safetensors", "bias")])
def test_values_that_are_not_finite_are_refused(copy: Path, part: str, name: str, value: float) -> None:
    tensors = load_file(copy / part)
    tensors[name][0] = value
    save_file(tensors, copy / part)
    assert reason_of(resealed(copy)) == "checkpoint-non-finite"


def _without(name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.pop(name)


HARM: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], object], str]] = {
    "a weight is missing": ("weights.safetensors", _without("domain_std"), "checkpoint-incompatible"),
    "a weight of another shape": (
        "weights.safetensors",
        lambda tensors: tensors.update(domain_std=torch.ones(2)),
        "checkpoint-incompatible",
    ),
    "no domain column": ("items.safetensors", _without("table.domain"), "checkpoint-invalid"),
    "a domain that is none": (
        "items.safetensors",
        lambda tensors: tensors["table.domain"].fill_(7),
        "checkpoint-invalid",
    ),
    "fewer rows than items": (
        "items.safetensors",
        lambda tensors: tensors.update(bias=tensors["bias"][:-1].clone()),
        "checkpoint-invalid",
    ),
}


@pytest.mark.parametrize("case", HARM)
def test_tensors_that_do_not_fit_are_refused(copy: Path, case: str) -> None:
    part, harm, reason = HARM[case]
    tensors = load_file(copy / part)
    harm(tensors)
    save_file(tensors, copy / part)
    assert reason_of(resealed(copy)) == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"recommender": "oracle"}, "checkpoint-incompatible"),
        ({"config": {"regg": 1}}, "checkpoint-incompatible"),
        ({"format_version": 2}, "checkpoint-incompatible"),
        ({"seed": "many"}, "checkpoint-invalid"),
        ({"schema_": {"domains": 1}}, "checkpoint-invalid"),
    ],
)
def test_cards_that_do_not_fit_are_refused(copy: Path, change: dict[str, object], reason: str) -> None:
    card = json.loads((copy / "card.json").read_text())
    (copy / "card.json").write_text(json.dumps(card | change))
    assert reason_of(resealed(copy)) == reason


def test_what_is_no_checkpoint_is_unsupported(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps({}))
    for path in (tmp_path / "model.pt", tmp_path, tmp_path / "nowhere"):
        assert reason_of(path) == "checkpoint-unsupported-format"


@settings(max_examples=60, deadline=None)
@given(
    part=st.sampled_from([*PARTS, "digests.json"]), where=st.floats(0, 1, exclude_max=True), junk=st.binary(max_size=9)
)
def test_a_mutated_checkpoint_is_refused_or_harmless(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, part: str, where: float, junk: bytes
) -> None:
    """Whatever bytes are put into a part, resealed: it loads, or says why not. Nothing else is ever raised."""
    path = Path(shutil.copytree(saved, tmp_path_factory.mktemp("mutated") / "x"))
    content = (path / part).read_bytes()
    at = int(where * len(content))
    (path / part).write_bytes(content[:at] + junk + content[at + len(junk) :])
    if part != "digests.json":
        resealed(path)
    with contextlib.suppress(CheckpointError):
        assert load(path).table["bias"].isfinite().all()

"""A data set in memory: canonical order, evidence, splits."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.datasets.dataset import Dataset, Interactions
from models.datasets.folder import write
from tests.models.folders import grid_tables, two_domains


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(grid_tables(), tmp_path_factory.mktemp("data") / "grid")


EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from([float("nan"), 0.0, 1.0, 2.0])))


@given(events=EVENTS)
def test_canonical_order(events: list[tuple[int, int, float]]) -> None:
    """By user, then time with unknown times first, then arrival: what Python's stable sort makes of it."""
    users, items, times = (torch.tensor([event[i] for event in events]) for i in range(3))
    ones = torch.ones(len(events))
    made = Interactions.sorted(users, items, ones, ones, torch.zeros(len(events)), times)
    expected = sorted(events, key=lambda event: (event[0], -1 if math.isnan(event[2]) else event[2]))
    assert made.users.tolist() == [event[0] for event in expected]
    assert made.items.tolist() == [event[1] for event in expected]


def test_offsets_delimit_users(tmp_path: Path) -> None:
    """ann has three interactions, bob two, cid none."""
    assert two_domains(tmp_path / "d").offsets.tolist() == [0, 3, 5, 5]


def test_evidence_by_hand(tmp_path: Path) -> None:
    data = two_domains(tmp_path / "d")
    evidence = data.evidence(torch.tensor([1, 0, 2]))
    assert evidence.items.tolist() == [[1, 3, 0], [3, 0, 1], [0, 0, 0]]
    assert evidence.values.tolist() == [[4, 6, 0], [9, 2, 4.5], [0, 0, 0]]
    assert evidence.mask.tolist() == [[True, True, False], [True, True, True], [False, False, False]]
    assert evidence.kinds.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert evidence.times[0, 2].isnan()
    assert evidence.attributes.equal(data.user_attributes[[1, 0, 2]])


def test_the_last_interactions_are_the_latest(tmp_path: Path) -> None:
    data = two_domains(tmp_path / "d")
    evidence = data.evidence(torch.tensor([0]), last=2, attributes=False)
    assert evidence.items.tolist() == [[0, 1]]
    assert not evidence.attributes.any()


def test_evidence_of_nobody_who_did_anything(tmp_path: Path) -> None:
    """Empty evidence has no columns; so has that of a data set without interactions."""
    data = two_domains(tmp_path / "d")
    assert data.evidence(torch.tensor([2])).items.shape == (1, 0)
    nothing = data.where(torch.zeros(len(data.interactions), dtype=torch.bool))
    assert nothing.evidence(torch.tensor([0, 1])).items.shape == (2, 0)


@given(share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_a_split_holds_users_apart(grid: Dataset, share: float, seed: int) -> None:
    """The held users keep no interaction, the others keep all, and each side has somebody."""
    training, held = grid.split_users(share, seed)
    counts, before = torch.diff(training.offsets), torch.diff(grid.offsets)
    is_held = torch.zeros(grid.n_users, dtype=torch.bool).index_fill(0, held, True)
    assert counts[is_held].sum() == 0
    assert counts[~is_held].equal(before[~is_held])
    assert 1 <= len(held) <= grid.n_users - 1
    assert abs(len(held) - share * grid.n_users) <= 1
    assert held.equal(grid.split_users(share, seed)[1])


def test_a_fingerprint_follows_the_data(grid: Dataset) -> None:
    everything = torch.ones(len(grid.interactions), dtype=torch.bool)
    assert grid.where(everything).fingerprint == grid.fingerprint
    everything[0] = False
    assert grid.where(everything).fingerprint != grid.fingerprint

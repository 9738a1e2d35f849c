"""Each law × each registered recommender × each world that it can be fitted on."""

from collections.abc import Callable
from functools import cache

import pytest

from models.registry import RECOMMENDERS
from tests.laws.entries import ENTRIES
from tests.laws.laws import LAWS, Case, fit_case
from tests.laws.world import World, make_world


@cache
def world_of(name: str) -> World:
    return make_world({"one": 1, "two": 2}[name])


@cache
def case_of(name: str, world_name: str) -> Case:
    return fit_case(ENTRIES[name], RECOMMENDERS[recommender_of(name)], world_of(world_name))


def recommender_of(entry: str) -> str:
    return entry.partition(":")[0]


CASES = [(name, world) for name, entry in ENTRIES.items() for world in entry.worlds]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "world"), CASES, ids=lambda value: value)
def test_law(law: Callable[[Case], None], name: str, world: str) -> None:
    law(case_of(name, world))


def test_every_recommender_has_an_entry_and_every_entry_a_recommender():
    assert {recommender_of(name) for name in ENTRIES} == RECOMMENDERS.keys()

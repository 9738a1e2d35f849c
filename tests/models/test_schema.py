"""Attributes become columns; kinds of events become ratings."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.datasets.schema import AttributeEncoder, Domain, Kind, Schema, values_of

ROWS: list[dict[str, Any]] = [
    {"age": 20, "city": "Oslo", "likes": ["a", "b"], "about": "first"},
    {"age": 40, "city": "Oslo", "likes": ["b"], "about": ""},
    {"city": "Rome", "likes": ["a", "b"], "about": "third"},
]
KINDS: dict[str, Any] = {"age": "numeric", "city": "categorical", "likes": "multi", "about": "text"}


def test_columns_by_hand() -> None:
    """Age 20 and 40 have mean 30 and standard deviation 10√2; Rome was seen once and has no column; b leads a."""
    encoder = AttributeEncoder.learn(KINDS, ROWS)
    assert encoder.width == 4
    expected = [[-1 / math.sqrt(2), 1, 1, 1], [1 / math.sqrt(2), 1, 1, 0], [0, 0, 1, 1]]
    assert torch.allclose(encoder.encode(ROWS), torch.tensor(expected))
    assert encoder.texts(ROWS) == ["first", "", "third"]


def test_what_is_unknown_is_zeros() -> None:
    encoder = AttributeEncoder.learn(KINDS, ROWS)
    strangers: list[dict[str, Any]] = [{}, {"city": "Lima"}, {"age": None, "likes": []}, {"shoe": 43}, {"age": "old"}]
    assert not encoder.encode(strangers).any()


def test_a_vocabulary_has_the_most_frequent_values() -> None:
    rows = [{"c": value} for value in "aabbbcccd"]
    assert AttributeEncoder.learn({"c": "categorical"}, rows, max_vocabulary=2).fields[0].vocabulary == ["b", "c"]


def test_a_number_that_never_varies_keeps_its_place() -> None:
    encoder = AttributeEncoder.learn({"n": "numeric"}, [{"n": 3}, {"n": 3}])
    assert encoder.encode([{"n": 3}, {"n": 4}]).tolist() == [[0], [1]]


@given(rows=st.lists(st.fixed_dictionaries({}, optional={"n": st.integers(-99, 99), "c": st.sampled_from("abc")})))
def test_an_encoder_survives_json(rows: list[dict[str, Any]]) -> None:
    """A schema travels in a card: what is read back encodes alike."""
    encoder = AttributeEncoder.learn({"n": "numeric", "c": "categorical"}, rows, min_count=1)
    schema = Schema(domains=[Domain(name="m")], user_attributes=encoder)
    again = Schema.model_validate(json.loads(schema.model_dump_json()))
    assert again == schema
    assert again.user_attributes.encode(rows).equal(encoder.encode(rows))


@given(rows=st.lists(st.fixed_dictionaries({"c": st.sampled_from("abc")}), min_size=1))
def test_rows_are_encoded_one_by_one(rows: list[dict[str, Any]]) -> None:
    encoder = AttributeEncoder.learn({"c": "categorical"}, rows, min_count=1)
    assert encoder.encode(rows).equal(torch.cat([encoder.encode([row]) for row in rows]))
    assert encoder.encode(rows).sum(1).eq(1).all()


def test_values_of_a_cell() -> None:
    assert [values_of(cell) for cell in (None, "", "x", ["x", "y"], 7)] == [[], [], ["x"], ["x", "y"], ["7"]]


def test_evidence_of_events() -> None:
    domain = Domain(name="m", kinds={"click": Kind(value=4, weight=0.25)})
    assert domain.evidence_of("rating", 2.5) == (2.5, 1.0)
    assert domain.evidence_of("rating", None) is None
    assert domain.evidence_of("click", 99.0) == (4.0, 0.25)
    assert domain.evidence_of("share", 1.0) is None


@pytest.mark.parametrize("wrong", [{"rating_min": 5}, {"rating_max": math.nan}, {"name": ""}, {"scale": 5}])
def test_a_domain_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Domain.model_validate({"name": "m", **wrong})


@pytest.mark.parametrize("weight", [0, -0.1, 1.1])
def test_a_kind_weighs_something_and_no_more_than_a_rating(weight: float) -> None:
    with pytest.raises(ValidationError):
        Kind(value=3, weight=weight)


def test_domains_by_name() -> None:
    schema = Schema(domains=[Domain(name="m"), Domain(name="b", rating_min=0, rating_max=10)])
    assert schema.domain_index("b") == 1
    with pytest.raises(KeyError):
        schema.domain_index("x")
    assert [scale.tolist() for scale in schema.scales()] == [[1, 0], [5, 10]]


def test_numbers_of_any_size_have_a_finite_code() -> None:
    """A slip in one cell must neither stop a reader nor make scores of nothing."""
    rows = [{"year": 1990.0}, {"year": 2000.0}, {"year": 1e308}, {"year": -1e308}]
    for learnt_from in (rows, rows[:2]):
        encoder = AttributeEncoder.learn({"year": "numeric"}, learnt_from)
        encoded = encoder.encode(rows)
        assert encoded.isfinite().all()
        assert encoded.square().sum().isfinite()
        assert encoded[2] > encoded[1] >= encoded[0] > encoded[3]

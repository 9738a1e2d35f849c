"""Recipes: every file can be cooked, and a slip in one is an error with a name."""

import pytest
from pydantic import ValidationError

from models.recipes import Recipe, RecipeError, Space, load, names
from models.registry import RECOMMENDERS
from models.training import sentences


@pytest.mark.parametrize("name", names())
def test_every_recipe_fits_its_recommender(name: str) -> None:
    if name == "content_sentence" and not sentences.available():
        pytest.skip("the extra `text` is not installed")
    recipe = load(name)
    assert recipe.recommender in RECOMMENDERS
    assert recipe.chosen


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_a_recommender_without_a_file_has_the_recipe_of_its_defaults(name: str) -> None:
    assert load(name).recommender in RECOMMENDERS


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(RecipeError, match="no recommender"):
        load("magic")


def test_a_setting_that_the_recommender_does_not_have_is_refused() -> None:
    with pytest.raises(ValidationError):
        Recipe(name="x", recommender="popularity", settings={"regg": 1})
    with pytest.raises(ValidationError, match="no setting"):
        Recipe(name="x", recommender="popularity", search={"regg": Space(low=1, high=2)})


@pytest.mark.parametrize(
    "space",
    [{}, {"low": 1}, {"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}, {"low": 1, "high": 2, "choices": [1]}],
)
def test_a_space_is_a_range_or_choices(space: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Space.model_validate(space)


def test_a_range_between_whole_numbers_is_of_whole_numbers() -> None:
    assert Space(low=1, high=4).whole
    assert not Space(low=1, high=4.5).whole

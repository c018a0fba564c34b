"""The arguments that fit, tune and inspect share, and what a recipe keeps of them."""

from __future__ import annotations

import pytest

from plait.data.arguments import parse_columns, recipe_from, target_names
from plait.errors import RecipeError
from plait.recipe.recipe import Recipe, load


def test_arguments_are_written_into_the_recipe() -> None:
    columns = {"price": "number", "note": {"role": "ignored"}, "name": "id"}
    recipe = recipe_from(
        {"seed": 1}, columns=columns, align=["a", "b"], overrides=["fusion=gated"], quality="good", seed=2
    )
    assert recipe.columns["price"].modality is not None
    assert recipe.columns["price"].modality.name == "number"
    assert (recipe.columns["note"].role, recipe.columns["name"].role) == ("ignored", "id")
    assert recipe.tasks["alignment"].options == {"inputs": ["a", "b"]}
    assert (recipe.fusion.name, recipe.quality, recipe.seed) == ("gated", "good", 2)
    assert target_names("y") == target_names(["y"]) == ["y"]


def test_a_recipe_is_saved_as_it_was_asked_for() -> None:
    recipe = recipe_from("classic", overrides=["training.epochs=auto", "tasks.label=classification"])
    assert load(recipe.to_dict()) == recipe
    assert load(recipe.to_dict()).model_fields_set == recipe.model_fields_set
    assert Recipe().to_dict() == {}
    assert "epochs: auto" in recipe.to_yaml()
    assert "patience" in recipe.to_yaml(), "the classic recipe names it"
    assert "quality" not in recipe.to_yaml()


def test_columns_on_the_command_line() -> None:
    assert parse_columns(["price=number", "note=ignored"]) == {
        "price": {"modality": "number"},
        "note": {"role": "ignored"},
    }
    with pytest.raises(RecipeError, match="expected name=modality or name=role"):
        parse_columns(["price"])

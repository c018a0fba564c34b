"""The arguments that fit, tune and inspect share, and what a recipe keeps of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plait.data.arguments import parse_columns, recipe_from, target_names
from plait.errors import RecipeError
from plait.fusion.base import fusions
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
    assert "quality: network" in recipe.to_yaml(), "and that it has no members"


@pytest.mark.parametrize(
    "recipe",
    [
        {"fusion": "{}"},
        {"columns": {"photo": {"encoder": {"name": "{}", "width": 8}}}},
        {"ensemble": {"members": {"mine": "{}"}}},
        {"ensemble": {"members": {"mine": {"name": "network", "fusion": "{}"}}}},
        {"ensemble": {"members": {"mine": {"name": "network", "encoders": {"image": {"name": "{}"}}}}}},
        {"encoders": {"video": {"name": "per_frame", "frame": "{}"}}},
        {"tuning": {"space": {"fusion": {"choices": ["concat", {"name": "{}"}]}}}},
    ],
)
def test_components_that_a_callers_recipe_names_are_allowed(
    recipe: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"outside_{abs(hash(str(recipe)))}"
    (tmp_path / f"{module}.py").write_text("class Mine:\n    options = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    name = f"{module}:Mine"
    with pytest.raises(RecipeError, match="lies outside plait"):
        fusions.find(name)
    recipe_from(json.loads(json.dumps(recipe).replace("{}", name)))
    assert fusions.find(name).__name__ == "Mine"


def test_columns_on_the_command_line() -> None:
    assert parse_columns(["price=number", "note=ignored"]) == {
        "price": {"modality": "number"},
        "note": {"role": "ignored"},
    }
    with pytest.raises(RecipeError, match="expected name=modality or name=role"):
        parse_columns(["price"])

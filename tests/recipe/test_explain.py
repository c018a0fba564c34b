"""What a wrong option is told: its place, the reason, and the names that it may have meant."""

from __future__ import annotations

from typing import Any

import pytest

from plait.errors import RecipeError
from plait.recipe.recipe import load


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"training": {"epoch": 5}}, "no option 'training.epoch': did you mean 'epochs'?"),
        (
            {"ensemble": {"label": 1}},
            "no option 'ensemble.label': there are: members, folds, repeats, stack, rounds, bags.",
        ),
        (
            {"columns": {"y": {"name": "x"}}},
            "no option 'columns.y.name': there are: role, modality, encoder, decimal, format.",
        ),
        (
            {"training": {"epochs": 1.5}},
            "option 'training.epochs' is 1.5: expected a valid integer, got a number with a fractional part, "
            "or 'auto'",
        ),
        ({"training": {"trackers": "csv"}}, "option 'training.trackers' is 'csv': expected a list, as in"),
        ({"columns": {"y": 5}}, "option 'columns.y' is 5: expected names and values, as in {name: value}"),
        ({"columns": {1: {}}}, "option 'columns.1': a name is a text, so write it in quotes: \"1\""),
        ({1: 2}, "option '1': a name is a text, so write it in quotes: \"1\""),
        (
            {"encoders": {"text": {"width": 8}}},
            "'encoders.text' is {'width': 8}: the option 'name' is missing",
        ),
        (
            {"tuning": {"space": {"a": {"low": 1}}}},
            "option 'tuning.space.a' is {'low': 1}: the option 'high'",
        ),
        ({"seed": -1}, "option 'seed' is -1: expected 0 or more"),
        ({"seed": 10**20}, f"option 'seed' is {10**20}: expected 4,294,967,295 or less"),
        ({"tasks": {"y": ""}}, "option 'tasks.y.name' is '': expected a text that is not empty"),
        (
            {"columns": {"y": {"role": "x" * 500}}},
            "option 'columns.y.role' is '" + "x" * 79 + "...: expected",
        ),
    ],
)
def test_a_wrong_option_is_named_with_the_reason(recipe: dict[Any, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(recipe)
    assert message in str(caught.value)


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", "inf"])
@pytest.mark.parametrize(
    "option", ["training.learning_rate", "model.unimodal_weight", "training.unaugmented"]
)
def test_numbers_are_finite(option: str, number: str) -> None:
    with pytest.raises(RecipeError, match=f"option '{option}' is .*: expected"):
        load(None, [f"{option}={number}"])

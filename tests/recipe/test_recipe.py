"""A recipe as a user writes it."""

from __future__ import annotations

import warnings

import pytest

from plait.errors import RecipeError
from plait.recipe.recipe import load


def test_an_old_option_name_still_works_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match=r"model\.alone is now model\.unimodal_weight"):
        recipe = load({"model": {"alone": 0.5}}, ["model.modality_dropout=0.1"])
    assert recipe.model.unimodal_weight == 0.5
    assert recipe.model.modality_dropout == 0.1

    with pytest.warns(FutureWarning, match=r"model\.votes is now model\.late_fusion"):
        assert load(None, ["model.votes=false"]).model.late_fusion is False


def test_an_option_under_both_of_its_names_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"model\.votes is the old name of model\.late_fusion"):
        load({"model": {"votes": True, "late_fusion": False}})


def test_old_names_of_values_are_accepted_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match=r"model\.balance=given is now model\.balance=fixed"):
        assert load(None, ["model.balance=given"]).model.balance == "fixed"
    with pytest.warns(FutureWarning, match=r"tasks\.name\.answers=seen is now tasks\.name\.answers=training"):
        recipe = load({"tasks": {"name": {"name": "generation", "answers": "seen"}, "label": "regression"}})
    assert recipe.tasks["name"].options == {"answers": "training"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load({"model": {"balance": "blend"}, "tasks": {"name": {"name": "generation", "answers": ["yes"]}}})


def test_an_override_leaves_the_callers_mapping_as_it_was() -> None:
    mine = {"training": {"epochs": 3}}
    assert load(mine, ["training.epochs=5"]).training.epochs == 5
    assert mine == {"training": {"epochs": 3}}

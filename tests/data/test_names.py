"""Names that a recipe or a call mistypes are refused with the nearest valid one, before a training."""

from __future__ import annotations

from typing import Any

import pytest

from plait.data.arguments import parse_columns, recipe_from, target_names
from plait.data.plan import Plan
from plait.errors import PlaitError, RecipeError
from plait.table.read import read

ROWS = [{"price": i / 7, "note": f"a note on thing {i} of many", "label": "ab"[i % 2]} for i in range(40)]


def plan(*overrides: str, target: Any = "label", rows: list[dict[str, Any]] = ROWS) -> Plan:
    return Plan.make(read(rows), recipe_from(None, overrides=overrides), target)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoders.txet=lstm", "no component 'txet' in modalities: did you mean 'text'?"),
        ("encoders.image=restnet", "no component 'restnet' in encoders: did you mean 'resnet'?"),
        (
            "encoders.image={name: resnet, widht: 8}",
            "encoders/resnet: no option 'widht': did you mean 'width'",
        ),
        ("modalities.imagee.size=8", "no component 'imagee' in modalities: did you mean 'image'?"),
        ("modalities.image.sise=8", "modalities/image: no option 'sise': did you mean 'size'?"),
        ("modalities={label: {name: classification}}", "no component 'label' in modalities"),
        (
            "task_defaults.classificatoin.label_smoothing=0.1",
            "no component 'classificatoin' in tasks: did you mean 'classification'?",
        ),
        (
            "task_defaults.classification.label_smothing=0.1",
            "classification: no option 'label_smothing'",
        ),
        ("tasks.labell=classification", "neither a target nor a column of the table: did you mean 'label'?"),
        ("tasks.labell.weight=2", "neither a target nor a column of the table: did you mean 'label'?"),
        ("columns.prise.role=ignored", "has no column 'prise': did you mean 'price'?"),
        ("split.group=prise", "has no column 'prise': did you mean 'price'?"),
        (
            "tasks.label={name: classification, inputs: [prise]}",
            "no input column 'prise': did you mean",
        ),
    ],
)
def test_a_mistyped_name_gets_the_nearest(override: str, message: str) -> None:
    with pytest.raises(PlaitError) as caught:
        plan(override)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "encoders.image=resnet",
        "modalities.image.size=8",
        "task_defaults.regression.delta=2",
        "tasks.price=regression",
        "tasks.price.weight=2",
    ],
)
def test_a_recipe_may_speak_of_more_than_the_table_has(override: str) -> None:
    assert plan(override).targets == ["label"]


def test_options_without_a_name_are_those_of_the_task_that_fits() -> None:
    made = plan("tasks.label.label_smoothing=0.1", "tasks.price.weight=3", target=["label", "price"])
    assert made.tasks["label"].name == "classification"
    assert made.tasks["label"].options["label_smoothing"] == 0.1
    assert made.reasons["label"] == "2 different values, not numbers"
    assert (made.tasks["price"].name, made.tasks["price"].options["weight"]) == ("regression", 3)
    assert recipe_from(made.recipe.to_dict()) == made.recipe
    with pytest.raises(RecipeError, match="tasks/classification: no option 'delta'"):
        plan("tasks.label.delta=3")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.label={name: classification, inputs: 5}", "option 'inputs' is 5: expected a list"),
        ("tasks.label={name: classification, inputs: price}", "option 'inputs' is 'price': expected a list"),
        ("tasks.label={name: classification, inputs: [0]}", "option 'inputs.0' is 0: expected a text"),
        ("tasks.label={name: classification, column: 3}", "option 'column' is 3: expected a text"),
        ("tasks.label.column=3", "option 'column' is 3: expected a text"),
        ("tasks.label.weight=0", "option 'weight' is 0: expected more than 0"),
        ("tasks.other={name: alignment, anchor: 1}", "option 'anchor' is 1: expected a text"),
        ("tasks.other={name: alignment, inputs: {}}", "option 'inputs' is {}: expected a list"),
        ("tasks.note={name: generation, answers: []}", "expected 'free' or 'training', or 1 items or more"),
    ],
)
def test_an_option_of_a_task_that_is_of_the_wrong_type_is_named(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(override)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (5, "expected a column's name, or a list of names, came 5"),
        (b"label", "expected a column's name, or a list of names, came b'label'"),
        ([None], "expected a column's name, or a list of names, came None"),
        ("", "expected a column's name, or a list of names, came ''"),
        (["label", "label"], "'label' is named twice"),
        (None, "which column is to be predicted?"),
    ],
)
def test_a_target_that_is_no_name_is_refused(target: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(target=target)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": 5}, "expected a name, a file or names and values, came 5"),
        ({"source": ["classic"]}, "expected a name, a file or names and values, came ['classic']"),
        ({"columns": ["price"]}, "columns: expected names with a modality or a role"),
        ({"columns": {1: "number"}}, "a name is a text, so write it in quotes"),
        ({"overrides": [5]}, "override 5: expected a text, as in 'training.epochs=5'"),
        ({"align": 5}, "align: expected a column's name, or a list of names, came 5"),
        ({"quality": 5}, "option 'quality' is 5: expected 'network', 'fast', 'good' or 'best'"),
        ({"seed": 1.5}, "option 'seed' is 1.5: expected a valid integer"),
    ],
)
def test_an_argument_of_the_wrong_type_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from(**{"source": None, **arguments})
    assert message in str(caught.value)
    assert recipe_from(None, overrides="training.epochs=5").training.epochs == 5


def test_targets_of_a_set_have_an_order() -> None:
    assert target_names({"b", "c", "a"}) == ["a", "b", "c"]
    assert target_names(None) == []


def test_a_chosen_task_needs_no_inference() -> None:
    rows = [{"note": row["note"], "said": b"RIFF"} for row in ROWS]
    made = plan("tasks.said=speak", target="said", rows=rows)
    assert (made.tasks["said"].name, made.reasons["said"]) == ("speak", "set in the recipe")


@pytest.mark.parametrize(
    ("overrides", "cells", "message"),
    [
        ((), [b"RIFF"] * 40, "has cells of type binary; expected classes, numbers, texts or lists"),
        (("tasks.said=speak",), [None] * 40, "has no labels at all; expected labels for speak"),
        (("tasks.said=classification",), [[1]] * 40, "classification expects one class in a cell"),
        (("split.group=said",), [[1]] * 40, "rows cannot be grouped by 'said'"),
    ],
)
def test_labels_that_no_task_reads_are_refused(
    overrides: tuple[str, ...], cells: list[Any], message: str
) -> None:
    rows = [{**row, "said": cell} for row, cell in zip(ROWS, cells, strict=True)]
    with pytest.raises(PlaitError) as caught:
        plan(*overrides, target="label" if "split.group=said" in overrides else "said", rows=rows)
    assert message in str(caught.value)


def test_names_with_dots_and_signs_of_equality_are_quoted() -> None:
    rows = [{"a.b": row["price"], "a=b": row["note"], "label": row["label"]} for row in ROWS]
    columns = parse_columns(['"a=b"=category', "a.b=category"])
    recipe = recipe_from(None, columns=columns, overrides=['columns."a.b".role=ignored'])
    assert recipe.columns["a.b"].role is None, "columns come after overrides"
    made = plan('columns."a.b".role=ignored', rows=rows)
    assert made.schema["a.b"].role == "ignored"


def test_a_recipe_in_a_mapping_stays_as_it_was() -> None:
    mine: dict[str, Any] = {"training": {"epochs": 3}, "columns": {"price": {"role": "ignored"}}}
    recipe = recipe_from(mine, columns={"note": "text"}, overrides=["training.epochs=5"], seed=3)
    assert recipe.training.epochs == 5
    assert mine == {"training": {"epochs": 3}, "columns": {"price": {"role": "ignored"}}}

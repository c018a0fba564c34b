"""The plan: everything is decided in it, from training rows. Plans for other rows start from the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

import plait
from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.data.split import as_ranges, from_ranges
from plait.errors import RecipeError, TrainingError
from plait.pretrained import files
from plait.recipe.registry import Choice
from plait.table.read import read
from support import tiny_models
from support.tables import make_rows

ROWS = 40


def table(rows: int = ROWS, **columns: Any) -> pa.Table:
    """Rows of two numbers, a text and a label of two classes. The last fifth validates, see `LAST`."""
    rng = np.random.default_rng(0)
    cells = {
        "price": rng.normal(size=rows),
        "weight": rng.normal(size=rows),
        "note": [f"a note on thing {i} of many" for i in range(rows)],
        "label": [["left", "right"][i % 2] for i in range(rows)],
    }
    return pa.table({**cells, **columns})


LAST = ["train"] * 32 + ["valid"] * 8


def make(data: pa.Table, target: str | list[str] = "label", **arguments: Any) -> Plan:
    return Plan.make(read(data), recipe_from(None, **arguments), target)


def test_a_plan_is_the_same_after_json() -> None:
    plan = make(table(), overrides=["split.test=0.2", "quality=good"])
    restored = Plan.from_dict(json.loads(plan.to_json()))
    assert restored.to_dict() == plan.to_dict()
    np.testing.assert_array_equal(restored.split.train, plan.split.train)
    assert restored.recipe == plan.recipe
    assert restored.recipe.model_fields_set == plan.recipe.model_fields_set


def test_a_plan_with_a_wrong_number_is_refused() -> None:
    fields = make(table()).to_dict()
    fields["training"]["epochs"] = "auto"
    with pytest.raises(ValidationError, match="epochs"):
        Plan.from_dict(fields)


def test_nothing_is_left_open(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, ROWS)
    plan = Plan.make(read(rows, tmp_path), recipe_from(None, quality="best"), "label")
    assert set(plan.columns) == {"photo", "text", "price", "shop"}
    fields = plan.to_dict()
    del fields["recipe"]
    assert "auto" not in json.dumps([fields["training"], fields["ensemble"]["repeats"]])
    assert fields["tasks"]["label"]["inputs"] == list(plan.columns)
    assert fields["training"]["epochs"] == 500
    assert fields["ensemble"]["repeats"] == 3


@pytest.mark.parametrize("quality", ["good", "best"])
def test_an_ensemble_trains_no_pretrained_network(
    tmp_path: Path, quality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, `pretrained` adapts its network to many rows, and light members leave out such columns."""
    bert = tiny_models.bert(tmp_path / "bert")
    monkeypatch.setattr(files, "find", lambda name: bert)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    plan = make(table(2600), quality=quality, columns={"note": "text"})
    networks = [member.options for member in plan.ensemble.members.values() if member.name == "network"]
    assert networks
    for options in networks:
        encoders = {name: Choice.model_validate(encoder) for name, encoder in options["encoders"].items()}
        assert "note" in plan.with_encoders(encoders).light().columns


@pytest.mark.parametrize(("text", "rows"), [("", []), ("4", [4]), ("0-2 5 7-8", [0, 1, 2, 5, 7, 8])])
def test_row_numbers_are_written_as_ranges(text: str, rows: list[int]) -> None:
    assert as_ranges(np.array(rows, dtype=int)) == text
    assert from_ranges(text).tolist() == rows


def test_only_training_rows_decide_what_an_input_is() -> None:
    """Rows that validate stand for rows that a model meets later."""
    constant_in_training = ["same"] * 32 + ["other", "another"] * 4
    number_in_training = ["1.5", "2.5", "3", "4"] * 8 + ["north", "south"] * 4
    plan = make(table(side=LAST, split=LAST, town=constant_in_training, size=number_in_training))
    assert plan.schema["town"].role == "ignored"
    numbers_everywhere = make(table(size=["1.5", "2.5", "3", "4"] * 10))
    assert plan.schema["size"].modality == numbers_everywhere.schema["size"].modality


def test_targets_and_split_columns_are_typed_on_all_rows() -> None:
    sides = ["train"] * 32 + ["valid"] * 8
    labels = ["1", "0"] * 16 + ["maybe"] * 8
    plan = make(table(split=sides, label=labels))
    assert plan.split.how == "by column 'split'"
    assert plan.tasks["label"].name == "classification"
    assert plan.schema["split"].role == "split"


def test_a_column_that_counts_the_rows_is_an_id_in_any_split() -> None:
    plan = make(table(number=list(range(ROWS)), year=list(range(1950, 1950 + ROWS))))
    assert plan.schema["number"].role == "id"
    assert plan.schema["year"].modality == "number"


def test_missing_cells_are_counted_in_all_rows() -> None:
    cells = [None if i % 4 == 0 else float(i % 7) for i in range(ROWS)]
    assert make(table(size=cells)).schema["size"].missing == 10


def test_a_target_with_classes_is_stratified() -> None:
    data = table(value=np.arange(ROWS) * 1.5)
    assert make(data, "label").split.stratify == "label"
    assert make(data, "value").split.stratify == ""
    assert make(data, "label", overrides=["split.stratify=false"]).split.stratify == ""
    elsewhere = "tasks.side={name: classification, column: label}"
    assert make(data, "side", overrides=[elsewhere]).split.stratify == "label"


def test_a_fold_has_the_epochs_of_its_own_rows() -> None:
    plan = make(table(200), overrides=["split.valid=0.04"])
    assert (len(plan.split.train), plan.training.epochs) == (192, 84)
    fold = plan.for_fold(np.arange(160), np.arange(160, 200), seed=3)
    assert (fold.training.epochs, fold.seed) == (100, 3)
    seven_epochs = make(table(200), overrides=["training.epochs=7"])
    assert seven_epochs.for_fold(np.arange(160), np.arange(160, 200), seed=3).training.epochs == 7


def test_frozen_encoders_are_decided_once(tmp_path: Path) -> None:
    bert = Choice(name="pretrained", model=str(tiny_models.bert(tmp_path / "bert")), mode="frozen")
    plan = make(table())
    assert plan.frozen_columns == []
    assert list(plan.light().columns) == ["price", "weight"]
    with_bert = plan.with_encoders({"text": bert})
    assert with_bert.frozen_columns == ["note"]
    assert list(with_bert.light().columns) == ["price", "weight", "note"]
    assert with_bert.recipe.encoders["text"] == bert


def test_without_a_target_only_aligned_columns_are_inputs(tmp_path: Path) -> None:
    plan = Plan.make(read(make_rows(tmp_path, ROWS), tmp_path), recipe_from(None, align=True))
    assert plan.alignments == {"alignment": ["photo", "text"]}
    assert plan.targets == []
    assert list(plan.columns) == ["photo", "text"]
    assert plan.model.modality_dropout == plan.model.unimodal_weight == 0.0


def test_rows_without_a_label_are_left_out_or_learned_from() -> None:
    labels = [None if i % 5 == 0 else "ab"[i % 2] for i in range(ROWS)]
    plan = make(table(label=labels))
    assert plan.split.without_label == 8
    assert not len(plan.split.unlabelled)
    learning = make(table(label=labels), overrides=["training.unlabelled=1"])
    assert len(learning.split.unlabelled)
    assert not set(learning.split.unlabelled) & set(learning.split.train)


def test_tables_that_cannot_be_planned_say_why() -> None:
    with pytest.raises(RecipeError, match="which column is to be predicted"):
        make(table(), [])
    with pytest.raises(RecipeError, match="cannot be named 'problem'"):
        make(table(problem=["a", "b"] * 20), "problem")
    with pytest.raises(TrainingError, match="expected two or more labelled rows to train on, found 1"):
        make(table(label=["a", *[None] * (ROWS - 1)]))


def test_inspect_takes_the_columns_that_fit_takes() -> None:
    rows = [{"year": 2000 + i % 5, "note": f"n {i}", "y": i % 2} for i in range(40)]
    schema = plait.inspect(rows, "y", columns={"year": "category", "note": "ignored"}).schema
    assert [column.modality or column.role for column in schema] == ["category", "ignored", "target"]
    with pytest.raises(RecipeError, match="no modality or role 'numbr': did you mean 'number'"):
        plait.inspect(rows, "y", columns={"year": "numbr"})


def test_an_option_of_the_ensemble_keeps_the_members_of_quality() -> None:
    good = make(table(), quality="good").ensemble
    changed = make(table(), quality="good", overrides=["ensemble.folds=3"]).ensemble
    assert changed == good.model_copy(update={"folds": 3})
    own = make(table(), quality="good", overrides=["ensemble.members.line=linear"]).ensemble
    assert list(own.members) == ["line"]
    assert own.bags == good.bags

    (message,) = make(table(), overrides=["ensemble.folds=3"]).ensemble.left_out
    assert message == "ensemble: it has no members, so its options do nothing; --quality good has some"


@pytest.mark.parametrize(("side", "number"), [("valid", 8), ("test", 8)])
def test_a_side_without_any_label_is_warned_of(side: str, number: int) -> None:
    labels = [*(["left", "right"] * 16), *[None] * 8]
    split = pa.array([name.replace("valid", side) for name in LAST])
    (warning,) = make(table(label=labels, split=split)).warnings
    assert warning.startswith(f"none of the {number} {'validation' if side == 'valid' else 'test'} rows")

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from plait.data.split import Split, split
from plait.errors import RecipeError, TableError
from plait.recipe.sections import SplitRecipe
from plait.table.problems import leaks
from plait.table.table import Table

LABELS = ["common"] * 80 + ["rare"] * 15 + ["rarer"] * 4 + ["single"]


def table(**columns: Any) -> Table:
    return Table(pa.table({"y": LABELS, "i": np.arange(100)[::-1], **columns}), Path(), "t")


def all_rows(sides: Split) -> list[int]:
    return sorted([*sides.train, *sides.valid, *sides.test])


def sizes(sides: Split) -> list[int]:
    return [len(sides.train), len(sides.valid), len(sides.test)]


def test_stratified_sides_have_the_same_share_of_each_class() -> None:
    sides = split(table(), SplitRecipe(valid=0.2, test=0.2), "y", 0)
    assert all_rows(sides) == list(range(100))
    assert sizes(sides) == [60, 20, 20]
    counts = Counter(LABELS[row] for row in sides.valid)
    assert counts["common"] == 16
    assert counts["rare"] == 3
    assert 99 in sides.train, "a class of one row trains"


def test_the_seed_decides() -> None:
    valid = split(table(), SplitRecipe(), "y", seed=0).valid.tolist()
    assert split(table(), SplitRecipe(), "y", seed=0).valid.tolist() == valid
    assert split(table(), SplitRecipe(), "y", seed=1).valid.tolist() != valid


def test_groups_stay_together() -> None:
    groups = np.arange(100) // 4
    sides = split(table(g=groups), SplitRecipe(group="g", valid=0.2, test=0.2), "y", 0)
    assert all_rows(sides) == list(range(100))
    train_groups = set(groups[sides.train])
    assert not train_groups & set(groups[sides.valid])
    assert not train_groups & set(groups[sides.test])
    assert 12 <= len(sides.valid) <= 28


def test_a_split_says_what_share_of_rows_each_side_has() -> None:
    groups = [0] * 60 + [1] * 40
    sides = split(table(g=groups), SplitRecipe(group="g", valid=0.2), "y", 0)
    share = len(sides.valid)
    assert f"{100 - share} train ({100 - share} %), {share} valid ({share} %)" in sides.described()
    assert "(1 of 2 validate)" in sides.how
    assert "split.valid asks for 20%" in sides.how
    assert "%" not in split(table(), SplitRecipe(), "y", 0).how, "shares are counted, not promised"


def test_time_goes_forward() -> None:
    sides = split(table(), SplitRecipe(time="i", valid=0.2, test=0.1), "y", 0)
    assert sides.test.tolist() == list(range(10))  # column i counts down
    assert sides.valid.tolist() == list(range(10, 30))
    assert sides.train.dtype == np.int64, "torch takes no unsigned row numbers"


def test_a_column_names_the_sides() -> None:
    names = ["train"] * 60 + ["val"] * 20 + ["TEST"] * 10 + [None] * 10
    assert sizes(split(table(s=names), SplitRecipe(column="s"), "y", 0)) == [60, 20, 10]


def test_without_validation_rows_some_training_rows_validate() -> None:
    names = ["train"] * 90 + ["test"] * 10
    assert sizes(split(table(s=names), SplitRecipe(column="s", valid=0.2), "y", 0)) == [72, 18, 10]


def test_tables_that_cannot_be_split_say_why() -> None:
    with pytest.raises(TableError, match="holds 'tarin'; expected train, valid, test"):
        split(table(s=["tarin"] * 100), SplitRecipe(column="s"), "y", 0)
    with pytest.raises(TableError, match="no rows are left to train on"):
        split(table(s=["test"] * 100), SplitRecipe(column="s"), "y", 0)
    with pytest.raises(RecipeError, match=r"split.column and split.time cannot be used together"):
        split(table(), SplitRecipe(column="s", time="i"), "y", 0)


def test_tiny_tables_keep_a_row_to_train() -> None:
    tiny = Table(pa.table({"y": ["a", "b"]}), Path(), "t")
    sides = split(tiny, SplitRecipe(valid=0.2), "y", 0)
    assert len(sides.train) == len(sides.valid) == 1


def test_the_same_file_on_both_sides_is_a_warning() -> None:
    warnings = leaks({"photo": [{b"a"}, {b"b"}, {b"a"}, set()]}, {"train": [0, 1], "valid": [2, 3]})
    assert len(warnings) == 1
    assert "1 file is in both the training and the validation rows" in warnings[0]
    assert not leaks({"photo": [b"a", b"b", b"c", b""]}, {"train": [0, 1], "valid": [2, 3]})


def test_several_files_on_both_sides_are_counted() -> None:
    warnings = leaks({"photo": [{b"a"}, {b"b"}, {b"b"}, {b"a"}]}, {"train": [0, 1], "test": [2, 3]})
    assert "2 files are in both the training and the test rows (rows 0 and 2" in warnings[0]
    assert "scores on test rows will be too good" in warnings[0]

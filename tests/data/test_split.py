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


def whole(found: Split) -> list[int]:
    return sorted([*found.train, *found.valid, *found.test])


def test_stratified_sides_have_the_same_shares_and_every_row_once() -> None:
    found = split(table(), SplitRecipe(valid=0.2, test=0.2), "y", 0)
    assert whole(found) == list(range(100))
    assert len(found.valid) == len(found.test) == 20
    counts = Counter(LABELS[i] for i in found.valid)
    assert counts["common"] == 16
    assert counts["rare"] == 3
    assert 99 in found.train, "a class of one row trains"


def test_the_seed_decides() -> None:
    one, same, other = (split(table(), SplitRecipe(), "y", seed).valid.tolist() for seed in (0, 0, 1))
    assert one == same != other


def test_groups_stay_together_and_time_goes_forward() -> None:
    groups = [i // 4 for i in range(100)]
    found = split(table(g=groups), SplitRecipe(group="g", valid=0.2, test=0.2), "y", 0)
    assert whole(found) == list(range(100))
    sides = [{groups[i] for i in rows} for rows in (found.train, found.valid, found.test)]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert 12 <= len(found.valid) <= 28
    found = split(table(), SplitRecipe(time="i", valid=0.2, test=0.1), "y", 0)
    assert found.test.tolist() == list(range(10))  # column i counts down
    assert found.valid.tolist() == list(range(10, 30))
    assert found.train.dtype == np.int64, "torch takes no unsigned row numbers"


def test_a_column_of_sides() -> None:
    sides = ["train"] * 60 + ["val"] * 20 + ["TEST"] * 10 + [None] * 10
    found = split(table(s=sides), SplitRecipe(column="s"), "y", 0)
    assert [len(found.train), len(found.valid), len(found.test)] == [60, 20, 10]
    found = split(table(s=["train"] * 90 + ["test"] * 10), SplitRecipe(column="s", valid=0.2), "y", 0)
    assert [len(found.train), len(found.valid), len(found.test)] == [72, 18, 10]
    with pytest.raises(TableError, match="holds 'tarin'; expected train, valid, test"):
        split(table(s=["tarin"] * 100), SplitRecipe(column="s"), "y", 0)
    with pytest.raises(TableError, match="no rows are left to train on"):
        split(table(s=["test"] * 100), SplitRecipe(column="s"), "y", 0)
    with pytest.raises(RecipeError, match=r"split.column and split.time cannot be used together"):
        split(table(), SplitRecipe(column="s", time="i"), "y", 0)


def test_tiny_tables_keep_a_row_to_train() -> None:
    tiny = Table(pa.table({"y": ["a", "b"]}), Path(), "t")
    found = split(tiny, SplitRecipe(valid=0.2), "y", 0)
    assert len(found.train) == len(found.valid) == 1


def test_the_same_file_on_both_sides_is_a_warning() -> None:
    found = leaks({"photo": [{b"a"}, {b"b"}, {b"a"}, set()]}, {"train": [0, 1], "valid": [2, 3]})
    assert len(found) == 1
    assert "1 file is in both the training and the validation rows (rows 0 and 2" in found[0]
    assert not leaks({"photo": [b"a", b"b", b"c", b""]}, {"train": [0, 1], "valid": [2, 3]})


def test_several_files_on_both_sides_are_counted() -> None:
    warnings = leaks({"photo": [{b"a"}, {b"b"}, {b"b"}, {b"a"}]}, {"train": [0, 1], "test": [2, 3]})
    assert "2 files are in both the training and the test rows (rows 0 and 2" in warnings[0]
    assert "scores on test rows will be too good" in warnings[0]

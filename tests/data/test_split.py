from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from plait.data.split import Split, sides_in, split
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


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("split", ("training", "testing", "validation")),
        ("Usage", ("Training", "PrivateTest", "PublicTest")),
        ("fold", ("train", "holdout", "dev")),
        ("data_split", ("tr ", "TEST", "val")),
    ],
)
def test_a_table_has_its_own_split_in_many_words(name: str, words: tuple[str, str, str]) -> None:
    train, test, valid = words
    sides = pa.chunked_array([[train] * 70 + [test] * 20 + [valid] * 10])
    assert sides_in(name, sides) == {train: "train", test: "test", valid: "valid"}
    assert not sides_in("style", sides)
    cut = split(table(**{name: sides}), SplitRecipe(column=name), "y", 0)
    assert [len(cut.train), len(cut.test), len(cut.valid)] == [70, 20, 10]


@pytest.mark.parametrize(
    ("name", "cells", "training"),
    [
        ("is_train", [True, False], True),
        ("is_train", [1, 0], 1),
        ("isTest", ["no", "yes"], "no"),
        ("train", ["True", "False"], "True"),
    ],
)
def test_truth_values_split_a_table(name: str, cells: list[Any], training: Any) -> None:
    named = sides_in(name, pa.chunked_array([cells]))
    assert named == {training: "train", cells[cells[0] == training]: "test"}


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("fold", ["0", "1"]),
        ("set", ["train", "plane"]),
        ("is_train", [True, True]),
        ("test", [3, 5]),
        ("split", ["train"]),
    ],
)
def test_columns_that_only_sound_like_a_split_are_none(name: str, cells: list[Any]) -> None:
    assert not sides_in(name, pa.chunked_array([cells]))


@pytest.mark.parametrize(
    ("cells", "latest"),
    [
        (["31/01/2020", "01/12/2023", "15/06/2021", "02/02/2019"], [1]),
        (["9/25/2023", "10/1/2023", "1/30/2023", "9/1/2023"], [1]),
        ([3.5, 12.0, None, 4.0], [1]),
        (["Jan 2020", "Feb 2021", "Dec 2020", "Mar 2019"], [1]),
    ],
)
def test_time_is_sorted_by_what_the_column_is(cells: list[Any], latest: list[int]) -> None:
    times = Table(pa.table({"y": [0, 1, 0, 1], "t": pa.array(cells)}), Path(), "t")
    cut = split(times, SplitRecipe(time="t", valid=0.0, test=0.25), "", 0)
    assert cut.test.tolist() == latest
    assert all_rows(cut) == [0, 1, 2, 3]


def test_rows_of_one_time_stay_together_and_rows_without_train() -> None:
    days = ["2023-01-01"] * 5 + ["2023-01-02"] * 4 + [None]
    cut = split(Table(pa.table({"t": days}), Path(), "t"), SplitRecipe(time="t", valid=0.2), "", 0)
    assert cut.train.tolist() == [0, 1, 2, 3, 4, 9]
    assert cut.valid.tolist() == [5, 6, 7, 8]
    assert "1 without a time train" in cut.how


def test_time_of_words_is_refused() -> None:
    words = Table(pa.table({"t": ["early", "late", "later"]}), Path(), "t")
    with pytest.raises(
        RecipeError, match=r"split.time: expected dates or numbers in column 't', came 'early'"
    ):
        split(words, SplitRecipe(time="t"), "", 0)


def test_a_single_group_is_named() -> None:
    with pytest.raises(TableError, match="all 100 rows have one group, 'a' in column 'g'"):
        split(table(g=["a"] * 100), SplitRecipe(group="g"), "y", 0)


def test_one_group_at_least_trains() -> None:
    for seed in range(5):
        cut = split(table(g=["a"] * 50 + ["b"] * 50), SplitRecipe(group="g", valid=0.6, test=0.3), "y", seed)
        assert len(cut.train)


def test_a_group_of_most_rows_trains() -> None:
    groups = ["big"] * 90 + [f"g{i}" for i in range(10)]
    for seed in range(10):
        cut = split(table(g=groups), SplitRecipe(group="g", valid=0.2), "y", seed)
        assert len(cut.train) >= 90
        assert len(cut.valid)


def test_shares_that_leave_no_row_to_train_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected valid \+ test below 1, came 0.6 \+ 0.4"):
        SplitRecipe(valid=0.6, test=0.4)


def test_several_files_on_both_sides_are_counted() -> None:
    warnings = leaks({"photo": [{b"a"}, {b"b"}, {b"b"}, {b"a"}]}, {"train": [0, 1], "test": [2, 3]})
    assert "2 files are in both the training and the test rows (rows 0 and 2" in warnings[0]
    assert "scores on test rows will be too good" in warnings[0]

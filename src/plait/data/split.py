"""Which rows train, which validate, which are kept for the test."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import PlainSerializer, PlainValidator
from pydantic.dataclasses import dataclass

from plait.errors import RecipeError, TableError, count
from plait.recipe.sections import SplitRecipe
from plait.table.table import Table

# What a split column may call a row's side, and the side.
SIDES = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}


def as_ranges(rows: np.ndarray) -> str:
    """Write ascending row numbers as on a print dialog.

    >>> as_ranges(np.array([0, 1, 2, 5, 7, 8]))
    '0-2 5 7-8'
    """
    if not len(rows):
        return ""
    # a range begins where a row does not follow the one before it; the number before the first row is none
    first = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)
    last = np.append(first[1:], len(rows)) - 1
    ranges = []
    for begin, end in zip(rows[first].tolist(), rows[last].tolist(), strict=True):
        ranges.append(str(begin) if begin == end else f"{begin}-{end}")
    return " ".join(ranges)


def from_ranges(text: str) -> np.ndarray:
    """Read row numbers that `as_ranges` wrote. Raises `ValueError`."""
    ranges = []
    for span in text.split():
        begin, _, end = span.partition("-")
        ranges.append(np.arange(int(begin), int(end or begin) + 1))
    return np.concatenate(ranges) if ranges else np.zeros(0, dtype=np.int64)


def _row_numbers(rows: object) -> np.ndarray:
    return from_ranges(rows) if isinstance(rows, str) else np.asarray(rows, dtype=np.int64)


RowNumbers = Annotated[np.ndarray, PlainValidator(_row_numbers), PlainSerializer(as_ranges, return_type=str)]
NO_ROWS = np.zeros(0, dtype=np.int64)
NOTABLE = 0.05  # difference between the share of validation rows and the one asked for that is pointed out


@dataclass(frozen=True, eq=False)
class Split:
    """The row numbers of each side, in the table's order, and `how` the table was split.

    Rows that the split column leaves empty are on no side. `unlabelled` are rows of the training side without
    a label that are learned from all the same. `without_label` counts the rows of the table without a label.
    `stratify` names the column whose classes are dealt in equal shares, to the sides and to folds; none if
    empty. In JSON, row numbers are ranges (see `as_ranges`).
    """

    train: RowNumbers
    valid: RowNumbers
    test: RowNumbers
    how: str
    unlabelled: RowNumbers = field(default_factory=NO_ROWS.copy)
    stratify: str = ""
    without_label: int = 0

    def sides(self) -> dict[str, list[int]]:
        """Return the row numbers of each side that has rows, by its name."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: rows.tolist() for name, rows in named.items() if len(rows)}

    def described(self) -> str:
        """Return how many rows each side has, the share that this is, and how they were split."""
        counts = {name: len(rows) for name, rows in self.sides().items()}
        sides = [f"{number:,} {name} ({share(number, counts)})" for name, number in counts.items()]
        return f"{', '.join(sides)}; {self.how}"


def share(number: int, counts: Mapping[str, int]) -> str:
    """Return the share that a side has of the rows of all sides.

    >>> share(31, {"train": 69, "valid": 31})
    '31 %'
    """
    return f"{number / sum(counts.values()):.0%}".replace("%", " %")


def split(table: Table, recipe: SplitRecipe, stratify: str, seed: int) -> Split:
    """Split a table as the recipe asks. `stratify` names a column of classes, or none if empty.

    Raises `TableError` when a side would be empty, `RecipeError` when options contradict each other.
    """
    options = {"column": recipe.column, "group": recipe.group, "time": recipe.time}
    used = [name for name, column in options.items() if column]
    if len(used) > 1 and "time" in used:
        raise RecipeError(f"recipe: split.{used[0]} and split.{used[1]} cannot be used together")

    if recipe.column:
        sides = _by_column(table, recipe, recipe.column, stratify, seed)
    elif recipe.group:
        sides = _by_group(table, recipe, recipe.group, seed)
    elif recipe.time:
        sides = _by_time(table, recipe, recipe.time)
    else:
        sides = _at_random(table, recipe, stratify, seed)
    if not len(sides.train):
        raise TableError(f"no rows are left to train on: {count(len(table), 'row')}, split {sides.how}")
    return sides


def folds(
    table: Table, rows: np.ndarray, count: int, group: str | None, stratify: str, seed: int
) -> list[np.ndarray]:
    """Cut `rows` into up to `count` folds of about the same size, and return their places in `rows`.

    No group of the column `group` is in two of them. Classes of the column `stratify` are in equal shares.
    There are fewer folds where there are fewer groups or rows. Raises `TableError` for fewer than two.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    groups = _codes(table, group, rows) if group else None
    available = len(rows) if groups is None else len(np.unique(groups))
    count = min(count, available)
    if count < 2:
        units = f"groups of {group!r}" if group else "rows"
        raise TableError(f"expected two or more {units} to make folds of, found {count}")

    # scikit-learn refuses to stratify where no class has a row for each fold
    labels = _codes(table, stratify, rows) if stratify else np.zeros(len(rows), dtype=int)
    if stratify and np.bincount(labels).max() < count:
        labels = np.zeros_like(labels)

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than there are folds
        cut = kind(count, shuffle=True, random_state=seed).split(labels, labels, groups)
        return [held_out for _, held_out in cut]


def _codes(table: Table, column: str, rows: np.ndarray) -> np.ndarray:
    """Return a number for each different cell of a column."""
    cells = table.column(column).take(pa.array(rows))
    if pa.types.is_nested(cells.type):
        raise TableError(f"rows cannot be grouped by '{column}', whose cells are of type {cells.type}")
    codes: np.ndarray = (
        pc.dictionary_encode(cells, null_encoding="encode").combine_chunks().indices.to_numpy()
    )
    return codes


def _at_random(table: Table, recipe: SplitRecipe, stratify: str, seed: int) -> Split:
    """Draw the rows of each side. With `stratify`, classes of this column are in equal shares."""
    labels = table.column(stratify) if stratify else None
    rows = np.arange(len(table))
    train, valid, test = _shuffled(rows, recipe.valid, recipe.test, labels, seed)

    how = ["at random"]
    if stratify:
        how.append("classes in equal shares")
    how.append(f"seed {seed}")
    return Split(train, valid, test, ", ".join(how))


def _by_time(table: Table, recipe: SplitRecipe, column: str) -> Split:
    """Put the rows in order of a column: the first ones train, later ones validate, the last ones test."""
    order = pc.sort_indices(table.column(column)).to_numpy().astype(np.int64)
    test_count = round(len(order) * recipe.test)
    valid_count = round(len(order) * recipe.valid)
    valid_begin = len(order) - test_count - valid_count
    test_begin = valid_begin + valid_count
    return Split(
        train=np.sort(order[:valid_begin]),
        valid=np.sort(order[valid_begin:test_begin]),
        test=np.sort(order[test_begin:]),
        how=f"in the order of {column}, the last rows to validate and test",
    )


def _by_column(table: Table, recipe: SplitRecipe, column: str, stratify: str, seed: int) -> Split:
    """Split by a column that names each row's side. Raises `TableError` for a cell that names none."""
    side = _named_sides(table, column)
    train = np.flatnonzero(side == "train")
    valid = np.flatnonzero(side == "valid")
    test = np.flatnonzero(side == "test")
    how = f"by column '{column}'"

    # training needs validation rows: without any, some training rows become them
    if not len(valid) and recipe.valid and recipe.group:
        without_test = recipe.model_copy(update={"test": 0.0})
        sides = _by_group(table.take(train), without_test, recipe.group, seed)
        train, valid = train[sides.train], train[sides.valid]
        how += f", validation rows out of its training rows {sides.how}"
    elif not len(valid) and recipe.valid:
        labels = table.column(stratify).take(pa.array(train)) if stratify else None
        places = np.arange(len(train))
        train_places, valid_places, _ = _shuffled(places, recipe.valid, 0.0, labels, seed)
        train, valid = train[train_places], train[valid_places]
        how += f", validation rows out of its training rows at random, seed {seed}"
    return Split(train, valid, test, how)


def _named_sides(table: Table, column: str) -> np.ndarray:
    """Return each row's side, "train", "valid" or "test"; empty where the cell is."""
    cells = table.column(column).to_pylist()
    names = ["" if cell is None else str(cell).lower() for cell in cells]
    unknown = sorted(set(names) - set(SIDES) - {""})
    if unknown:
        raise TableError(
            f"split column '{column}' holds '{unknown[0]}'; expected train, valid, test or nothing"
        )
    return np.array([SIDES.get(name, "") for name in names])


def _by_group(table: Table, recipe: SplitRecipe, column: str, seed: int) -> Split:
    """Deal whole groups, in random order, until a side has its share of the rows.

    The first groups test, the next ones validate, and all others train.
    """
    groups = _codes(table, column, np.arange(len(table)))
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    sizes = np.bincount(groups)[order]
    rows_before = np.cumsum(sizes) - sizes  # in all groups that come before

    valid_begin = recipe.test * len(groups)
    train_begin = (recipe.test + recipe.valid) * len(groups)
    tests = rows_before < valid_begin
    validates = ~tests & (rows_before < train_begin)
    is_test = np.isin(groups, order[tests])
    is_valid = np.isin(groups, order[validates])

    how = f"by whole groups of '{column}' ({validates.sum():,} of {len(order):,} validate), seed {seed}"
    if abs(is_valid.mean() - recipe.valid) > NOTABLE:
        how += f"; split.valid asks for {recipe.valid:.0%}, but large groups are not cut"
    return Split(
        train=np.flatnonzero(~is_test & ~is_valid),
        valid=np.flatnonzero(is_valid),
        test=np.flatnonzero(is_test),
        how=how,
    )


def _shuffled(
    rows: np.ndarray, valid: float, test: float, labels: pa.ChunkedArray | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the rows that train, validate and test; with `labels`, each class is dealt in the same shares."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    if labels is not None:
        order = _dealt(order, labels, rng)

    # one row at least must train, and one must validate if that is asked for at all
    test_count = min(round(len(order) * test), len(order) - 1)
    min_valid_count = 1 if valid and len(order) > 1 else 0
    valid_count = max(round(len(order) * valid), min_valid_count)
    valid_count = min(valid_count, len(order) - test_count - 1)
    train_begin = test_count + valid_count
    return (
        np.sort(order[train_begin:]),
        np.sort(order[test_count:train_begin]),
        np.sort(order[:test_count]),
    )


def _dealt(order: np.ndarray, labels: pa.ChunkedArray, rng: np.random.Generator) -> np.ndarray:
    """Put rows into an order in which every stretch has the same shares of each class.

    A class of one row comes last: it trains.
    """
    encoded = pc.dictionary_encode(labels, null_encoding="encode").combine_chunks()
    codes = encoded.indices.to_numpy()[order]
    ranks = np.empty(len(order))  # each row's place within its class, as a share of the class
    for code in np.unique(codes):
        places = np.flatnonzero(codes == code)
        # else the first rows of all classes would lie side by side
        offset = rng.random()
        ranks[places] = (np.arange(len(places)) + offset) / len(places)
        if len(places) == 1:
            ranks[places] = 1.0
    return order[np.argsort(ranks, kind="stable")]

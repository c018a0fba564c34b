"""Which rows train, which validate, which are kept for the test."""

from __future__ import annotations

import re
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
from plait.table.conventions.infer import infer_convention
from plait.table.conventions.plain import Plain
from plait.table.conventions.truth import Truth
from plait.table.table import Table

NO_COLUMN = "none"  # as split.column: the table's own split is not used

# What tables call their sides. Kaggle's public test rows are for looking at, so they validate.
SIDES = {
    **dict.fromkeys(("train", "training", "tr", "trn", "learn", "learning", "fit"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev", "devel", "development", "publictest"), "valid"),
    **dict.fromkeys(
        ("test", "testing", "tst", "holdout", "hold-out", "hold_out", "heldout", "held-out", "privatetest"),
        "test",
    ),
    # To some these rows validate, and to others they test: as test rows they have no say in the training.
    **dict.fromkeys(("eval", "evaluation"), "test"),
}

SIDE_COLUMNS = re.compile(
    r"(data|train|test|my)?[_\- .]?(split|k?fold|partition|subset|set|dataset|phase|usage|sample|stage)s?"
    r"|train[_\-/ .]?(or[_\- .])?(test|valid|val)",
    re.IGNORECASE,
)
TRUTH_COLUMNS = re.compile(
    r"(is|in|for)?[_\- .]?(train|training|test|valid|validation|holdout)([_\- .]?(set|split|sample|row))?",
    re.IGNORECASE,
)
ONLY_SPLITS = re.compile(r"(data|train|test|my)?[_\- .]?(split|k?fold|partition)s?", re.IGNORECASE)


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
    column = recipe.column
    if column == NO_COLUMN and NO_COLUMN not in table.data.column_names:
        column = None
    options = {"column": column, "group": recipe.group, "time": recipe.time}
    used = [name for name, value in options.items() if value]
    if len(used) > 1 and "time" in used:
        raise RecipeError(f"recipe: split.{used[0]} and split.{used[1]} cannot be used together")

    if table.parts:
        names = ", ".join(part.name for part in table.parts)
        sides = _by_name(table, table.sides(), f"by table ({names})", recipe, stratify, seed)
    elif column:
        sides = _by_name(table, _named_sides(table, column), f"by column '{column}'", recipe, stratify, seed)
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
    groups = _codes(table, group, rows) if group else None
    available = len(rows) if groups is None else len(np.unique(groups))
    count = min(count, available)
    if count < 2:
        units = f"groups of {group!r}" if group else "rows"
        raise TableError(f"expected two or more {units} to make folds of, found {count}")

    labels = _codes(table, stratify, rows) if stratify else np.zeros(len(rows), dtype=int)
    if groups is not None:
        return _group_folds(groups, labels, count, seed)

    # The rows of each class are shuffled, and all of them are dealt to the folds in turn.
    shuffled = np.random.default_rng(seed).random(len(rows))
    order = np.lexsort((shuffled, labels))
    return [np.sort(order[fold::count]) for fold in range(count)]


def _group_folds(groups: np.ndarray, labels: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Cut rows into folds, each of whole groups, with classes in shares that are as equal as that allows."""
    from sklearn.model_selection import StratifiedGroupKFold  # takes longer to import than a small training

    # scikit-learn refuses to stratify where no class has a row for each fold
    if np.bincount(labels).max() < count:
        labels = np.zeros_like(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than there are folds
        cut = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups)
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


def _by_name(
    table: Table, side_B: np.ndarray, how: str, recipe: SplitRecipe, stratify: str, seed: int
) -> Split:
    """Split by the name of each row's side. Without validation rows, some training rows validate."""
    train = np.flatnonzero(side_B == "train")
    valid = np.flatnonzero(side_B == "valid")
    test = np.flatnonzero(side_B == "test")
    if len(valid) or not recipe.valid:
        return Split(train, valid, test, how)

    training_table = table.take(train)
    without_test = recipe.model_copy(update={"test": 0.0})
    if recipe.group:
        sides = _by_group(training_table, without_test, recipe.group, seed)
    elif recipe.time:
        sides = _by_time(training_table, without_test, recipe.time)
    else:
        sides = _at_random(training_table, without_test, stratify, seed)
    how += f"; of its training rows, {sides.how}"
    return Split(train[sides.train], train[sides.valid], test, how)


def sides_in(name: str, cells: pa.ChunkedArray) -> dict[object, str]:
    """Return which side each different cell of a column names; nothing for a column that names none.

    That is a column with the name of a split which holds words for training and for another side, or one
    such as `is_train` that holds truth values.
    """
    if pa.types.is_nested(cells.type):
        return {}
    if SIDE_COLUMNS.fullmatch(name):
        distinct = pc.unique(cells.drop_null()).to_pylist()
        named = {cell: SIDES.get(str(cell).strip().lower(), "") for cell in distinct}
        sides = set(named.values())
        return named if "" not in sides and "train" in sides and len(sides) > 1 else {}
    match = TRUTH_COLUMNS.fullmatch(name)
    if match:
        return _sides_of_truth(SIDES[match[2].lower()], cells)
    return {}


def is_named_like_a_split(name: str) -> bool:
    """Return whether a column has a name that hardly anything but a split has."""
    return bool(ONLY_SPLITS.fullmatch(name))


def _sides_of_truth(true_side: str, cells: pa.ChunkedArray) -> dict[object, str]:
    """Return the sides that truth values name, where True names this side."""
    false_side = "test" if true_side == "train" else "train"
    sides: dict[object, str] = {}
    for cell in pc.unique(cells.drop_null()).to_pylist():
        truth = Truth().read(pa.chunked_array([pa.array([cell])])).cells[0].as_py()
        if truth is None:
            return {}
        sides[cell] = true_side if truth else false_side
    return sides if len(set(sides.values())) == 2 else {}


def _named_sides(table: Table, column: str) -> np.ndarray:
    """Return each row's side, "train", "valid" or "test"; empty where the cell is."""
    cells = table.column(column)
    by_cell = sides_in(column, cells)
    for cell in pc.unique(cells.drop_null()).to_pylist():
        by_cell.setdefault(cell, SIDES.get(str(cell).strip().lower(), ""))
        if not by_cell[cell]:
            raise TableError(
                f"split column '{column}' holds '{cell}'; expected train, valid, test or nothing. "
                f"To choose rows otherwise: --set split.column=none"
            )
    return np.array([by_cell.get(cell, "") for cell in cells.to_pylist()])


def _by_group(table: Table, recipe: SplitRecipe, column: str, seed: int) -> Split:
    """Deal whole groups, in random order, until a side has its share of the rows.

    The first groups test, the next ones validate, and all others train, as does a group of more than half of
    the rows. A row without a group trains: nobody can say with which rows it belongs. Raises `TableError` for
    fewer than two groups.
    """
    cells = table.column(column)
    has_group = cells.is_valid().to_numpy()
    if not has_group.any():
        raise TableError(f"split.group: no row has a group in column '{column}'. Choose another column")
    groups = _codes(table, column, np.flatnonzero(has_group))
    count = int(groups.max()) + 1
    if count < 2:
        group = cells.drop_null()[0].as_py()
        raise TableError(
            f"split.group: all {len(groups)} rows have one group, '{group}' in column '{column}'; a split "
            f"needs two or more. Choose another column, or leave split.group out"
        )
    order = np.random.default_rng(seed).permutation(count)
    # A group of more than half of the rows trains: else hardly a row might be left to learn from.
    is_large = np.bincount(groups)[order] > len(groups) / 2
    order = np.concatenate([order[~is_large], order[is_large]])
    sizes = np.bincount(groups)[order]
    rows_before = np.cumsum(sizes) - sizes  # in all groups that come before

    valid_begin = recipe.test * len(groups)
    train_begin = (recipe.test + recipe.valid) * len(groups)
    tests = rows_before < valid_begin
    validates = ~tests & (rows_before < train_begin)
    tests[-1] = validates[-1] = False  # one group at least must train
    is_test = np.zeros(len(table), dtype=bool)
    is_test[has_group] = np.isin(groups, order[tests])
    is_valid = np.zeros(len(table), dtype=bool)
    is_valid[has_group] = np.isin(groups, order[validates])

    how = f"by whole groups of '{column}' ({validates.sum():,} of {len(order):,} validate), seed {seed}"
    if abs(is_valid.mean() - recipe.valid) > NOTABLE:
        how += f"; split.valid asks for {recipe.valid:.0%}, but large groups are not cut"
    without = int(np.count_nonzero(~has_group))
    if without:
        how += f"; {without:,} without a group train"
    return Split(
        train=np.flatnonzero(~is_test & ~is_valid),
        valid=np.flatnonzero(is_valid),
        test=np.flatnonzero(is_test),
        how=how,
    )


def _by_time(table: Table, recipe: SplitRecipe, column: str) -> Split:
    """Train on the earliest rows, and keep the latest for the test. Rows of one time stay together.

    A row without a time trains: nobody can say that it is late. Raises `RecipeError` for a column of words.
    """
    cells = table.column(column)
    recognised = infer_convention(cells)
    if isinstance(recognised.convention, Plain):
        first = next((cell for cell in cells.to_pylist() if cell is not None), None)
        raise RecipeError(
            f"split.time: expected dates or numbers in column '{column}', came {str(first)[:40]!r}; "
            f"for dates of a rare format: --set columns.{column}.format=..."
        )
    times = recognised.convention.read(cells).cells
    has_time = times.is_valid().to_numpy(zero_copy_only=False)
    places = np.flatnonzero(has_time)
    time_B = times.drop_null().to_numpy(zero_copy_only=False)

    _, moment_B = np.unique(time_B, return_inverse=True)
    ends = np.cumsum(np.bincount(moment_B))  # how many rows there are up to each moment
    tested = _last_row(ends, len(time_B), recipe.test)
    validated = _last_row(ends[ends <= tested], tested, recipe.valid * len(time_B) / max(tested, 1))
    rank_B = ends[moment_B]
    train = places[rank_B <= validated]
    valid = places[(rank_B > validated) & (rank_B <= tested)]
    test = places[rank_B > tested]

    how = f"in the order of '{column}', the last rows to validate and test"
    without = np.flatnonzero(~has_time)
    if len(without):
        how += f"; {len(without)} without a time train"
    return Split(np.sort(np.concatenate([train, without])), valid, test, how)


def _last_row(ends: np.ndarray, rows: int, share: float) -> int:
    """Return up to which row to go so that about this share of `rows` comes later, and at least one moment.

    `ends` has the number of rows up to each moment.
    """
    if not share or len(ends) < 2:
        return rows
    earlier = ends[:-1]
    return int(earlier[np.abs(earlier - rows * (1 - share)).argmin()])


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

"""Which rows train, which validate, which are kept for the test."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plait.errors import RecipeError, TableError
from plait.recipe.sections import SplitRecipe
from plait.table.table import Table

SIDES = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}


@dataclass(frozen=True)
class Split:
    """Row numbers, each in the table's order. Rows that the split column leaves empty are on no side."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    how: str

    def sides(self) -> dict[str, list[int]]:
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: rows.tolist() for name, rows in named.items() if len(rows)}


def split(table: Table, recipe: SplitRecipe, target: str, seed: int, classes: bool) -> Split:
    """The split that the recipe asks for. `classes`: the target can be stratified.

    Raises `TableError` when a side would be empty, `RecipeError` when options contradict each other.
    """
    asked = [
        name
        for name, value in (("column", recipe.column), ("group", recipe.group), ("time", recipe.time))
        if value
    ]
    if len(asked) > 1 and "time" in asked:
        raise RecipeError(f"recipe: split.{asked[0]} and split.{asked[1]} cannot be used together")
    rows = np.arange(len(table))
    if recipe.column:
        done = _by_column(table, recipe, target, seed, classes)
    elif recipe.group:
        done = _by_group(table, recipe, seed)
    elif recipe.time:
        order = pc.sort_indices(table.column(recipe.time)).to_numpy().astype(np.int64)
        done = Split(
            *_cut(order, recipe), f"in the order of {recipe.time}, the last rows to validate and test"
        )
    else:
        labels = table.column(target) if classes and recipe.stratify else None
        done = Split(
            *_shuffled(rows, recipe.valid, recipe.test, labels, seed),
            _words(recipe, labels is not None, seed),
        )
    if not len(done.train):
        raise TableError(f"no rows are left to train on: {len(table)} rows, split {done.how}")
    return done


def folds(
    rows: np.ndarray, count: int, table: Table, recipe: SplitRecipe, target: str, seed: int, classes: bool
) -> list[np.ndarray]:
    """Places in `rows`, in up to `count` parts of about the same size, no group of the recipe's in two
    of them, and classes in equal shares where there are any. Fewer parts where there are fewer groups
    or rows.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    some = pa.array(rows)
    groups = None
    if recipe.group:
        groups = (
            pc.dictionary_encode(table.column(recipe.group).take(some), null_encoding="encode")
            .combine_chunks()
            .indices.to_numpy()
        )
    count = min(count, len(rows) if groups is None else len(np.unique(groups)))
    if count < 2:
        raise TableError(
            f"expected two or more {f'groups of {recipe.group!r}' if recipe.group else 'rows'} to make folds "
            f"of, found {count}"
        )
    labels = np.zeros(len(rows), dtype=int)
    if classes and recipe.stratify:
        cells = table.column(target).take(some)
        labels = pc.dictionary_encode(cells, null_encoding="encode").combine_chunks().indices.to_numpy()
        if np.bincount(labels).max() < count:  # nothing to share out
            labels = np.zeros_like(labels)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than there are folds
        return [
            part for _, part in kind(count, shuffle=True, random_state=seed).split(labels, labels, groups)
        ]


def _words(recipe: SplitRecipe, stratified: bool, seed: int) -> str:
    parts = [
        f"{recipe.valid:.0%} at random to validate",
        *([f"{recipe.test:.0%} to test"] if recipe.test else []),
    ]
    return ", ".join([*parts, *(["classes in equal shares"] if stratified else []), f"seed {seed}"])


def _by_column(table: Table, recipe: SplitRecipe, target: str, seed: int, classes: bool) -> Split:
    assert recipe.column is not None
    cells = [str(c).lower() if c is not None else "" for c in table.column(recipe.column).to_pylist()]
    unknown = sorted(set(cells) - set(SIDES) - {""})
    if unknown:
        raise TableError(
            f"split column '{recipe.column}' holds '{unknown[0]}'; expected train, valid, test or nothing"
        )
    side = np.array([SIDES.get(c, "") for c in cells])
    train, valid, test = (np.flatnonzero(side == name) for name in ("train", "valid", "test"))
    how = f"by column '{recipe.column}'"
    if not len(valid) and recipe.valid and recipe.group:
        part = Table(table.data.take(pa.array(train)), table.root, table.name)
        sides = _by_group(part, recipe.model_copy(update={"test": 0.0}), seed)
        train, valid = train[sides.train], train[sides.valid]
        how += f", and {recipe.valid:.0%} of its training rows, in {sides.how}, to validate"
    elif not len(valid) and recipe.valid:
        labels = table.column(target).take(pa.array(train)) if classes and recipe.stratify else None
        kept, held, _ = _shuffled(np.arange(len(train)), recipe.valid, 0.0, labels, seed)
        train, valid = train[kept], train[held]
        how += f", and {recipe.valid:.0%} of its training rows to validate"
    return Split(train, valid, test, how)


def _by_group(table: Table, recipe: SplitRecipe, seed: int) -> Split:
    assert recipe.group is not None
    groups = (
        pc.dictionary_encode(table.column(recipe.group), null_encoding="encode")
        .combine_chunks()
        .indices.to_numpy()
    )
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    sizes = np.bincount(groups)[order]
    before = np.cumsum(sizes) - sizes
    ends = np.array([recipe.test, recipe.test + recipe.valid]) * len(groups)
    side = np.where(before < ends[0], 2, np.where(before < ends[1], 1, 0))
    of_row = np.empty(len(order), dtype=int)
    of_row[order] = side
    train, valid, test = (np.flatnonzero(of_row[groups] == s) for s in (0, 1, 2))
    return Split(train, valid, test, f"whole groups of '{recipe.group}', seed {seed}")


def _cut(order: np.ndarray, recipe: SplitRecipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    test = round(len(order) * recipe.test)
    valid = round(len(order) * recipe.valid)
    first = len(order) - test - valid
    return np.sort(order[:first]), np.sort(order[first : first + valid]), np.sort(order[first + valid :])


def _shuffled(
    rows: np.ndarray, valid: float, test: float, labels: pa.ChunkedArray | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random sides; with labels each class is dealt in the same shares, and a class of one row trains."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    if labels is not None:
        code = pc.dictionary_encode(labels, null_encoding="encode").combine_chunks().indices.to_numpy()[order]
        rank = np.empty(len(order))  # each row's place within its class, as a share of the class
        for value in np.unique(code):
            members = np.flatnonzero(code == value)
            rank[members] = (np.arange(len(members)) + rng.random()) / len(members)
            if len(members) == 1:
                rank[members] = 1.0
        order = order[np.argsort(rank, kind="stable")]
    held = min(round(len(order) * test), len(order) - 1)
    next_ = min(max(round(len(order) * valid), 1 if valid and len(order) > 1 else 0), len(order) - held - 1)
    return np.sort(order[held + next_ :]), np.sort(order[held : held + next_]), np.sort(order[:held])

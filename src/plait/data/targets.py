"""What is predicted: each target's column with labels, how it writes them, and its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from pydantic import ValidationError

from plait.data.reading import Conventions, infer_conventions, of_target
from plait.errors import RecipeError, TableError, count, nearest
from plait.recipe.explain import explain
from plait.recipe.parse import quote
from plait.recipe.recipe import Recipe
from plait.table.table import Table
from plait.table.typed import read_cells
from plait.tasks.base import TaskOptions
from plait.tasks.base import tasks as task_registry

SHOWN = 3  # odd labels that a warning names


@dataclass(frozen=True)
class Targets:
    """The targets of a table, typed by all of its rows. Its inputs are not inferred yet.

    By target, `labels` names the column with the labels, `tasks` the task, and `reasons` says why. For each
    task that compares columns, `alignments` has those that the recipe names. Where it names none, they are
    chosen once the inputs are inferred. `conventions` are those of the columns with labels. `warnings` names
    labels that are most likely mistakes.
    """

    labels: dict[str, str]
    tasks: dict[str, str]
    reasons: dict[str, str]
    alignments: dict[str, list[str]]
    hidden: list[str]  # columns with labels that are no inputs
    conventions: Conventions = field(default_factory=Conventions)
    warnings: list[str] = field(default_factory=list)

    @property
    def classes(self) -> str:
        """The column with the first target's labels if these are classes, which can be stratified."""
        if not self.labels:
            return ""
        target, column = next(iter(self.labels.items()))
        task = task_registry.find(self.tasks[target])
        return column if task.may_stratify else ""


def find_targets(table: Table, recipe: Recipe, names: Sequence[str]) -> Targets:
    """Find the targets that are named, and those of the recipe's tasks that have labels.

    Raises `TableError` for a table without rows, or a target that is no column or that no task fits.
    """
    if not len(table):
        raise TableError(f"{table.name} has no rows")
    _check_options(recipe)
    alignments = _named_alignments(recipe)
    targets = _target_names(recipe, names, alignments, table)
    labels = {target: _label_column(recipe, target) for target in targets}
    conventions = _label_conventions(table, recipe, labels)
    table = read_cells(table, conventions.by_column)

    tasks = {}
    reasons = {}
    warnings = []
    for target, column in labels.items():
        tasks[target], reasons[target] = _task(recipe, target, table.column(column))
        warnings += _odd_labels(table, target, column, tasks[target])

    hidden = _hidden_labels(recipe, labels, alignments)
    return Targets(labels, tasks, reasons, alignments, hidden, conventions, warnings)


def _odd_labels(table: Table, target: str, column: str, task: str) -> list[str]:
    """Warn of the labels of a target that are most likely mistakes; nothing if there are none."""
    odd = task_registry.find(task).odd(table.column(column))
    if not odd:
        return []
    shown = []
    for row, why in list(odd.items())[:SHOWN]:
        name, number = table.place(row)
        shown.append(f"{name} row {number} has {why}" if table.parts else f"row {number} has {why}")
    if len(odd) > SHOWN:
        shown.append(f"and {count(len(odd) - SHOWN, 'other row')}")
    return [
        f"target '{target}': {'; '.join(shown)}. Such labels outweigh all others: correct them, or leave "
        f"them empty"
    ]


def _check_options(recipe: Recipe) -> None:
    """Raise `RecipeError` for options of a task that are wrong by themselves, before any of them is read."""
    for target, choice in recipe.tasks.items():
        if choice.name:
            defaults = recipe.task_defaults.get(choice.name, {})
            task_registry.configure(choice.name, {**defaults, **choice.options})
            continue
        # the labels tell which task it is, and only these options tell where they are
        shared = {name: choice.options[name] for name in TaskOptions.model_fields if name in choice.options}
        try:
            TaskOptions(**shared)
        except ValidationError as error:
            raise RecipeError(explain(error, TaskOptions, f"task '{target}'")) from error


def _task(recipe: Recipe, target: str, labels: pa.ChunkedArray) -> tuple[str, str]:
    """Return a target's task, and why it has this one: the recipe names it, or its labels suggest it."""
    choice = recipe.tasks.get(target)
    if choice is None or not choice.name:
        return _infer_task(target, labels)
    if labels.null_count == len(labels):
        raise TableError(f"target '{target}' has no labels at all; expected labels for {choice.name}")
    if task_registry.find(choice.name).may_stratify and pa.types.is_nested(labels.type):
        raise TableError(
            f"target '{target}' has cells of type {labels.type}; {choice.name} expects one class in a cell"
        )
    return choice.name, "set in the recipe"


def _target_names(
    recipe: Recipe, names: Sequence[str], alignments: Mapping[str, list[str]], table: Table
) -> list[str]:
    """Return the named targets, and the recipe's tasks that have labels.

    Beside named targets, a task of the recipe counts only if it says which column has its labels. Others may
    belong to columns that are no targets this time. Raises `RecipeError` if there is no such column.
    """
    targets = list(names)
    columns = table.data.column_names
    for name, choice in recipe.tasks.items():
        if name in alignments or name in targets:
            continue
        if not names or choice.options.get("column"):
            targets.append(name)
        elif name not in columns:
            raise RecipeError(
                f"recipe: the task '{name}' is neither a target nor a column of {table.name}: "
                f"{nearest(name, [*names, *columns])}"
            )
    if "problem" in targets:
        raise RecipeError(
            "a target cannot be named 'problem': predictions have a column of that name; rename yours"
        )
    return targets


def _hidden_labels(
    recipe: Recipe, labels: Mapping[str, str], alignments: Mapping[str, list[str]]
) -> list[str]:
    """Return the columns with labels that are no inputs.

    A column is both only if the recipe names it as an input, and the target has another name.
    """
    inputs: set[str] = set().union(*alignments.values())
    for column, column_recipe in recipe.columns.items():
        if column_recipe.role == "input":
            inputs.add(column)

    hidden = []
    for target, column in labels.items():
        if column == target or column not in inputs:
            hidden.append(column)
    return hidden


def _label_conventions(table: Table, recipe: Recipe, labels: Mapping[str, str]) -> Conventions:
    """Infer how the columns with labels write them, by all rows: a split must not change their type."""
    columns = {}
    as_numbers = {}
    for target, column in labels.items():
        choice = recipe.tasks.get(target)
        columns[column] = of_target(choice.name if choice else "")
        as_numbers[column] = f"tasks.{quote(target)}=regression"
    return infer_conventions(table, columns, recipe, as_numbers=as_numbers)


def _infer_task(target: str, labels: pa.ChunkedArray) -> tuple[str, str]:
    """Return the task that fits the labels of a target best, and why.

    Raises `TableError` when none does, or when there is no label.
    """
    cells = labels.drop_null()
    matches = {}
    for name in task_registry.names() if len(cells) else ():
        if match := task_registry.find(name).matches(cells):
            matches[name] = match
    if not matches:
        content = f"cells of type {cells.type}" if len(cells) else "no labels at all"
        raise TableError(
            f"target '{target}' has {content}; expected classes, numbers, texts or lists of labels"
        )
    best = max(matches, key=lambda name: matches[name].score)
    return best, matches[best].reason


def _named_alignments(recipe: Recipe) -> dict[str, list[str]]:
    """Return the columns that the recipe names for each task without a target; none if it names none."""
    alignments = {}
    for name, choice in recipe.tasks.items():
        if not choice.name or task_registry.find(choice.name).has_target:
            continue
        if choice.options.get("column"):
            raise RecipeError(f"task '{name}' compares columns, its inputs, and has no labels in another one")
        alignments[name] = list(choice.options.get("inputs") or ())
    return alignments


def _label_column(recipe: Recipe, target: str) -> str:
    """Return the column with a target's labels: that of its own name, unless the recipe names another."""
    choice = recipe.tasks.get(target)
    column = choice.options.get("column") if choice else None
    return column or target

"""What is predicted: each target's column with labels, its task, and the columns that the task reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pydantic import ValidationError

from plait.data.infer import infer_task
from plait.errors import RecipeError, TableError, nearest
from plait.modalities.base import modalities as modality_registry
from plait.recipe.explain import explain
from plait.recipe.recipe import Recipe
from plait.recipe.registry import Choice
from plait.table.schema import Schema
from plait.table.table import Table
from plait.tasks.base import Task, TaskOptions
from plait.tasks.base import tasks as task_registry


@dataclass(frozen=True)
class Targets:
    """The targets of a table, typed by all of its rows. Its inputs are not inferred yet.

    By target, `labels` names the column with the labels, `tasks` the task, and `reasons` says why. For each
    task that compares columns, `alignments` has those that the recipe names. Where it names none, they are
    chosen once the inputs are inferred.
    """

    labels: dict[str, str]
    tasks: dict[str, str]
    reasons: dict[str, str]
    alignments: dict[str, list[str]]
    hidden: list[str]  # columns with labels that are no inputs

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

    tasks = {}
    reasons = {}
    for target, column in labels.items():
        tasks[target], reasons[target] = _task(recipe, target, table.column(column))

    hidden = _hidden_labels(recipe, labels, alignments)
    return Targets(labels, tasks, reasons, alignments, hidden)


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
        return infer_task(target, labels)
    if labels.null_count == len(labels):
        raise TableError(f"target '{target}' has no labels at all; expected labels for {choice.name}")
    if task_registry.find(choice.name).may_stratify and pa.types.is_nested(labels.type):
        raise TableError(
            f"target '{target}' has cells of type {labels.type}; {choice.name} expects one class in a cell"
        )
    return choice.name, "set in the recipe"


def _choice(recipe: Recipe, target: str, task: str) -> Choice:
    """Return a target's task with the recipe's options."""
    choice = recipe.tasks.get(target)
    return Choice(name=task, **(choice.options if choice else {}))


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


def plan_tasks(recipe: Recipe, targets: Targets, schema: Schema) -> dict[str, Choice]:
    """Fill in every option of each target's task and of each alignment. `inputs` names what it reads.

    Raises `RecipeError` when a task does not fit the table, the recipe or the other tasks.
    """
    choices = {}
    for target, name in targets.tasks.items():
        choices[target] = _with_inputs(target, _choice(recipe, target, name), schema)
    _check_best_by(recipe, [*choices, *targets.alignments])
    for target, choice in choices.items():
        _check_inputs(target, targets.labels[target], choice, recipe, schema)
    _check_training(recipe, choices, targets)

    for name in targets.alignments:
        choice = recipe.tasks[name]
        # rows that stay on one side of the split belong together, so they are not contrasted either
        group = choice.options.get("group") or recipe.split.group
        choices[name] = _replaced(choice, inputs=aligned_columns(name, choice, schema), group=group)

    planned = {}
    for target, choice in choices.items():
        resolved = task_registry.resolve(choice, recipe.task_defaults.get(choice.name))
        # written out, so that the plan says what each task reads
        if not resolved.options.get("inputs"):
            resolved = _replaced(resolved, inputs=schema.of("input"))
        planned[target] = resolved
    return planned


def aligned_columns(name: str, choice: Choice, schema: Schema) -> list[str]:
    """Return the columns that an alignment compares: those that it names, else all of media and texts.

    Raises `RecipeError` for a column that is no input, or for fewer than two.
    """
    if name in {column.name for column in schema}:
        raise RecipeError(f"task '{name}': there is a column of that name; give the task another one")
    inputs = schema.of("input")
    columns = list(choice.options.get("inputs") or ())
    if not columns:
        columns = [column for column in inputs if _is_media_or_text(schema[column].modality)]
    _check_aligned(name, columns, choice.options.get("anchor"), inputs)
    return columns


def _check_aligned(name: str, columns: list[str], anchor: str | None, inputs: list[str]) -> None:
    """Raise `RecipeError` for columns that cannot be aligned."""
    for column in columns:
        if column not in inputs:
            raise RecipeError(
                f"task '{name}': no input column '{column}' to align: {nearest(column, inputs)}"
            )
    if anchor is not None and anchor not in columns:
        raise RecipeError(
            f"task '{name}': the anchor '{anchor}' is none of its columns: {nearest(anchor, columns)}"
        )
    distinct = set(columns)
    if len(distinct) < 2 or len(distinct) < len(columns):
        raise RecipeError(
            f"task '{name}': expected two or more different columns to align, found "
            f"{', '.join(columns) or 'none'}"
        )


def _is_media_or_text(modality: str | None) -> bool:
    if modality is None:
        return False
    kind = modality_registry.find(modality)
    return kind.media or kind.is_text


def components(tasks: Mapping[str, Choice]) -> list[type[Task]]:
    """Return the class of each task."""
    return [task_registry.find(choice.name) for choice in tasks.values()]


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


def _replaced(choice: Choice, **options: object) -> Choice:
    """Return the choice with these options in place of its own."""
    return Choice(name=choice.name, **{**choice.options, **options})


def _with_inputs(target: str, choice: Choice, schema: Schema) -> Choice:
    """Name the inputs of a task that reads only columns of some modalities, if the recipe names none."""
    modalities = task_registry.find(choice.name).modalities
    if not modalities or choice.options.get("inputs"):
        return choice
    columns = []
    for column in schema.of("input"):
        if schema[column].modality in modalities:
            columns.append(column)
    if not columns:
        raise RecipeError(
            f"task '{target}': {choice.name} reads columns of {' or '.join(modalities)}, and the table has "
            f"no such input"
        )
    return _replaced(choice, inputs=columns)


def _check_best_by(recipe: Recipe, targets: list[str]) -> None:
    """Raise `RecipeError` if the best epoch is to be chosen by a target that does not exist."""
    best_by = recipe.training.best_by
    if best_by and best_by not in targets:
        raise RecipeError(
            f"training: no target '{best_by}' to choose the best epoch by: {nearest(best_by, targets)}"
        )


def _check_inputs(target: str, label: str, choice: Choice, recipe: Recipe, schema: Schema) -> None:
    """Raise `RecipeError` for an input that is none, or that holds the answer."""
    inputs = schema.of("input")
    named = list(choice.options.get("inputs") or ())
    for column in named:
        if column not in inputs:
            raise RecipeError(f"task '{target}': no input column '{column}': {nearest(column, inputs)}")
    if label in (named or inputs):
        raise RecipeError(
            f"task '{target}' would read its own answers in '{label}': name its inputs, as in "
            f"tasks.{target}.inputs=[photo]"
        )
    # members learn all targets from the same features
    if named and _has_members(recipe):
        raise RecipeError(
            f"task '{target}' has inputs of its own, and an ensemble's members read all columns: leave "
            f"quality at fast"
        )


def _check_training(recipe: Recipe, choices: Mapping[str, Choice], targets: Targets) -> None:
    """Raise `RecipeError` where tasks without a fused vector are asked for what only that allows."""
    predicts = any(task.fuses for task in components(choices))
    if recipe.training.unlabelled and not predicts:
        raise RecipeError(
            "training.unlabelled learns from rows without a label, which these tasks cannot: leave it out"
        )
    alignments = {name: recipe.tasks[name] for name in targets.alignments}
    all_choices = {**alignments, **choices}
    for name, choice in all_choices.items():
        if task_registry.find(choice.name).fuses:
            continue
        if recipe.training.mixup:
            raise RecipeError(
                f"training.mixup mixes rows, which the {choice.name} '{name}' cannot be: leave one of the "
                f"two out"
            )
        if _has_members(recipe):
            raise RecipeError(
                f"an ensemble's members do not agree on a {choice.name} ('{name}'): leave quality at fast"
            )


def _has_members(recipe: Recipe) -> bool:
    return recipe.quality != "fast" or bool(recipe.ensemble and recipe.ensemble.members)

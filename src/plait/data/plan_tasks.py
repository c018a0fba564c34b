"""What is predicted: each target's column with labels, its task, and the columns that the task reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pyarrow as pa

from plait.data.plain_numbers import plain_numbers
from plait.data.plan_ensemble import asks_for_members
from plait.data.targets import Targets
from plait.errors import RecipeError, nearest
from plait.modalities.base import modalities as modality_registry
from plait.recipe.recipe import Recipe
from plait.recipe.registry import Choice
from plait.table.schema import Schema
from plait.table.table import Table
from plait.tasks.base import Task, TaskOptions
from plait.tasks.base import tasks as task_registry


def _choice(recipe: Recipe, target: str, task: str) -> Choice:
    """Return a target's task with the recipe's options."""
    choice = recipe.tasks.get(target)
    return Choice(name=task, **(choice.options if choice else {}))


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


def fill_in_tasks(
    choices: Mapping[str, Choice], targets: Targets, table: Table, schema: Schema, rows: np.ndarray
) -> tuple[dict[str, Choice], dict[str, str]]:
    """Fill in the options that training rows decide, and say why each target has its task and these.

    The cells of `table` must have been read by their conventions.
    """
    filled = {}
    reasons = dict(targets.reasons)
    for name, choice in choices.items():
        filled[name] = choice
        if name not in targets.labels:
            continue

        task, config = task_registry.choose(choice)
        labels = table.column(targets.labels[name]).take(pa.array(rows))
        labelled = labels.is_valid().to_numpy()
        inputs = choice.options["inputs"]
        numbers = partial(plain_numbers, table, schema, inputs, rows[labelled])
        assert isinstance(config, TaskOptions)
        options, reason = task.fill_in(config, labels.drop_null(), numbers)
        filled[name] = _replaced(choice, **options)
        if reason:
            reasons[name] += f"; {reason}"
    return filled, reasons


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
    if named and asks_for_members(recipe):
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
        if asks_for_members(recipe):
            raise RecipeError(
                f"an ensemble's members do not agree on a {choice.name} ('{name}'): leave quality at fast"
            )

"""What each column of a table is, and what is wrong with its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from plait.console import Screen
from plait.data.arguments import recipe_from, target_names
from plait.data.plan import Plan, split_and_infer
from plait.data.plan_columns import plan_columns
from plait.data.plan_encoders import texts_of
from plait.data.prepare import prepare
from plait.data.preprocessing import Preprocessing, fitted
from plait.data.split import Split
from plait.data.targets import find_targets
from plait.errors import TableError, count
from plait.modalities.base import modalities
from plait.recipe.recipe import Recipe
from plait.table import problems as check
from plait.table.problems import Problem
from plait.table.read import read
from plait.table.schema import TEXT, Column, Schema, origin
from plait.table.table import Table
from plait.table.typed import read_cells

SHOWN = 10


@dataclass(frozen=True)
class Inspection:
    """What each column of a table is, and why.

    `tasks` has the task of each target and the reason. If cells were probed, `problems` lists those that
    cannot be read, and `warnings` says what else is odd.
    """

    table: str
    schema: Schema
    tasks: dict[str, tuple[str, str]]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan, table: str) -> Inspection:
        """Describe the columns of a table that a plan was made for."""
        tasks = {}
        for target, column in plan.labels.items():
            tasks[column] = (plan.tasks[target].name, plan.reasons[target])
        return cls(table, plan.schema, tasks)

    def show(self, screen: Screen | None = None) -> Inspection:
        """Print itself, and return itself."""
        screen = screen or Screen(out=True)
        rows = [self._row(column) for column in self.schema]
        title = f"{self.table}: {count(self.schema.rows, 'row')}, {count(len(rows), 'column')}"
        screen.table(title, ["column", "is", "missing ", "because"], rows)
        if self.problems:
            self._show_problems(screen)
        for warning in self.warnings:
            screen.warn(warning)
        return self

    def _row(self, column: Column) -> list[str]:
        """Return what is printed of one column."""
        reason = column.reason
        if column.name in self.tasks:
            task, why = self.tasks[column.name]
            reason = f"{task}: {why}"
        missing = f"{column.missing:,}" if column.missing else "-"
        return [column.name, column.modality or column.role, missing, reason]

    def _show_problems(self, screen: Screen) -> None:
        """Print a table of the first problems."""
        rows = []
        for problem in self.problems[:SHOWN]:
            rows.append([str(problem.row), problem.column, problem.reason, problem.file])

        number = len(self.problems)
        note = f", of which the first {SHOWN}" if number > SHOWN else ""
        title = f"\n{count(number, 'cell')} cannot be read and would be treated as missing{note}"
        screen.table(title, ["row ", "column", "reason", "file"], rows)


def inspect(
    data: object,
    target: str | Sequence[str] = (),
    root: str | Path | None = None,
    columns: Mapping[str, object] | None = None,
    probe: bool = True,
) -> Inspection:
    """Say what plait takes each column of a table to be, and why. Trains nothing.

    The arguments are those of `plait.fit`. With `probe` every image, recording and video is read, as `fit`
    would, and every column whose modality `columns` names. What was read is kept for it. Raises `TableError`
    or `RecipeError`.
    """
    table = read(data, root)
    recipe = recipe_from(None, columns=columns)
    targets = find_targets(table, recipe, target_names(target))
    sides, inferred = split_and_infer(table, recipe, targets)
    schema = inferred.schema
    conventions = inferred.conventions.with_others(targets.conventions)
    table = read_cells(table, conventions.by_column)
    warnings = [*table.notes, *inferred.warnings, *targets.conventions.warnings.values()]
    warnings += targets.warnings
    tasks = {}
    for target, task in targets.tasks.items():
        tasks[targets.labels[target]] = (task, targets.reasons[target])

    probed, refusals = _probed(table, schema, sides, recipe) if probe else (Preprocessing({}, {}), [])
    warnings += refusals
    problems = []
    filled = {}
    for column in table.bad:
        if column not in probed.inputs:
            problems += table.problems(column)
            filled[column] = len(table) - table.column(column).null_count + len(table.bad[column])
    if probed.inputs:
        prepared = prepare(table, probed, Screen())
        problems += prepared.problems
        filled |= prepared.filled
        warnings += check.health(prepared.notes, prepared.digests)
    warnings += _refusals(problems, filled, schema, table)
    problems.sort(key=lambda problem: problem.row)
    return Inspection(table.name, schema, tasks, problems, warnings)


def _probed(table: Table, schema: Schema, sides: Split, recipe: Recipe) -> tuple[Preprocessing, list[str]]:
    """Fit the inputs whose cells are worth reading, on the rows that would train.

    These are media, and columns whose modality the recipe names: it may be the wrong one. What `fit` would
    say of such a column comes second.
    """
    rows = pa.array(sides.train)
    inputs = {}
    refusals = []
    for name, column in plan_columns(recipe, schema, {}, texts_of(table, sides.train)).items():
        modality, config = modalities.choose(column.modality)
        named = name in recipe.columns and recipe.columns[name].modality is not None
        is_in_images = name.endswith(TEXT) and name not in table.data.column_names
        if is_in_images or not (modality.media or named):
            continue
        cells = table.column(origin(name, table.data.column_names))
        try:
            inputs[name] = fitted(name, modality, config, cells.take(rows))
        except TableError as error:
            refusals.append(str(error))
    return Preprocessing(inputs, {}), refusals


def _refusals(problems: list[Problem], filled: dict[str, int], schema: Schema, table: Table) -> list[str]:
    """Warn of the inputs with so many bad cells that `fit` would stop."""
    inputs = {name: cells for name, cells in filled.items() if name in schema.of("input")}
    warnings = []
    for column, counted in check.refused(problems, inputs).items():
        of_column = [problem for problem in problems if problem.column == column]
        what_to_do = check.hint(column, of_column, table.root)
        warnings.append(f"column '{column}': {counted}, so plait.fit would stop. {what_to_do}")
    return warnings

"""From a table's rows to tensors: every column's state is fitted on training rows only, then used on all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from plait import components
from plait.batch import Batch, Values
from plait.errors import TableError
from plait.modalities.base import Loaded, Modality, Problem, Source
from plait.recipe import Choice, Recipe
from plait.table.read import Table
from plait.tasks.base import Task

Progress = Callable[[str, int], None]


@dataclass
class Prepared:
    """A table as whole tensors, one entry a row: a batch is an index into them.

    `absent` names inputs that the table has no column for; they are missing in every row.
    """

    batch: Batch
    problems: list[Problem] = field(default_factory=list)
    digests: dict[str, list[bytes]] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.batch)


class Preprocessing:
    """The fitted modalities of all inputs and the fitted tasks of all targets."""

    def __init__(self, inputs: dict[str, Modality], tasks: dict[str, Task]) -> None:
        self.inputs, self.tasks = inputs, tasks

    @classmethod
    def fit(cls, table: Table, recipe: Recipe, train: np.ndarray) -> Preprocessing:
        """Fits every input's and every target's state on the rows `train` of the table. `recipe` is a resolved one."""
        rows = pa.array(train)
        inputs, tasks = {}, {}
        for name, column in recipe.columns.items():
            if column.role == "input" and column.modality:
                modality, config = configured("modalities", column.modality)
                inputs[name] = modality.fit(config, table.column(name).take(rows))
        for name, choice in recipe.tasks.items():
            task, config = configured("tasks", choice)
            tasks[name] = task.fit(config, table.column(name).take(rows), name)
        if not inputs:
            raise TableError(f"{table.name} has no column to learn from: all others are ids, constant, or ignored; see plait inspect")
        return cls(inputs, tasks)

    def prepare(self, table: Table, targets: bool = True, progress: Progress = lambda name, n: None) -> Prepared:
        """All rows as tensors. An input without a column is missing in every row; without targets' columns, no labels."""
        rows = len(table)
        done = Prepared(Batch({}, {}, torch.arange(rows)))
        for name, modality in self.inputs.items():
            cells = self._cells(table, name, done)
            loaded = load(modality, cells, Source(name, table.root, lambda n, name=name: progress(name, n)))  # type: ignore[misc]
            done.batch.values[name], done.batch.present[name] = loaded.values, loaded.present
            done.problems += loaded.problems
            done.given[name] = rows - cells.null_count
            if loaded.digests:
                done.digests[name] = loaded.digests
            if loaded.cut:
                done.cut[name] = loaded.cut
        for name, task in self.tasks.items() if targets else ():
            if name in table.data.column_names:
                target, labelled, problems = task.encode(table.column(name), name)
                done.batch.targets[name], done.batch.labelled[name] = target, labelled
                done.problems += problems
        done.problems.sort(key=lambda p: p.row)
        return done

    def _cells(self, table: Table, name: str, done: Prepared) -> pa.ChunkedArray:
        if name in table.data.column_names:
            return table.column(name)
        done.absent.append(name)
        return pa.chunked_array([pa.nulls(len(table))])

    def transform(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """A batch as encoders take it; augmented when a generator is given."""
        values = {name: modality.transform(batch.values[name], generator) for name, modality in self.inputs.items()}
        return Batch(values, batch.present, batch.rows, batch.targets, batch.labelled)

    def state(self) -> dict[str, Any]:
        """All fitted state, as JSON."""
        return {
            "inputs": {name: modality.state() for name, modality in self.inputs.items()},
            "tasks": {name: task.state() for name, task in self.tasks.items()},
        }

    @classmethod
    def from_state(cls, recipe: Recipe, state: dict[str, Any]) -> Preprocessing:
        """The inverse of `state`, for the same resolved recipe."""
        inputs, tasks = {}, {}
        for name, column in recipe.columns.items():
            if column.role == "input" and column.modality:
                modality, config = configured("modalities", column.modality)
                inputs[name] = modality.from_state(config, state["inputs"][name])
        for name, choice in recipe.tasks.items():
            task, config = configured("tasks", choice)
            tasks[name] = task.from_state(config, state["tasks"][name])
        return cls(inputs, tasks)


def load(modality: Modality, cells: pa.ChunkedArray, source: Source) -> Loaded:
    """The column as tensors; one that is null throughout has nothing to read, whatever its type."""
    if cells.null_count < len(cells) or not len(cells):
        if not len(cells) and pa.types.is_null(cells.type):
            cells = pc.cast(cells, pa.string())
        return _loaded(modality, cells, source)
    return _nothing(modality, len(cells))


def _loaded(modality: Modality, cells: pa.ChunkedArray, source: Source) -> Loaded:
    try:
        return modality.load(cells, source)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        name = type(modality).__name__.lower()
        raise TableError(f"column '{source.column}' is of type {cells.type}, which {name} cannot read: {error}") from error


def _nothing(modality: Modality, rows: int) -> Loaded:
    layout = modality.layout
    present = torch.zeros(rows, dtype=torch.bool)
    if layout.kind == "index":
        return Loaded(Values(torch.zeros(rows, dtype=torch.long)), present)
    if layout.kind == "vector":
        return Loaded(Values(torch.zeros(rows, *layout.size)), present)
    if layout.kind == "grid":
        channels, height, width = layout.size
        empty = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(rows, height, width, channels)
        return Loaded(Values(empty), present)
    return Loaded(Values(torch.zeros(rows, 1, dtype=torch.int32), torch.zeros(rows, dtype=torch.long)), present)


def configured(kind: str, choice: Choice) -> tuple[Any, Any]:
    """The component that a choice names, and its options."""
    return components.find(kind, choice.name), components.configure(kind, choice.name, choice.options)

"""From a table's rows to tensors: every column's state is fitted on training rows only, then used on all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from plait.data.plan import Plan
from plait.errors import TableError
from plait.media.cell import Store
from plait.media.loading import load_together
from plait.modalities.base import Modality, modalities
from plait.modalities.base_media import MediaModality
from plait.nn.batch import Batch, Loaded, Values
from plait.table.json import JSON, read_as, read_object
from plait.table.problems import Problem
from plait.table.schema import origin
from plait.table.table import Progress, Source, Table
from plait.table.values import is_list
from plait.tasks.base import Task
from plait.tasks.base import tasks as task_registry


@dataclass
class Prepared:
    """A table as whole tensors, one entry a row: a batch is an index into them.

    `notes` says of which rows of a column something is worth a warning.
    """

    batch: Batch
    problems: list[Problem] = field(default_factory=list)
    digests: dict[str, list[set[bytes]]] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    notes: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.batch)


class Preprocessing:
    """The fitted modalities of all inputs and the fitted tasks of all targets. `several` names the
    inputs whose cells were lists of media when they were fitted.
    """

    def __init__(
        self, inputs: dict[str, Modality], tasks: dict[str, Task], several: Iterable[str] = ()
    ) -> None:
        self.inputs, self.tasks, self.several = inputs, tasks, set(several)

    @classmethod
    def fit(cls, table: Table, plan: Plan, train: np.ndarray) -> Preprocessing:
        """Fit every input's and every target's state on the rows `train` of the table."""
        rows = pa.array(train)
        inputs, tasks, several = {}, {}, set()
        for name, column in plan.columns.items():
            modality, config = modalities.choose(column.modality)
            cells = table.column(origin(name, table.data.column_names))
            inputs[name] = modality.fit(config, cells.take(rows))
            if modality.media and is_list(cells):
                several.add(name)
        for name, choice in plan.tasks.items():
            task, config = task_registry.choose(choice)
            tasks[name] = task.fit(
                config, _target(table, task.reads(config, name), not task.has_target).take(rows), name
            )
            tasks[name].connect(config, name)
        if not inputs:
            left = [f"'{c.name}' ({c.role})" for c in plan.schema if c.role in ("id", "ignored")]
            shown = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
            others = f"left out: {shown}; plait inspect says why, --column NAME=number takes one"
            raise TableError(
                f"{table.name} has no column to learn from; {others if left else 'it has the target alone'}"
            )
        return cls(inputs, tasks, several)

    def prepare(
        self,
        table: Table,
        targets: bool = True,
        progress: Progress = lambda n: None,
        store: Store | None = None,
    ) -> Prepared:
        """All rows as tensors. An input without a column is missing in every row; without targets'
        columns, no labels. Media are looked up in the `store` first, and left there.
        """
        rows = len(table)
        # filled below, in the order of the inputs
        empty = {name: Values(torch.empty(0)) for name in self.inputs}
        done = Prepared(Batch(empty, {}, {}, torch.arange(rows)))
        for column, names in self._by_origin(table.data.column_names).items():
            is_in_table = column in table.data.column_names
            cells = table.column(column) if is_in_table else pa.chunked_array([pa.nulls(rows)])
            sources = [Source(name, table.root, progress, store, part=name != column) for name in names]
            for name, loaded in zip(
                names, load([self.inputs[n] for n in names], cells, sources), strict=True
            ):
                done.batch.values[name], done.batch.present[name] = loaded.values, loaded.present
                done.batch.in_table[name] = torch.full((rows,), is_in_table)
                done.problems += loaded.problems
                done.given[name] = rows - cells.null_count
                if loaded.digests and name == names[0]:  # the sound of a clip is the same file
                    done.digests[name] = loaded.digests
                if loaded.notes:
                    done.notes[name] = loaded.notes
        for name, task in self.tasks.items() if targets else ():
            if not task.has_target or task.label_columns[0] in table.data.column_names:
                source = Source(name, table.root, store=store)
                target, labelled, problems = task.encode(
                    _target(table, task.label_columns, not task.has_target), source
                )
                done.batch.targets[name], done.batch.labelled[name] = target, labelled
                if task.from_files:
                    done.given[name] = rows - table.column(task.label_columns[0]).null_count
                done.problems += problems
        done.problems.sort(key=lambda p: p.row)
        return done

    def _by_origin(self, known: list[str]) -> dict[str, list[str]]:
        """The inputs that are read from each column of a table: a clip's frames and its sound come from
        one.
        """
        found: dict[str, list[str]] = {}
        for name in self.inputs:
            found.setdefault(origin(name, known), []).append(name)
        return found

    def convolves(self, plan: Plan) -> bool:
        """Whether encoders that are trained convolve, which decides what settings are fast."""
        shaped = ("grid", "frames", "spectrogram", "wave")
        return any(
            modality.layout.kind in shaped and not plan.columns[column].frozen
            for column, modality in self.inputs.items()
        )

    def transform(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """A batch as encoders take it; augmented when a generator is given."""
        cells = batch.values
        values = {
            c: cells[c] if cells[c].encoded else modality.transform(cells[c], generator)
            for c, modality in self.inputs.items()
        }
        return replace(batch, values=values)

    def state(self) -> JSON:
        """All fitted state, as JSON."""
        return {
            "inputs": {name: modality.state() for name, modality in self.inputs.items()},
            "tasks": {name: task.state() for name, task in self.tasks.items()},
            "several": sorted(self.several),
        }

    @classmethod
    def from_state(cls, plan: Plan, state: JSON) -> Preprocessing:
        """The inverse of `state`, for the same plan."""
        inputs, tasks = {}, {}
        input_states, task_states = read_object(state["inputs"]), read_object(state["tasks"])
        for name, column in plan.columns.items():
            modality, config = modalities.choose(column.modality)
            inputs[name] = modality.from_state(config, read_object(input_states[name]))
        for name, choice in plan.tasks.items():
            task, config = task_registry.choose(choice)
            tasks[name] = task.from_state(config, read_object(task_states[name]))
            tasks[name].connect(config, name)
        return cls(inputs, tasks, read_as(list[str], state["several"]))


def _target(table: Table, columns: list[str], several: bool) -> pa.ChunkedArray:
    """The cells of a target's column, or structs of `several`. One of these that the table lacks is
    missing in every row.
    """
    if not several:
        return table.column(columns[0])
    known = table.data.column_names
    read = [origin(c, known) for c in columns]
    parts = [
        table.column(c).combine_chunks() if c in known else pa.nulls(len(table), pa.string()) for c in read
    ]
    return pa.chunked_array([pa.StructArray.from_arrays(parts, [str(i) for i in range(len(parts))])])


def load(modalities: list[Modality], cells: pa.ChunkedArray, sources: list[Source]) -> list[Loaded]:
    """Each modality's view of the column as tensors; one that is null throughout has nothing to read,
    whatever its type.
    """
    if len(cells) and cells.null_count == len(cells):
        return [_nothing(modality, len(cells)) for modality in modalities]
    if pa.types.is_null(cells.type):
        cells = pc.cast(cells, pa.string())
    media = [m for m in modalities if isinstance(m, MediaModality)]
    if len(media) > 1:
        return load_together(media, cells, sources)
    return [_loaded(modality, cells, source) for modality, source in zip(modalities, sources, strict=True)]


def _loaded(modality: Modality, cells: pa.ChunkedArray, source: Source) -> Loaded:
    try:
        return modality.load(cells, source)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        name = type(modality).__name__.lower()
        raise TableError(
            f"column '{source.column}' is of type {cells.type}, which {name} cannot read: {error}"
        ) from error


def _nothing(modality: Modality, rows: int) -> Loaded:
    layout = modality.layout
    present = torch.zeros(rows, dtype=torch.bool)
    if layout.kind == "index":
        return Loaded(Values(torch.zeros(rows, dtype=torch.long)), present)
    if layout.kind == "vector":
        return Loaded(Values(torch.zeros(rows, *layout.size)), present)
    if isinstance(modality, MediaModality):
        shape = (1, *modality.shape[1:]) if modality.ragged else modality.shape
        length_B = torch.zeros(rows, dtype=torch.long) if modality.ragged else None
        return Loaded(
            Values(torch.zeros(1, *shape, dtype=modality.dtype).expand(rows, *shape), length_B), present
        )
    return Loaded(
        Values(torch.zeros(rows, 1, dtype=torch.int32), torch.zeros(rows, dtype=torch.long)), present
    )

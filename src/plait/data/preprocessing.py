"""Turn a table's rows into tensors. Each column's state is fitted on training rows, then used on all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from plait.console import command
from plait.data.plan import Plan
from plait.encoders.base import encoders as encoder_registry
from plait.errors import TableError
from plait.media.cell import Store
from plait.media.loading import load_together
from plait.modalities.base import Modality
from plait.modalities.base import modalities as modality_registry
from plait.modalities.base_media import MediaModality
from plait.nn.batch import Batch, Loaded, Values
from plait.nn.traits import Traits
from plait.recipe.registry import Options
from plait.runs.files import load_part
from plait.table.json import JSON, read_as, read_object
from plait.table.problems import Problem
from plait.table.schema import TEXT, origin
from plait.table.table import Progress, Source, Table
from plait.table.values import is_list
from plait.tasks.base import Task
from plait.tasks.base import tasks as task_registry

T = TypeVar("T")


@dataclass
class Prepared:
    """A table as whole tensors, one entry a row: a batch is an index into them.

    By column, `digests` has the digests of each row's files, `filled` the number of cells that are not null,
    and `notes` the rows of which something is worth a warning.
    """

    batch: Batch
    problems: list[Problem] = field(default_factory=list)
    digests: dict[str, list[set[bytes]]] = field(default_factory=dict)
    filled: dict[str, int] = field(default_factory=dict)
    notes: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.batch)


class Preprocessing:
    """The fitted modalities of all inputs and the fitted tasks of all targets.

    `several` names the inputs whose cells were lists of media when they were fitted, `measured` those whose
    cells have traits.
    """

    def __init__(
        self,
        inputs: dict[str, Modality],
        tasks: dict[str, Task],
        several: Iterable[str] = (),
        measured: Iterable[str] = (),
    ) -> None:
        self.inputs = inputs
        self.tasks = tasks
        self.several = set(several)
        self.measured = set(measured)

    @classmethod
    def fit(cls, table: Table, plan: Plan, train: np.ndarray) -> Preprocessing:
        """Fit every input's and every target's state on the rows `train` of the table."""
        rows = pa.array(train)
        inputs = {}
        several = set()
        for name, column in plan.columns.items():
            modality, config = modality_registry.choose(column.modality)
            cells = table.column(origin(name, table.data.column_names))
            inputs[name] = fitted(name, modality, config, cells.take(rows))
            if modality.media and is_list(cells):
                several.add(name)

        tasks = {}
        for name, choice in plan.tasks.items():
            kind, config = task_registry.choose(choice)
            labels = _labels(table, kind, kind.reads(config, name))
            task = kind.fit(config, labels.take(rows), name)
            task.connect(config, name)
            tasks[name] = task
        if not inputs:
            raise TableError(f"{table.name} has no column to learn from; {_excluded_columns(plan)}")
        return cls(inputs, tasks, several, _measured_columns(plan, inputs, tasks, several))

    def prepare(
        self,
        table: Table,
        targets: bool = True,
        progress: Progress = lambda n: None,
        store: Store | None = None,
    ) -> Prepared:
        """Turn all rows into tensors.

        An input that the table lacks is missing in every row. A target that it lacks has no labels, as all
        have with `targets=False`. Media are looked up in the `store` first, and are left there.
        """
        # columns are read in the table's order: these empty ones fix the order of the inputs
        empty = {name: Values(torch.empty(0)) for name in self.inputs}
        prepared = Prepared(Batch(empty, {}, {}, torch.arange(len(table))))
        for column, names in self._by_origin(table.data.column_names).items():
            sources = []
            for name in names:
                is_part = name != column  # the sound of a video, which it may lack
                sources.append(Source(name, table.root, progress, store, is_part))
            self._prepare_inputs(prepared, table, column, sources)

        for name, task in self.tasks.items() if targets else ():
            # a task with a target needs this column; one without reads several, of which some may be missing
            if not task.has_target or task.label_columns[0] in table.data.column_names:
                _prepare_target(prepared, table, task, Source(name, table.root, store=store))
        prepared.problems.sort(key=lambda problem: problem.row)
        return prepared

    def _prepare_inputs(self, prepared: Prepared, table: Table, column: str, sources: list[Source]) -> None:
        """Read the inputs that `sources` names from one column of the table."""
        rows = len(table)
        is_in_table = column in table.data.column_names
        cells = table.column(column) if is_in_table else pa.chunked_array([pa.nulls(rows)])
        modalities = [self.inputs[source.column] for source in sources]

        batch = prepared.batch
        for source, loaded in zip(sources, load(modalities, cells, sources), strict=True):
            name = source.column
            if name in self.measured:
                loaded.values.traits = _traits(self.inputs[name], cells, loaded)
            batch.values[name] = loaded.values
            batch.present[name] = loaded.present
            batch.in_table[name] = torch.from_numpy(table.has(column))
            prepared.problems += table.problems(column) if source is sources[0] else []
            prepared.problems += loaded.problems
            prepared.filled[name] = rows - cells.null_count + len(table.bad.get(column, ()))
            # the sound of a video is in the same file, which must not count twice
            if loaded.digests and source is sources[0]:
                prepared.digests[name] = loaded.digests
            if loaded.notes:
                prepared.notes[name] = loaded.notes

    def _by_origin(self, column_names: list[str]) -> dict[str, list[str]]:
        """Return the inputs that are read from each column: a video's frames and its sound share one."""
        inputs: dict[str, list[str]] = {}
        for name in self.inputs:
            # the text in images is read before, and is a column by now (see `image_texts`)
            column = name if name.endswith(TEXT) else origin(name, column_names)
            inputs.setdefault(column, []).append(name)
        return inputs

    def convolves(self, plan: Plan) -> bool:
        """Return whether an encoder that is trained convolves, which decides what settings are fast."""
        for column, modality in self.inputs.items():
            is_trained = not plan.columns[column].frozen
            if is_trained and modality.layout.is_convolved:
                return True
        return False

    def transform(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """Return a batch as encoders take it; augmented if there is a generator."""
        values = {}
        for column, modality in self.inputs.items():
            cells = batch.values[column]
            if not cells.encoded:
                # what is augmented has the traits of the cell as it is
                cells = replace(modality.transform(cells, generator), traits=cells.traits)
            values[column] = cells
        return replace(batch, values=values)

    def state(self) -> JSON:
        """Return all fitted state, as JSON."""
        return {
            "inputs": {name: modality.state() for name, modality in self.inputs.items()},
            "tasks": {name: task.state() for name, task in self.tasks.items()},
            "several": sorted(self.several),
        }

    @classmethod
    def from_state(cls, plan: Plan, state: JSON) -> Preprocessing:
        """Invert `state`, for the same plan."""
        inputs = {}
        input_states = read_object(state["inputs"])
        for name, column in plan.columns.items():
            modality, config = modality_registry.choose(column.modality)
            inputs[name] = _restored("inputs", name, input_states, partial(modality.from_state, config))

        tasks = {}
        task_states = read_object(state["tasks"])
        for name, choice in plan.tasks.items():
            kind, config = task_registry.choose(choice)
            task = _restored("tasks", name, task_states, partial(kind.from_state, config))
            task.connect(config, name)
            tasks[name] = task
        several = load_part("state.json: several", lambda: read_as(list[str], state["several"]))
        return cls(inputs, tasks, several, _measured_columns(plan, inputs, tasks, several))


def _restored(part: str, name: str, states: JSON, restore: Callable[[JSON], T]) -> T:
    """Return what is restored from a saved state. Raises `ArtifactError` that names it and the entry."""
    return load_part(f"state.json: {part}.{name}", lambda: restore(read_object(states[name])))


def _excluded_columns(plan: Plan) -> str:
    """Say which columns are no inputs, and how to make one an input."""
    columns = []
    for column in plan.schema:
        if column.role in ("id", "ignored"):
            columns.append(f"'{column.name}' ({column.role})")
    if not columns:
        return "it has the target alone"

    shown = ", ".join(columns[:5])
    if len(columns) > 5:
        shown += ", ..."
    return f"left out: {shown}; {command('inspect')} says why, --column NAME=number takes one"


def _prepare_target(prepared: Prepared, table: Table, task: Task, source: Source) -> None:
    """Encode the labels of one target."""
    name = source.column
    labels = _labels(table, task, task.label_columns)
    target, labelled, problems = task.encode(labels, source)
    prepared.batch.targets[name] = target
    prepared.batch.labelled[name] = labelled
    if task.from_files:
        prepared.filled[name] = len(table) - table.column(task.label_columns[0]).null_count
    prepared.problems += problems
    for column in task.label_columns:
        prepared.problems += table.problems(column)


def _labels(table: Table, task: Task | type[Task], columns: list[str]) -> pa.ChunkedArray:
    """Return what a task learns for each row: the cell of its target.

    A task without a target learns from several columns, so each row has a struct of their cells. A column
    of several that the table lacks is missing in every row.
    """
    if task.has_target:
        return table.column(columns[0])

    arrays = []
    for column in columns:
        name = origin(column, table.data.column_names)
        if name in table.data.column_names:
            arrays.append(table.column(name).combine_chunks())
        else:
            arrays.append(pa.nulls(len(table), pa.string()))
    # numbers name the fields: a video's frames and its sound are two inputs, but one column of the table
    fields = [str(number) for number in range(len(arrays))]
    return pa.chunked_array([pa.StructArray.from_arrays(arrays, fields)])


def load(modalities: list[Modality], cells: pa.ChunkedArray, sources: list[Source]) -> list[Loaded]:
    """Read a column as tensors, once for each modality. A column of nulls may have any type."""
    if len(cells) and cells.null_count == len(cells):
        return [modality.absent(len(cells)) for modality in modalities]
    if pa.types.is_null(cells.type):  # a table without rows
        cells = pc.cast(cells, pa.string())

    # only a file has several inputs: a video and its sound are decoded from one reading
    if len(modalities) > 1:
        return load_together(cast(list[MediaModality], modalities), cells, sources)

    columns = []
    for modality, source in zip(modalities, sources, strict=True):
        columns.append(_loaded(modality, cells, source))
    return columns


def _measured_columns(
    plan: Plan, inputs: Mapping[str, Modality], tasks: Mapping[str, Task], several: Collection[str]
) -> set[str]:
    """Return the columns whose cells have traits: aligned ones, with one value or medium to a cell.

    Images and videos with a pretrained encoder have none: beside it, a thumbnail says nothing.
    """
    aligned: set[str] = set()
    for task in tasks.values():
        if not task.has_target:
            aligned.update(task.read(inputs))

    columns = set()
    for name in aligned.difference(several):
        is_pretrained = encoder_registry.find(plan.columns[name].encoder.name).pretrained
        is_seen = inputs[name].layout.kind in ("grid", "frames")
        if inputs[name].traits_layout() is not None and not (is_pretrained and is_seen):
            columns.add(name)
    return columns


def _traits(modality: Modality, cells: pa.ChunkedArray, loaded: Loaded) -> Traits:
    """Measure a column's cells; zeros if there are none."""
    layout = modality.traits_layout()
    assert layout is not None
    if not loaded.present.any():
        return Traits.absent(len(loaded.present), layout)
    return modality.traits(cells, loaded.values)


def fitted(name: str, modality: type[Modality], config: Options, cells: pa.ChunkedArray) -> Modality:
    """Fit a modality to a column's cells. Raises `TableError` for a type that it cannot read."""
    with _of_right_type(name, modality, cells):
        return modality.fit(config, cells)


def _loaded(modality: Modality, cells: pa.ChunkedArray, source: Source) -> Loaded:
    """Read a column by one modality. Raises `TableError` for cells of a type that it cannot read."""
    with _of_right_type(source.column, type(modality), cells):
        return modality.load(cells, source)


@contextmanager
def _of_right_type(column: str, modality: type[Modality], cells: pa.ChunkedArray) -> Iterator[None]:
    """Turn what Arrow raises where it cannot convert a column's type into a `TableError`."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        # what Arrow says is about its own types, and helps nobody who only has the table
        name = modality.__name__.lower()
        raise TableError(
            f"column '{column}' has cells of type {cells.type}, which {name} cannot read. Leave the "
            f"modality of '{column}' to plait, or ask for another one"
        ) from error

"""From rows to answers and embeddings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from plait import embedding
from plait.batch import Batch
from plait.cells import Store
from plait.dataset import Dataset
from plait.errors import RecipeError, TableError, nearest
from plait.machine import Settings, to_channels_last
from plait.modalities.base import Problem, Progress
from plait.model import Fused, MultimodalModel
from plait.preprocessing import Prepared, Preprocessing
from plait.recipe import Recipe
from plait.schema import Schema, origin
from plait.table import check
from plait.table.read import Table
from plait.tasks.base import Task, joined

BATCH = 64
Tell = Callable[[str], None]
CHUNK = 4096  # rows that are decoded before any is predicted


class Rows(Protocol):
    """Rows that have been prepared: a `Dataset`, or more than one. Labels are found in `prepared.batch` at `rows`."""

    @property
    def prepared(self) -> Prepared: ...
    @property
    def rows(self) -> Tensor: ...
    def __len__(self) -> int: ...


class Answering(Protocol):
    """What answers: one network, or an ensemble."""

    @property
    def columns(self) -> list[str]: ...
    @property
    def tasks(self) -> dict[str, Task]: ...

    def prepare(self, table: Table, targets: bool = True, store: Store | None = None, progress: Progress = ...) -> Any:
        """All rows of a table, ready for `outputs`."""

    def outputs(self, rows: Any, subsets: Sequence[Sequence[str]], progress: Progress = ...) -> list[dict[str, Tensor]]:
        """For each subset of the columns, all others hidden, each target's outputs for all rows."""


class Predictor:
    """A model set up to answer fast: in eval mode, with the weights of its large products in bf16 where it was trained
    so, converted once. The model that it is given is left as it is."""

    def __init__(self, model: MultimodalModel, preprocessing: Preprocessing, settings: Settings, recipe: Recipe) -> None:
        self.preprocessing, self.settings, self.recipe = preprocessing, settings, recipe
        if settings.precision == "bf16":
            model = copy.deepcopy(model)
            for part in model.modules():
                if isinstance(part, (nn.Conv2d, nn.Conv3d, nn.Linear, nn.LSTM, nn.Embedding)):
                    part.bfloat16()
        if settings.channels_last:
            to_channels_last(model)
        self.model = model.eval().to(settings.device)

    @property
    def columns(self) -> list[str]:
        return self.model.columns

    @property
    def tasks(self) -> dict[str, Task]:
        return self.preprocessing.tasks

    def prepare(self, table: Table, targets: bool = True, store: Store | None = None, progress: Progress = lambda n: None) -> Dataset:
        prepared = self.preprocessing.prepare(table, targets, progress, store)
        embedding.embed(prepared, self.preprocessing, embedding.frozen(self.model), self.recipe, self.settings, store)
        return Dataset(prepared, self.preprocessing)

    def outputs(self, rows: Dataset, subsets: Sequence[Sequence[str]], progress: Progress = lambda n: None) -> list[dict[str, Tensor]]:
        """Every column is encoded once: all subsets together cost little more than one."""
        found: list[list[dict[str, Tensor]]] = []
        for batch in rows.in_order(BATCH):
            found.append(self.of_batch(batch, subsets))
            progress(len(batch))
        return [{t: joined([part[i][t] for part in found]) for t in self.model.targets} for i in range(len(subsets))] if found else []

    @torch.inference_mode()
    def of_batch(self, batch: Batch, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Each task's output for a batch as encoders take it, in fp32 on the CPU."""
        batch = batch.to(torch.device(self.settings.device))
        with self.settings.autocast():
            encoded = self.model.encode(batch)
            own = self.model.own(encoded)
            found = [self.model.predict_hidden(encoded, batch.only(given).present, given, own) for given in map(set, subsets)]
            decoded = [{t: self.model.task(t).decode(output, thorough=True) for t, output in one.items()} for one in found]
        return [{t: (output.float() if output.is_floating_point() else output).cpu() for t, output in one.items()} for one in decoded]

    @torch.inference_mode()
    def fused(self, batch: Batch, columns: Sequence[str]) -> Tensor:
        """The fused vector of each row of a table that has these columns, in fp32 on the CPU: that of the target which reads the most of them."""
        batch = batch.to(torch.device(self.settings.device))
        with self.settings.autocast():
            encoded, given = self.model.encode(batch), set(columns)
            return self._widest(self.model.hide(encoded, batch.present, given), batch.present, columns=given).float().cpu()

    @property
    def width(self) -> int:
        """Of the fused vector."""
        return self._widest.width

    @property
    def _widest(self) -> Fused:
        if not len(self.model.fused):
            raise RecipeError("no target of this model is answered from a fused vector; an aligned column has vectors of its own: column=")
        return max((cast(Fused, part) for part in self.model.fused.values()), key=lambda part: len(part.columns))


def predict(
    answering: Answering, schema: Schema, table: Table, tell: Tell, progress: Progress, store: Store | None = None
) -> tuple[pa.Table, list[Problem]]:
    """One answer for each row, in order: id columns as they came, then for each target the answer under the target's own
    name and more about it (`label_probability_cat`), then `problem`, null unless a cell of the row could not be read."""
    given = check_columns(answering, table, tell)
    columns: dict[str, list[pa.Array]] = {}
    problems: list[Problem] = []
    for first, part in chunks(table):
        rows = answering.prepare(part, targets=False, store=store)
        (outputs,) = answering.outputs(rows, [given], progress)
        for target, task in answering.tasks.items():
            for suffix, answer in task.answers(outputs[target]).items():
                columns.setdefault(f"{target}_{suffix}" if suffix else target, []).append(answer)
        problems += [Problem(p.row + first, p.column, p.file, p.reason) for p in rows.prepared.problems]
    joined = {name: pa.chunked_array(parts) for name, parts in columns.items()} or {target: pa.array([], pa.null()) for target in answering.tasks}
    return assemble(joined, problems, schema, table), problems


def embed(predictor: Predictor, table: Table, tell: Tell, store: Store | None = None) -> np.ndarray:
    """The fused vectors, float32 of shape (rows, width)."""
    given = check_columns(predictor, table, tell)
    parts = []
    for _, part in chunks(table):
        parts += [predictor.fused(batch, given) for batch in predictor.prepare(part, targets=False, store=store).in_order(BATCH)]
    if not parts:
        return np.zeros((0, predictor.width), dtype=np.float32)
    return torch.cat(parts).numpy()


def chunks(table: Table) -> Iterator[tuple[int, Table]]:
    """The table in parts that fit in memory, each with the number of its first row."""
    for first in range(0, len(table), CHUNK):
        yield first, Table(table.data.slice(first, CHUNK), table.root, table.name)


def check_columns(answering: Answering, table: Table, tell: Tell) -> list[str]:
    """The inputs that the table has. Says once which ones it lacks altogether. Raises `TableError` when it has none of them."""
    known = table.data.column_names
    absent = [name for name in answering.columns if origin(name, known) not in known]
    if absent and len(absent) == len(answering.columns):
        raise TableError(
            f"{table.name} has none of the model's input columns ({', '.join(absent)}); it has {', '.join(table.data.column_names) or 'no column'}"
        )
    others = [name for name in table.data.column_names if name not in answering.columns and name not in answering.tasks]
    for name in dict.fromkeys(origin(name, known) for name in absent):
        close = nearest(name, others)
        hint = f"; {close}" if close.startswith("did") else ""
        tell(f"input '{name}' is not in {table.name}: treated as missing in every row{hint}")
    return [name for name in answering.columns if name not in absent]


def beside(table: pa.Table, answers: pa.Table, ids: Sequence[str] = ()) -> pa.Table:
    """A table's columns, then the answers, but for `ids`, which are the table's own; an answer whose name the table has gets `_answer`."""
    known = set(table.column_names)
    for name in (name for name in answers.column_names if name not in ids):
        table = table.append_column(f"{name}_answer" if name in known else name, answers[name])
    return table


def assemble(answers: dict[str, Any], problems: list[Problem], schema: Schema, table: Table) -> pa.Table:
    """Id columns as they came, then the answers, then `problem`."""
    done: dict[str, Any] = {name: table.data.column(name) for name in schema.of("id") if name in table.data.column_names} | answers
    done["problem"] = check.column(problems, len(table))
    return pa.table(done)

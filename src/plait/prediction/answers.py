"""Answer the rows of a table, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from plait.errors import TableError, nearest
from plait.media.cell import Store
from plait.prediction.predictor import BATCH, Answering, Predictor
from plait.table import problems as check
from plait.table.problems import Problem
from plait.table.schema import Schema, origin
from plait.table.table import Progress, Table

Tell = Callable[[str], None]

CHUNK = 4096  # rows that are decoded before any is predicted


def predict(
    answering: Answering,
    schema: Schema,
    table: Table,
    tell: Tell,
    progress: Progress,
    store: Store | None = None,
) -> tuple[pa.Table, list[Problem]]:
    """Answer each row, in order, and return the cells that could not be read.

    Id columns come as they are, then each target's answer under its name and more columns for it
    (`label_probability_cat`), then `problem`, null unless a cell of the row could not be read.
    """
    if len(table):
        columns, problems = _answer_chunks(answering, table, tell, progress, store)
    else:
        columns, problems = _columns_without_rows(answering, table, tell, progress), []
    joined = {name: pa.chunked_array(arrays).slice(0, len(table)) for name, arrays in columns.items()}
    return assemble(joined, problems, schema, table), problems


def _answer_chunks(
    answering: Answering, table: Table, tell: Tell, progress: Progress, store: Store | None
) -> tuple[dict[str, list[pa.Array]], list[Problem]]:
    """Return the answers of each chunk by column, and the problems of all."""
    inputs = check_columns(answering, table, tell)
    columns: dict[str, list[pa.Array]] = {}
    problems: list[Problem] = []
    for first, chunk in chunks(table):
        rows = answering.prepare(chunk, targets=False, store=store)
        (outputs,) = answering.outputs(rows, [inputs], progress)
        _append_answers(columns, answering, outputs)
        problems += shifted(rows.prepared.problems, first)
    return columns, problems


def _columns_without_rows(
    answering: Answering, table: Table, tell: Tell, progress: Progress
) -> dict[str, list[pa.Array]]:
    """Return the columns and types that a table without rows is answered by: those of one empty row."""
    inputs = answering.columns
    if table.data.column_names:  # an empty list of rows has no columns, which is no mistake
        inputs = check_columns(answering, table, tell)
    columns: dict[str, list[pa.Array]] = {}
    rows = answering.prepare(_row_without_cells(answering.columns), targets=False)
    (outputs,) = answering.outputs(rows, [inputs], progress)
    _append_answers(columns, answering, outputs)
    return columns


def _append_answers(
    columns: dict[str, list[pa.Array]], answering: Answering, outputs: Mapping[str, Tensor]
) -> None:
    for target, task in answering.tasks.items():
        for suffix, answer in task.answers(outputs[target]).items():
            columns.setdefault(f"{target}_{suffix}" if suffix else target, []).append(answer)


def shifted(problems: list[Problem], first: int) -> list[Problem]:
    """Return the problems of a chunk, with rows counted in the table; `first` is the chunk's first row."""
    return [replace(problem, row=problem.row + first) for problem in problems]


def _row_without_cells(columns: Sequence[str]) -> Table:
    return Table(pa.table({name: pa.nulls(1) for name in columns}), Path(), "the table")


def embed(predictor: Predictor, table: Table, tell: Tell, store: Store | None = None) -> np.ndarray:
    """Return the fused vectors, float32 of shape (rows, width)."""
    inputs = check_columns(predictor, table, tell)
    vectors = []
    for _, chunk in chunks(table):
        rows = predictor.prepare(chunk, targets=False, store=store)
        for batch in rows.in_order(BATCH):
            vectors.append(predictor.fused(batch, inputs))
    if not vectors:
        return np.zeros((0, predictor.width), dtype=np.float32)
    return torch.cat(vectors).numpy()


def chunks(table: Table) -> Iterator[tuple[int, Table]]:
    """Yield the table in chunks that fit in memory, each with the number of its first row."""
    for first in range(0, len(table), CHUNK):
        yield first, Table(table.data.slice(first, CHUNK), table.root, table.name)


def check_columns(answering: Answering, table: Table, tell: Tell) -> list[str]:
    """Return the inputs that the table has. Warn once of each one that it lacks.

    Raises `TableError` if it has none of them.
    """
    names = table.data.column_names
    absent = [name for name in answering.columns if origin(name, names) not in names]
    if absent and len(absent) == len(answering.columns):
        raise TableError(
            f"{table.name} has none of the model's input columns ({', '.join(absent)}); it has "
            f"{', '.join(names) or 'no column'}"
        )
    _warn_of_absent(answering, table, absent, tell)
    return [name for name in answering.columns if name not in absent]


def _warn_of_absent(answering: Answering, table: Table, absent: list[str], tell: Tell) -> None:
    names = table.data.column_names
    model_columns = {*answering.columns, *answering.tasks}
    unused = [name for name in names if name not in model_columns]
    for name in dict.fromkeys(origin(name, names) for name in absent):
        suggestion = nearest(name, unused)
        hint = f"; {suggestion}" if suggestion.startswith("did") else ""
        tell(f"input '{name}' is not in {table.name}: treated as missing in every row{hint}")


def beside(table: pa.Table, answers: pa.Table, ids: Sequence[str] = ()) -> pa.Table:
    """Append the answers to a table, without `ids`, which it has already.

    An answer whose name is that of a column of the table gets `_answer`.
    """
    table_names = set(table.column_names)
    for name in answers.column_names:
        if name not in ids:
            answer_name = f"{name}_answer" if name in table_names else name
            table = table.append_column(answer_name, answers[name])
    return table


def assemble(
    answers: Mapping[str, pa.ChunkedArray], problems: list[Problem], schema: Schema, table: Table
) -> pa.Table:
    """Return a table of the id columns as they came, then the answers, then `problem`."""
    columns: dict[str, pa.ChunkedArray | pa.Array] = {}
    for name in schema.of("id"):
        if name in table.data.column_names:
            columns[name] = table.data.column(name)
    columns.update(answers)
    columns["problem"] = check.column(problems, len(table))
    return pa.table(columns)

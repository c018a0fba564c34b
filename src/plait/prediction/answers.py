"""Answer the rows of a table, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from plait.errors import MAX_SHOWN, RecipeError, TableError, count, nearest
from plait.media.cell import Store
from plait.prediction.predictor import BATCH, Answering, AnsweringTables, Predictor
from plait.table import problems as check
from plait.table.problems import Problem
from plait.table.schema import Schema, origin
from plait.table.table import Progress, Table
from plait.tasks.base import Task

Tell = Callable[[str], None]

PROBLEM = "problem"  # the last column of answers
CHUNK = 4096  # rows that are decoded before any is predicted


def predict(
    answering: AnsweringTables,
    schema: Schema,
    table: Table,
    tell: Tell,
    progress: Progress,
    store: Store | None = None,
) -> tuple[pa.Table, list[Problem]]:
    """Answer each row, in order. Return the answers, and the cells that could not be read.

    The answers have the id columns as they came, then for each target its answer, under its name, and more
    columns about it (`label_probability_cat`). The last column is `problem`. It is null unless a cell of the
    row could not be read.
    """
    if len(table):
        columns, problems = _answer_chunks(answering, table, tell, progress, store)
    else:
        columns = _columns_without_rows(answering, table, tell, progress)
        problems = []
    return assemble(columns, problems, schema, table), problems


def _answer_chunks(
    answering: AnsweringTables, table: Table, tell: Tell, progress: Progress, store: Store | None
) -> tuple[dict[str, pa.ChunkedArray], list[Problem]]:
    """Return the columns of answers of all rows, by name, and all problems."""
    check_columns(answering, table, tell)
    arrays: dict[str, list[pa.Array]] = {}
    problems: list[Problem] = []
    for first, chunk in chunks(table):
        rows = answering.prepare(chunk, targets=False, store=store)
        outputs = answering.outputs(rows, progress)
        for name, array in _answer_columns(answering, outputs).items():
            arrays.setdefault(name, []).append(array)
        problems += shifted(rows.prepared.problems, first)

    columns = {name: pa.chunked_array(chunk_arrays) for name, chunk_arrays in arrays.items()}
    return columns, problems


def _columns_without_rows(
    answering: AnsweringTables, table: Table, tell: Tell, progress: Progress
) -> dict[str, pa.ChunkedArray]:
    """Return the columns of answers of a table without rows: those of one empty row, without the row.

    So they have the same names and types as those of other tables.
    """
    if table.data.column_names:  # an empty list of rows has no columns, which is no mistake
        check_columns(answering, table, tell)

    rows = answering.prepare(_row_without_cells(answering.columns), targets=False)
    outputs = answering.outputs(rows, progress)
    columns = {}
    for name, array in _answer_columns(answering, outputs).items():
        columns[name] = pa.chunked_array([array]).slice(0, 0)
    return columns


def _answer_columns(answering: Answering, outputs: Mapping[str, Tensor]) -> dict[str, pa.Array]:
    """Return the columns of answers that each target's outputs mean, by name."""
    columns = {}
    for target, task in answering.tasks.items():
        for suffix, array in task.answers(outputs[target]).items():
            columns[_column_name(target, suffix)] = array
    return columns


def _column_name(target: str, suffix: str) -> str:
    return f"{target}_{suffix}" if suffix else target


def check_names(tasks: Mapping[str, Task], labels: Mapping[str, Tensor], ids: Iterable[str]) -> None:
    """Raise `RecipeError` if two columns of the answers would have one name.

    `labels` has some labels of each target, by which its task can answer. `ids` are the id columns, which
    come before the answers.
    """
    owners = {PROBLEM: "the problems of a row"}
    columns = [(name, f"the id column '{name}'") for name in ids]
    for target, task in tasks.items():
        suffixes = [""]
        if len(labels[target]):
            suffixes = list(task.answers(task.baseline(labels[target])[None]))
        for suffix in suffixes:
            columns.append((_column_name(target, suffix), f"the answers of '{target}'"))

    for name, owner in columns:
        if name in owners:
            raise RecipeError(
                f"predictions would have two columns '{name}': of {owners[name]}, and of {owner}; rename one "
                f"of them in the table"
            )
        owners[name] = owner


def shifted(problems: list[Problem], first: int) -> list[Problem]:
    """Return the problems of a chunk, with rows counted in the table; `first` is the chunk's first row."""
    return [replace(problem, row=problem.row + first) for problem in problems]


def _row_without_cells(columns: Sequence[str]) -> Table:
    """Return a table of one row, in which all columns are empty."""
    cells = {name: pa.nulls(1) for name in columns}
    return Table(pa.table(cells), Path(), "the table")


def embed(predictor: Predictor, table: Table, tell: Tell, store: Store | None = None) -> np.ndarray:
    """Return the fused vector of each row, float32 of shape (rows, width)."""
    check_columns(predictor, table, tell)
    vectors = []
    for _, chunk in chunks(table):
        rows = predictor.prepare(chunk, targets=False, store=store)
        for batch in rows.in_order(BATCH):
            vectors.append(predictor.fused(batch))

    if not vectors:
        return np.zeros((0, predictor.width), dtype=np.float32)
    return torch.cat(vectors).numpy()


def chunks(table: Table) -> Iterator[tuple[int, Table]]:
    """Yield the table in chunks that fit in memory, each with the number of its first row."""
    for first in range(0, len(table), CHUNK):
        yield first, table.slice(first, CHUNK)


def check_columns(answering: Answering, table: Table, tell: Tell) -> list[str]:
    """Return the inputs that the table has. Warn once of each one that it lacks.

    Raises `TableError` if it has other columns than these. One without any column has rows that tell nothing.
    """
    names = table.data.column_names
    inputs, absent = [], []
    for column in answering.columns:
        # The audio of a video is an input, `film.sound`, that is read from the column `film`.
        if origin(column, names) in names:
            inputs.append(column)
        else:
            absent.append(column)

    if names and absent and not inputs:
        raise TableError(
            f"{table.name} has none of the model's input columns ({', '.join(absent)}); it has "
            f"{', '.join(names) or 'no column'}"
        )
    _warn_of_absent(answering, table, absent, tell)
    return inputs


def _warn_of_absent(answering: Answering, table: Table, absent: list[str], tell: Tell) -> None:
    """Warn once of all inputs that the table lacks, with the name that each may have been mistyped as."""
    if not absent:
        return
    names = table.data.column_names
    model_columns = {*answering.columns, *answering.tasks}
    unused = [name for name in names if name not in model_columns]

    # A video and its audio come from one column: name it once.
    absent_columns = list(dict.fromkeys(origin(column, names) for column in absent))
    described = []
    for column in absent_columns[:MAX_SHOWN]:
        suggestion = nearest(column, unused)
        hint = f" ({suggestion})" if suggestion.startswith("did") else ""
        described.append(f"'{column}'{hint}")
    if len(absent_columns) > MAX_SHOWN:
        described.append("...")
    inputs = count(len(absent_columns), "input is", "inputs are")
    tell(f"{inputs} not in {table.name}, treated as missing in every row: {', '.join(described)}")


def beside(table: pa.Table, answers: pa.Table, ids: Sequence[str] = ()) -> pa.Table:
    """Append the answers to a table, without `ids`, which it has already.

    If the table has a column of an answer's name, `_answer` is appended to the name.
    """
    table_names = set(table.column_names)
    for name in answers.column_names:
        if name in ids:
            continue
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
    columns[PROBLEM] = check.column(problems, len(table))
    return pa.table(columns)

"""From rows to a table of answers, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

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
    """One answer for each row, in order: id columns as they came, then for each target the answer under
    the target's own name and more about it (`label_probability_cat`), then `problem`, null unless a
    cell of the row could not be read.
    """
    empty_list = not len(table) and not table.data.column_names
    given = answering.columns if empty_list else check_columns(answering, table, tell)
    columns: dict[str, list[pa.Array]] = {}
    problems: list[Problem] = []
    # a table without rows gets the columns and types of a row without cells
    parts = list(chunks(table)) if len(table) else [(0, _row_without_cells(answering.columns))]
    for first, part in parts:
        rows = answering.prepare(part, targets=False, store=store)
        (outputs,) = answering.outputs(rows, [given], progress)
        for target, task in answering.tasks.items():
            for suffix, answer in task.answers(outputs[target]).items():
                columns.setdefault(f"{target}_{suffix}" if suffix else target, []).append(answer)
        problems += [Problem(p.row + first, p.column, p.file, p.reason) for p in rows.prepared.problems]

    joined = {name: pa.chunked_array(arrays).slice(0, len(table)) for name, arrays in columns.items()}
    if not len(table):
        problems = []
    return assemble(joined, problems, schema, table), problems


def _row_without_cells(columns: Sequence[str]) -> Table:
    return Table(pa.table({name: pa.nulls(1) for name in columns}), Path(), "the table")


def embed(predictor: Predictor, table: Table, tell: Tell, store: Store | None = None) -> np.ndarray:
    """The fused vectors, float32 of shape (rows, width)."""
    given = check_columns(predictor, table, tell)
    parts = []
    for _, part in chunks(table):
        parts += [
            predictor.fused(batch, given)
            for batch in predictor.prepare(part, targets=False, store=store).in_order(BATCH)
        ]
    if not parts:
        return np.zeros((0, predictor.width), dtype=np.float32)
    return torch.cat(parts).numpy()


def chunks(table: Table) -> Iterator[tuple[int, Table]]:
    """The table in parts that fit in memory, each with the number of its first row."""
    for first in range(0, len(table), CHUNK):
        yield first, Table(table.data.slice(first, CHUNK), table.root, table.name)


def check_columns(answering: Answering, table: Table, tell: Tell) -> list[str]:
    """The inputs that the table has. Says once which ones it lacks altogether. Raises `TableError` when
    it has none of them.
    """
    known = table.data.column_names
    absent = [name for name in answering.columns if origin(name, known) not in known]
    if absent and len(absent) == len(answering.columns):
        raise TableError(
            f"{table.name} has none of the model's input columns ({', '.join(absent)}); it has "
            f"{', '.join(table.data.column_names) or 'no column'}"
        )
    others = [
        name
        for name in table.data.column_names
        if name not in answering.columns and name not in answering.tasks
    ]
    for name in dict.fromkeys(origin(name, known) for name in absent):
        close = nearest(name, others)
        hint = f"; {close}" if close.startswith("did") else ""
        tell(f"input '{name}' is not in {table.name}: treated as missing in every row{hint}")
    return [name for name in answering.columns if name not in absent]


def beside(table: pa.Table, answers: pa.Table, ids: Sequence[str] = ()) -> pa.Table:
    """A table's columns, then the answers, but for `ids`, which are the table's own; an answer whose
    name the table has gets `_answer`.
    """
    known = set(table.column_names)
    for name in (name for name in answers.column_names if name not in ids):
        table = table.append_column(f"{name}_answer" if name in known else name, answers[name])
    return table


def assemble(
    answers: Mapping[str, pa.ChunkedArray], problems: list[Problem], schema: Schema, table: Table
) -> pa.Table:
    """Id columns as they came, then the answers, then `problem`."""
    ids = [name for name in schema.of("id") if name in table.data.column_names]
    done = {name: table.data.column(name) for name in ids}
    done.update(answers)
    done["problem"] = check.column(problems, len(table))
    return pa.table(done)

"""A task of each name, fitted on eight rows whose labels suit it, with encoded inputs for these rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from plait.nn.batch import Encoded, Fused, Tokens
from plait.table.table import Source
from plait.tasks.base import Task, Widths
from plait.tasks.base_comparison import Comparison
from plait.tasks.base_prediction import Prediction
from plait.tasks.base_writing import Writing
from support.components import component, component_names, configured
from support.media import wav, wave

ROWS, UNLABELLED = 8, 2
STEPS = 12  # tokens of each row, as many as the longest text has characters
WIDTH, FUSED = 5, 16
SOURCE = Source("target", Path())


def task_names(base: type[Task] = Task) -> list[str]:
    """The names of the tasks with this base."""
    return [name for name in component_names("tasks") if issubclass(component("tasks", name), base)]


@cache
def columns_of_labels() -> list[pa.ChunkedArray]:
    """Return labels of each form that a prediction may have. Row 2 is unlabelled. Add eight for a new one."""
    columns = [
        ["cat", "dog", None, "cat", "eel", "dog", "cat", "dog"],
        [1.0, 2.0, None, 4.0, -1.0, 0.5, 2.5, 3.0],
        [1.0, 2.0, None, 4.0, 0.0, 0.5, 2.5, 3.0],
        [["a"], ["a", "b"], None, [], ["c"], ["b"], ["a", "c"], ["b", "c"]],
        ["a", "a|b", None, "c", "a|b", "c", "a", "a|b"],
    ]
    return [pa.chunked_array([pa.array(column)]) for column in columns]


def counts() -> pa.ChunkedArray:
    """Return labels of a prediction that recognises none of the forms."""
    return pa.chunked_array([[1, 2, None, 4, 0, 5, 2, 3]])


def recordings() -> pa.ChunkedArray:
    cells: list[bytes | None] = [wav(wave(0.2 + row / 50, 300 + 100 * row)) for row in range(ROWS)]
    cells[UNLABELLED] = None
    return pa.chunked_array([cells])


def texts() -> pa.ChunkedArray:
    return pa.chunked_array([["ab", "b a", None, "cab", "bac", "a", "abc", "cb"]])


def compared_columns() -> pa.ChunkedArray:
    """Two columns with the same cells; all rows differ, and none is without both."""
    rows = [{"first": f"row {row}", "second": f"row {row}"} for row in range(ROWS)]
    return pa.chunked_array([pa.array(rows)])


def certainty(name: str, labels: pa.ChunkedArray) -> float:
    match = component("tasks", name).matches(labels.drop_null())
    return match.score if match else 0.0


def labels_of(name: str) -> pa.ChunkedArray:
    """Labels of the form that a task learns: by its base, and by what it recognises."""
    task = component("tasks", name)
    if issubclass(task, Comparison):
        return compared_columns()
    if task.from_files:
        return recordings()
    if issubclass(task, Writing):
        return texts()
    best = max(columns_of_labels(), key=lambda labels: certainty(name, labels))
    return best if certainty(name, best) else counts()


def input_columns(name: str) -> list[str]:
    """The columns that a task reads here: two to compare, else one."""
    return ["first", "second"] if issubclass(component("tasks", name), Comparison) else ["first"]


@dataclass
class Fitted:
    """A task with its head, and the labels that it was fitted on."""

    task: Task
    target: Tensor
    labelled: Tensor
    labels: pa.ChunkedArray

    def truth(self) -> Tensor:
        return self.target[self.labelled]


def task_config(name: str, options: dict[str, Any] | None = None) -> Any:
    return configured("tasks", name, {"inputs": tuple(input_columns(name)), **(options or {})})


def fit_task(
    name: str, options: dict[str, Any] | None = None, labels: pa.ChunkedArray | None = None
) -> Fitted:
    """A task, fitted on labels that suit it, or on these."""
    labels = labels_of(name) if labels is None else labels
    torch.manual_seed(0)
    task = component("tasks", name).fit(task_config(name, options), labels, "target")
    build_head(task, name)
    target, labelled, problems = task.encode(labels, SOURCE)
    assert not problems, f"these are no labels for the task '{name}': {problems}; see columns_of_labels"
    return Fitted(task.eval(), target, labelled, labels)


def build_head(task: Task, name: str) -> None:
    columns = input_columns(name)
    task.build(Widths(FUSED, dict.fromkeys(columns, WIDTH), blocks=columns))


def inputs(name: str, rows: int = ROWS, seed: int = 0) -> tuple[Fused, Encoded]:
    """Encoded rows, with a cell in every column, and fused vectors for tasks that read these."""
    generator = torch.Generator().manual_seed(seed)
    columns = input_columns(name)
    everywhere = dict.fromkeys(columns, torch.ones(rows, dtype=torch.bool))
    tokens = {}
    for column in columns:
        x_BLD = torch.randn(rows, STEPS, WIDTH, generator=generator)
        tokens[column] = Tokens(x_BLD, torch.ones(rows, STEPS, dtype=torch.bool))
    vector_BD = torch.randn(rows, FUSED, generator=generator)
    blocks = dict.fromkeys(columns, vector_BD)
    return Fused(vector_BD, blocks, everywhere, everywhere), Encoded(tokens, everywhere, everywhere)


def one_row(fused: Fused, encoded: Encoded, row: int) -> tuple[Fused, Encoded]:
    """The same inputs for one of their rows."""
    present = {column: present_B[row : row + 1] for column, present_B in encoded.present.items()}
    tokens = {}
    for column, t in encoded.tokens.items():
        tokens[column] = Tokens(t.x_BLD[row : row + 1], t.mask_BL[row : row + 1])
    blocks = {column: vector_BD[row : row + 1] for column, vector_BD in fused.blocks.items()}
    fused_row = Fused(fused.vector_BD[row : row + 1], blocks, present, present)
    return fused_row, Encoded(tokens, present, present)


def answer(task: Task, name: str, rows: int = ROWS) -> Tensor:
    """Return the decoded output of the task for random inputs."""
    with torch.no_grad():
        return task.decode(task.answer(*inputs(name, rows)))


def perfect_output(fitted: Fitted) -> Tensor:
    """The decoded output of labelled rows that could not be better.

    A prediction's has the least loss; what a writing decodes has the form of its target; a comparison's
    embeddings are the same in all columns of a row, and others in each row.
    """
    task, truth = fitted.task, fitted.truth()
    if isinstance(task, Writing):
        return truth
    if isinstance(task, Prediction):
        return least_loss(task, truth)
    rows_BD = torch.eye(len(truth), 256)
    return torch.stack([rows_BD] * (truth.shape[1] - 1), 1)


def least_loss(task: Prediction, truth: Tensor) -> Tensor:
    """The outputs of the least loss, by gradient descent."""
    everywhere = torch.ones(len(truth), dtype=torch.bool)
    output = task.baseline_output().repeat(len(truth), *[1] * task.baseline_output().ndim)
    output.requires_grad_()
    optimizer = torch.optim.Adam([output], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        task.loss(output, truth, everywhere).backward()
        optimizer.step()
    return output.detach()

"""Export a network as a graph, and compare the graph with the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from plait.model.network import MultimodalModel
from plait.nn.batch import Batch, Encoded, Fused, Tokens
from plait.tasks.base import Task

Tensors = dict[str, dict[str, Tensor]]  # by column, then by the name of the field


class Exported(nn.Module):
    """A network whose batch comes as plain tensors, as a graph for export has them."""

    def __init__(self, model: MultimodalModel, batch: Batch) -> None:
        super().__init__()
        self.model, self.batch = model, batch

    def forward(self, values: Tensors, present: dict[str, Tensor]) -> dict[str, Tensor]:
        columns = {column: replace(self.batch.values[column], **fields) for column, fields in values.items()}
        return self.model(Batch(columns, present, present, next(iter(present.values()))))


def tensors_of(batch: Batch) -> Tensors:
    """Return the values and lengths of all columns."""
    tensors: Tensors = {}
    for column, values in batch.values.items():
        tensors[column] = {"x": values.x}
        if values.length_B is not None:
            tensors[column]["length_B"] = values.length_B
    return tensors


def assert_exported_alike(model: MultimodalModel, batch: Batch) -> None:
    """Export `forward` in strict mode. The graph must answer as the network does, whatever is present."""
    inputs = (tensors_of(batch), batch.present)
    graph = torch.export.export(Exported(model, batch), inputs, strict=True).module()

    # Other rows are absent now: the graph must not have kept those of the example.
    for present in (batch.present, {column: mask_B.flip(0) for column, mask_B in batch.present.items()}):
        rows = replace(batch, present=present, in_table=present)
        answers = graph(tensors_of(batch), present)
        for target, expected in model(model.packed(rows)).items():
            torch.testing.assert_close(answers[target], expected, atol=1e-5, rtol=1e-4)


class ExportedTask(nn.Module):
    """A task whose rows come as plain tensors."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, fused: Tensors, tokens: Tensors, present: dict[str, Tensor]) -> Tensor:
        columns = {column: Tokens(**fields) for column, fields in tokens.items()}
        vectors = Fused(fused["all"]["x"], fused["blocks"], present, present)
        return self.task.answer(vectors, Encoded(columns, present, present))


def exported_answer(task: Task, fused: Fused, encoded: Encoded) -> Callable[[Fused, Encoded], Tensor]:
    """Return a task's `answer` as a graph, exported in strict mode with these rows as the example."""
    graph = torch.export.export(ExportedTask(task), _tensors(fused, encoded), strict=True).module()
    return lambda fused, encoded: graph(*_tensors(fused, encoded))


def _tensors(fused: Fused, encoded: Encoded) -> tuple[Tensors, Tensors, dict[str, Tensor]]:
    tokens = {column: {"x_BLD": t.x_BLD, "mask_BL": t.mask_BL} for column, t in encoded.tokens.items()}
    return {"all": {"x": fused.vector_BD}, "blocks": fused.blocks}, tokens, encoded.present

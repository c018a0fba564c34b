"""From rows to answers and embeddings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from plait import embedding
from plait.batch import Batch
from plait.cells import Store
from plait.dataset import Dataset
from plait.errors import TableError, nearest
from plait.machine import Settings, to_channels_last
from plait.modalities.base import Problem, Progress
from plait.model import MultimodalModel
from plait.preprocessing import Prepared, Preprocessing
from plait.recipe import Recipe
from plait.schema import Schema, origin
from plait.table.read import Table

BATCH = 64
Tell = Callable[[str], None]
CHUNK = 4096  # rows that are decoded before any is predicted


class Predictor:
    """A model set up to answer fast: in eval mode, with the weights of its large products in bf16 where it was trained
    so, converted once. The model that it is given is left as it is."""

    def __init__(self, model: MultimodalModel, settings: Settings, recipe: Recipe) -> None:
        self.settings, self.recipe = settings, recipe
        if settings.precision == "bf16":
            model = copy.deepcopy(model)
            for part in model.modules():
                if isinstance(part, (nn.Conv2d, nn.Conv3d, nn.Linear, nn.LSTM, nn.Embedding)):
                    part.bfloat16()
        if settings.channels_last:
            to_channels_last(model)
        self.model = model.eval().to(settings.device)

    def embed(self, prepared: Prepared, preprocessing: Preprocessing, store: Store | None = None) -> None:
        """The vectors of frozen encoders in place of the cells."""
        embedding.embed(prepared, preprocessing, self.model, self.recipe, self.settings, store)

    @torch.inference_mode()
    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Each task's output for a batch, in fp32 on the CPU."""
        with self.settings.autocast():
            found = self.model(batch.to(torch.device(self.settings.device)))
        return {target: output.float().cpu() for target, output in found.items()}

    @torch.inference_mode()
    def fused(self, batch: Batch) -> Tensor:
        """The fused vector of each row, in fp32 on the CPU."""
        batch = batch.to(torch.device(self.settings.device))
        with self.settings.autocast():
            return self.model.fusion(self.model.encode(batch), batch.present).float().cpu()

    @torch.inference_mode()
    def subsets(self, batch: Batch, subsets: list[tuple[str, ...]]) -> list[dict[str, Tensor]]:
        """The outputs for each subset of the columns, all others hidden: every column is encoded once."""
        batch = batch.to(torch.device(self.settings.device))
        with self.settings.autocast():
            encoded = self.model.encode(batch)
            found = [self.model.predict_hidden(encoded, batch.only(set(subset)).present) for subset in subsets]
        return [{target: output.float().cpu() for target, output in one.items()} for one in found]


def predict(
    predictor: Predictor, preprocessing: Preprocessing, schema: Schema, table: Table, tell: Tell, progress: Progress, store: Store | None = None
) -> tuple[pa.Table, list[Problem]]:
    """One answer for each row, in order: id columns as they came, then for each target the answer under the target's own
    name and more about it (`label_probability_cat`), then `problem`, null unless a cell of the row could not be read."""
    check_columns(preprocessing, table, tell)
    columns: dict[str, list[pa.Array]] = {}
    problems: list[Problem] = []
    for first, prepared in chunks(preprocessing, table, store):
        predictor.embed(prepared, preprocessing, store)
        data = Dataset(prepared, preprocessing)
        parts = []
        for batch in data.in_order(BATCH):
            parts.append(predictor.outputs(batch))
            progress(len(batch))
        for target, task in preprocessing.tasks.items():
            output = torch.cat([part[target] for part in parts])
            for suffix, answer in task.answers(output).items():
                columns.setdefault(f"{target}_{suffix}" if suffix else target, []).append(answer)
        problems += [Problem(p.row + first, p.column, p.file, p.reason) for p in prepared.problems]
    return _assemble(columns, problems, schema, table, preprocessing), problems


def embed(predictor: Predictor, preprocessing: Preprocessing, table: Table, tell: Tell, store: Store | None = None) -> np.ndarray:
    """The fused vectors, float32 of shape (rows, width)."""
    check_columns(preprocessing, table, tell)
    parts = []
    for _, prepared in chunks(preprocessing, table, store):
        predictor.embed(prepared, preprocessing, store)
        parts += [predictor.fused(batch) for batch in Dataset(prepared, preprocessing).in_order(BATCH)]
    if not parts:
        return np.zeros((0, predictor.model.fusion.width), dtype=np.float32)
    return torch.cat(parts).numpy()


def chunks(preprocessing: Preprocessing, table: Table, store: Store | None = None) -> Iterator[tuple[int, Prepared]]:
    """The table in parts that fit in memory, each with the number of its first row."""
    for first in range(0, len(table), CHUNK):
        part = Table(table.data.slice(first, CHUNK), table.root, table.name)
        yield first, preprocessing.prepare(part, targets=False, store=store)


def check_columns(preprocessing: Preprocessing, table: Table, tell: Callable[[str], None]) -> None:
    """Says once which inputs the table lacks altogether. Raises `TableError` when it has none of them."""
    known = table.data.column_names
    absent = [name for name in preprocessing.inputs if origin(name, known) not in known]
    if absent and len(absent) == len(preprocessing.inputs):
        raise TableError(
            f"{table.name} has none of the model's input columns ({', '.join(absent)}); it has {', '.join(table.data.column_names) or 'no column'}"
        )
    others = [name for name in table.data.column_names if name not in preprocessing.inputs and name not in preprocessing.tasks]
    for name in dict.fromkeys(origin(name, known) for name in absent):
        close = nearest(name, others)
        hint = f"; {close}" if close.startswith("did") else ""
        tell(f"input '{name}' is not in {table.name}: treated as missing in every row{hint}")


def _assemble(columns: dict[str, list[pa.Array]], problems: list[Problem], schema: Schema, table: Table, preprocessing: Preprocessing) -> pa.Table:
    done: dict[str, Any] = {name: table.data.column(name) for name in schema.of("id") if name in table.data.column_names}
    if columns:
        done |= {name: pa.chunked_array(parts) for name, parts in columns.items()}
    else:
        done |= {target: pa.array([], pa.null()) for target in preprocessing.tasks}
    text: list[str | None] = [None] * len(table)
    for p in problems:
        said = f"{p.column}: {p.reason}{f' ({p.file})' if p.file else ''}"
        text[p.row] = f"{text[p.row]}; {said}" if text[p.row] else said
    done["problem"] = pa.array(text, pa.string())
    return pa.table(done)

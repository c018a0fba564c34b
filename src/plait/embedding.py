"""Frozen encoders run once: each cell's vectors are computed, kept in the cache by what the cell holds, and stand in for the cell."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from torch import Tensor

from plait.batch import Values
from plait.cells import Cell, Nowhere, Store
from plait.dataset import Dataset
from plait.encoders.base import Encoder
from plait.machine import Settings
from plait.modalities.base import Modality, Progress, allocate
from plait.model import MultimodalModel
from plait.preprocessing import Prepared, Preprocessing
from plait.recipe import Recipe
from plait.recipe_parts import ColumnRecipe
from plait.tasks.alignment import Alignment

VERSION = 2  # of what `embed` makes
TOGETHER = 32  # cells in one run of an encoder
BEGINNING = 10_000  # rows that the linear maps of an alignment are fitted on, at most


def frozen(model: MultimodalModel) -> dict[str, Encoder]:
    """The frozen encoders, by column."""
    return {c: model.encoder(c).encoder for c in model.columns if hasattr(model.encoder(c).encoder, "embed")}


@torch.inference_mode()
def embed(
    prepared: Prepared, preprocessing: Preprocessing, encoders: dict[str, Encoder], recipe: Recipe, settings: Settings,
    store: Store | None = None, progress: Progress = lambda n: None,
) -> None:  # fmt: skip
    """Puts the vectors of these frozen encoders in place of the cells, in the prepared table itself."""
    for column, encoder in encoders.items():
        values = prepared.batch.values[column]
        if values.encoded:
            continue
        present = prepared.batch.present[column] if values.count_B is None else torch.ones(len(values.x), dtype=torch.bool)
        identity = _identity(recipe.columns[column], settings)
        work = _Column(preprocessing.inputs[column], encoder, settings, identity, store or Nowhere())
        prepared.batch.values[column] = work.embed(values, present.nonzero()[:, 0], progress)


@torch.inference_mode()
def begin(model: MultimodalModel, data: Dataset) -> None:
    """Lets alignments begin from what frozen encoders say of the training rows, where two of their columns or more have one."""
    batch, known = data.prepared.batch, frozen(model)
    rows = data.rows[torch.linspace(0, len(data) - 1, min(len(data), BEGINNING)).long()]
    model.eval()
    for task in (model.task(t) for t in model.targets):
        columns = [c for c in task.columns if c in known] if isinstance(task, Alignment) else []
        if isinstance(task, Alignment) and len(columns) > 1:
            task.begin({c: model.encoder(c)(batch.values[c].take(rows), batch.present[c][rows]) for c in columns})


class _Column:
    def __init__(self, modality: Modality, encoder: torch.nn.Module, settings: Settings, identity: str, store: Store) -> None:
        self.modality, self.encoder, self.settings, self.identity, self.store = modality, encoder, settings, identity, store

    def embed(self, values: Values, items: Tensor, progress: Progress) -> Values:
        """Vectors for these items of `values`; the same content is computed once. Items beside them keep zeros."""
        places: dict[bytes, list[int]] = {}
        for item in items.tolist():
            places.setdefault(_digest(values, item), []).append(item)
        found: dict[bytes, np.ndarray] = {}
        for digest, where in places.items():
            cell = self.store.get(self.identity, digest)
            if cell is not None and cell.array is not None:
                found[digest] = cell.array
                progress(len(where))
        left = [digest for digest in places if digest not in found]
        if values.length_B is not None:  # texts of one length together, for less padding
            length_B = values.length_B
            left.sort(key=lambda digest: int(length_B[places[digest][0]]))
        for first in range(0, len(left), TOGETHER):
            some = left[first : first + TOGETHER]
            for digest, array in zip(some, self._run(values, torch.tensor([places[d][0] for d in some])), strict=True):
                found[digest] = self.store.put(self.identity, digest, Cell(array)).array  # type: ignore[assignment]
                progress(len(places[digest]))
        return self._gathered(values, places, found)

    def _run(self, values: Values, rows: Tensor) -> list[np.ndarray]:
        plain = Values(values.x, values.length_B).take(rows)
        with self.settings.autocast(frozen=True):
            encoded = self.encoder.embed(self.modality.transform(plain, None).to(torch.device(self.settings.device)))  # type: ignore[operator]
        assert encoded.length_B is not None
        return [x[: int(n)].numpy() for x, n in zip(encoded.x.cpu(), encoded.length_B, strict=True)]

    def _gathered(self, values: Values, places: dict[bytes, list[int]], found: dict[bytes, np.ndarray]) -> Values:
        width = int(self.encoder.width)  # type: ignore[arg-type]
        count, steps = len(values.x), max((len(array) for array in found.values()), default=1)
        x, length_B = allocate(count, (steps, width), torch.float32), torch.ones(count, dtype=torch.long)
        into = x.numpy()
        for digest, items in places.items():
            array = found[digest]
            into[items, : len(array)] = array
            length_B[items] = len(array)
        return Values(x, length_B, values.count_B, encoded=True)


def _digest(values: Values, item: int) -> bytes:
    """A hash of one prepared cell."""
    x = values.x[item]
    if values.length_B is not None:
        x = x[: int(values.length_B[item])]
    return hashlib.blake2b(x.numpy().tobytes(), digest_size=12).digest()


def _identity(column: ColumnRecipe, settings: Settings) -> str:
    """Everything besides the cell that decides its vectors."""
    assert column.modality is not None
    assert column.encoder is not None
    network = {name: column.encoder.options.get(name) for name in ("identity", "pool", "unit")}
    about = {"version": VERSION, "precision": settings.frozen, "modality": column.modality.model_dump(mode="json"), **network}
    return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=12).hexdigest()

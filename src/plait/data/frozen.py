"""Frozen encoders run once: each cell's vectors are computed, kept in the cache by what the cell holds,
and stand in for the cell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from plait.data.plan import Plan
from plait.data.plan_columns import ColumnPlan
from plait.data.preprocessing import Prepared, Preprocessing
from plait.encoders.base import FrozenEncoder
from plait.media.cell import Cell, Nowhere, Store
from plait.modalities.base import Modality
from plait.modalities.base_media import MediaModality
from plait.nn.batch import Values, allocate
from plait.nn.device import Settings
from plait.table.table import Progress

VERSION = 3  # of what `embed` makes


NORMALISED = 4096  # cells whose vectors are normalised at once


TOGETHER = 32  # cells in one run of an encoder


@torch.inference_mode()
def embed(
    prepared: Prepared,
    preprocessing: Preprocessing,
    encoders: Mapping[str, FrozenEncoder],
    plan: Plan,
    settings: Settings,
    store: Store | None = None,
    progress: Progress = lambda n: None,
) -> None:
    """Puts the vectors of these frozen encoders, normalised, in place of the cells, in the prepared
    table itself.
    """
    for column, encoder in encoders.items():
        values = prepared.batch.values[column]
        if values.encoded:
            continue
        present = (
            prepared.batch.present[column]
            if values.count_B is None
            else torch.ones(len(values), dtype=torch.bool)
        )
        modality, files = (
            preprocessing.inputs[column],
            prepared.digests.get(column) if values.count_B is None else None,
        )
        work = _Column(
            modality,
            encoder,
            settings,
            _identity(plan.columns[column], modality, settings),
            store or Nowhere(),
        )
        keys = {item: _digest(values, item, files) for item in present.nonzero()[:, 0].tolist()}
        prepared.batch.values[column] = work.embed(values, keys, progress)


class _Column:
    def __init__(
        self, modality: Modality, encoder: FrozenEncoder, settings: Settings, identity: str, store: Store
    ) -> None:
        self.modality, self.encoder, self.settings, self.identity, self.store = (
            modality,
            encoder,
            settings,
            identity,
            store,
        )

    def embed(self, values: Values, keys: dict[int, bytes], progress: Progress) -> Values:
        """Vectors for the items of `values` that have a key, the same for the same content, which is
        computed once. Others keep zeros.
        """
        places: dict[bytes, list[int]] = {}
        for item, key in keys.items():
            places.setdefault(key, []).append(item)
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
            for digest, array in zip(
                some, self._run(values, torch.tensor([places[d][0] for d in some])), strict=True
            ):
                stored = self.store.put(self.identity, digest, Cell(array)).array
                assert stored is not None
                found[digest] = stored
                progress(len(places[digest]))
        return self._gathered(values, places, found)

    def _run(self, values: Values, rows: Tensor) -> list[np.ndarray]:
        plain = values.some(rows)
        with self.settings.autocast(frozen=True):
            encoded = self.encoder.embed(
                self.modality.transform(plain, None).to(torch.device(self.settings.device))
            )
        assert encoded.length_B is not None
        return [x[: int(n)].numpy() for x, n in zip(encoded.x.cpu(), encoded.length_B, strict=True)]

    def _gathered(
        self, values: Values, places: dict[bytes, list[int]], found: dict[bytes, np.ndarray]
    ) -> Values:
        width = self.encoder.width
        count, steps = len(values), max((len(array) for array in found.values()), default=1)
        x, length_B = allocate(count, (steps, width), torch.float32), torch.ones(count, dtype=torch.long)
        into = x.numpy()
        for digest, items in places.items():
            array = found[digest]
            into[items, : len(array)] = array
            length_B[items] = len(array)
        for part in x.split(NORMALISED):  # once, not in every step; linear models are the better for it too
            part.copy_(self.encoder.norm(part))
        return Values(x, length_B, values.count_B, encoded=True)


def _digest(values: Values, item: int, files: list[set[bytes]] | None) -> bytes:
    """A hash of one prepared cell, or of the file that it was prepared from, which is known already."""
    if files is not None:
        (known,) = files[item]
        return known
    x = values.x[item]
    if values.length_B is not None:
        x = x[: int(values.length_B[item])]
    return hashlib.blake2b(x.numpy().tobytes(), digest_size=12).digest()


def _identity(column: ColumnPlan, modality: Modality, settings: Settings) -> str:
    """Everything besides the file or the cell that decides its vectors."""
    network = {name: column.encoder.options.get(name) for name in ("identity", "pool", "unit")}
    prepared = modality.identity if isinstance(modality, MediaModality) else ""
    options = column.modality.model_dump(mode="json")
    about = {
        "version": VERSION,
        "precision": settings.frozen,
        "prepared": prepared,
        "modality": options,
        **network,
    }
    return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=12).hexdigest()

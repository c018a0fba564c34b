"""Run frozen encoders once over all cells. The vectors are cached by content and replace the cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from plait.data.plan import Plan
from plait.data.plan_columns import ColumnPlan
from plait.data.preprocessing import Prepared, Preprocessing
from plait.encoders.base import FrozenEncoder
from plait.media.cell import Cell, Nowhere, Store
from plait.modalities.base import Modality
from plait.nn.batch import Values, allocate
from plait.nn.device import Settings
from plait.table.table import Progress

VERSION = 3  # of the vectors that `embed` computes; a new number leaves cached ones unused
NORMALISED = 4096  # cells whose vectors are normalised at once
TOGETHER = {"cpu": 32, "cuda": 256}  # cells in one run of an encoder; a GPU waits less for large runs


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
    """Replace the cells by the normalised vectors of these frozen encoders, in the prepared table itself.

    `encoders` has the encoder of each column. Columns that are encoded already stay as they are.
    """
    for column, encoder in encoders.items():
        values = prepared.batch.values[column]
        if values.encoded:
            continue
        modality = preprocessing.inputs[column]
        identity = _identity(plan.columns[column], modality, settings)
        embedder = _ColumnEmbedder(modality, encoder, settings, identity, store or Nowhere())
        digests = _digests(prepared, column)
        vectors = embedder.embed(values, digests, progress)
        prepared.batch.values[column] = replace(vectors, traits=values.traits)


class _ColumnEmbedder:
    """Embeds the cells of one column.

    Cells of the same content share a digest and are computed once.
    """

    def __init__(
        self, modality: Modality, encoder: FrozenEncoder, settings: Settings, identity: str, store: Store
    ) -> None:
        self.modality = modality
        self.encoder = encoder
        self.settings = settings
        self.identity = identity
        self.store = store

    def embed(self, values: Values, digests: dict[int, bytes], progress: Progress) -> Values:
        """Return the vectors (N, T, D) of the items of `values`. Items without a digest keep zeros."""
        items_by_digest: dict[bytes, list[int]] = {}
        for item, digest in digests.items():
            items_by_digest.setdefault(digest, []).append(item)
        vectors = self._cached(items_by_digest, progress)

        # any item of a digest will do: all of them have the same content
        uncached = {}
        for digest, items in items_by_digest.items():
            if digest not in vectors:
                uncached[digest] = items[0]

        for batch in self._batches(values, uncached):
            batch_items = torch.tensor([uncached[digest] for digest in batch])
            for digest, array in zip(batch, self._run(values, batch_items), strict=True):
                # what the store returns is a view of its file, where it keeps one, and needs no memory
                stored = self.store.put(self.identity, digest, Cell(array)).array
                assert stored is not None
                vectors[digest] = stored
                progress(len(items_by_digest[digest]))
        return self._gathered(values, items_by_digest, vectors)

    def _batches(self, values: Values, item_of: dict[bytes, int]) -> Iterator[list[bytes]]:
        """Yield the digests in batches. Texts of about one length come together, for less padding."""
        digests = list(item_of)
        if values.length_B is not None:
            length_B = values.length_B
            digests.sort(key=lambda digest: int(length_B[item_of[digest]]))
        together = TOGETHER[self.settings.device]
        for first in range(0, len(digests), together):
            yield digests[first : first + together]

    def _cached(self, items_by_digest: dict[bytes, list[int]], progress: Progress) -> dict[bytes, np.ndarray]:
        """Return the vectors that the store has already, by digest."""
        vectors = {}
        for digest, items in items_by_digest.items():
            cell = self.store.get(self.identity, digest)
            if cell is not None and cell.array is not None:
                vectors[digest] = cell.array
                progress(len(items))
        return vectors

    def _run(self, values: Values, items: Tensor) -> list[np.ndarray]:
        """Run the encoder on some items. Return the vectors (T, D) of each, without padding."""
        device = torch.device(self.settings.device)
        with self.settings.autocast(frozen=True):
            cells = values.some(items)
            if cells.x.dtype == torch.uint8:
                cells = cells.to(device)  # bytes of pixels are a quarter of their floats
            cells = self.modality.transform(cells, None).to(device)
            encoded = self.encoder.embed(cells)
        assert encoded.length_B is not None
        vectors = []
        for x, length in zip(encoded.x.cpu(), encoded.length_B.tolist(), strict=True):
            vectors.append(x[:length].numpy())

        # a long recording is cut into several windows, whose vectors follow each other
        if cells.count_B is not None:
            ends = cells.count_B.cumsum(0).tolist()
            starts = [0, *ends[:-1]]
            vectors = [np.concatenate(vectors[start:end]) for start, end in zip(starts, ends, strict=True)]
        return vectors

    def _gathered(
        self, values: Values, items_by_digest: dict[bytes, list[int]], vectors: dict[bytes, np.ndarray]
    ) -> Values:
        """Write the vectors of all items into one tensor (N, T, D), and normalise them."""
        steps = max((len(array) for array in vectors.values()), default=1)
        x = allocate(len(values), (steps, self.encoder.width), torch.float32)
        length_B = torch.ones(len(values), dtype=torch.long)
        x_array = x.numpy()  # the same memory
        for digest, items in items_by_digest.items():
            array = vectors[digest]
            x_array[items, : len(array)] = array
            length_B[items] = len(array)

        # once, not in every training step; linear models are the better for it too
        for chunk in x.split(NORMALISED):
            chunk.copy_(self.encoder.norm(chunk))
        return Values(x, length_B, values.count_B, encoded=True)


def _digests(prepared: Prepared, column: str) -> dict[int, bytes]:
    """Return a digest of the content of each present item of a column, by its number."""
    values = prepared.batch.values[column]
    file_digests = prepared.digests.get(column)
    present = prepared.batch.present[column]
    if values.count_B is not None:
        # every medium of a cell is an item, and the digests of a cell do not tell them apart
        file_digests = None
        present = torch.ones(len(values), dtype=torch.bool)

    digests = {}
    for item in present.nonzero()[:, 0].tolist():
        digests[item] = _digest(values, item, file_digests)
    return digests


def _digest(values: Values, item: int, file_digests: list[set[bytes]] | None) -> bytes:
    """Return the digest of the file that a cell was prepared from, or else of the prepared cell."""
    if file_digests is not None:
        (file_digest,) = file_digests[item]
        return file_digest
    x = values.x[item]
    if values.length_B is not None:
        x = x[: int(values.length_B[item])]
    return hashlib.blake2b(x.numpy().tobytes(), digest_size=12).digest()


def _identity(column: ColumnPlan, modality: Modality, settings: Settings) -> str:
    """Return a digest of everything besides the cell that decides its vectors."""
    encoder = column.encoder.options
    identity = {
        "version": VERSION,
        "precision": settings.frozen,
        "prepared": modality.identity,
        "modality": column.modality.model_dump(mode="json"),
        "identity": encoder.get("identity"),
        "pool": encoder.get("pool"),
        "unit": encoder.get("unit"),
        "frames": encoder.get("frames"),
    }
    text = json.dumps(identity, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

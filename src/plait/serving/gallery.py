"""The index that a service searches, and the files of its rows."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlencode

import pyarrow as pa

from plait.api.model import Model
from plait.errors import BadCell, TableError
from plait.media.cell import Media, is_missing
from plait.media.kinds import BYTES, media_type
from plait.modalities.base import modalities
from plait.retrieval.index import Index
from plait.retrieval.rows import FOLDER, ROW, plain_name
from plait.retrieval.space import Space
from plait.serving.answers import as_rows
from plait.serving.refusals import Refusal
from plait.table.json import JSON

NONE = "this service has no index to search; make one with 'plait index', and start it again"
HEAD = 32  # bytes that tell what a file is


class Gallery:
    """The indices of a model, by alignment. They are opened once: one that changes is seen after a restart.

    Raises `TableError` if `place` holds no index of this model.
    """

    def __init__(self, model: Model, place: str | Path | None) -> None:
        self._indices: dict[str, Index] = {}
        self._suffixes: dict[str, tuple[str, ...]] = {}
        for name, column in model.plan.columns.items():
            modality = modalities.find(column.modality.name)
            if modality.media:
                self._suffixes[name] = getattr(modality, "suffixes", ())

        if place is not None and not model.alignments:
            raise TableError(f"the index '{place}' cannot be searched: this model aligns no columns")
        error: TableError | None = None
        for name in model.alignments:
            try:
                self._indices[name] = model.index(place=place, alignment=name)
            except TableError as none:
                error = none
        if place is not None and not self._indices and error is not None:
            raise error

    def index(self, space: Space) -> Index:
        """Return the index of an alignment. Raises `Refusal` if there is none."""
        if space.name not in self._indices:
            raise Refusal(404, NONE)
        return self._indices[space.name]

    @property
    def names(self) -> list[str]:
        """The alignments that have an index."""
        return list(self._indices)

    def condition_columns(self, index: Index) -> list[str]:
        """Return the columns that a condition of a search may name: none that tell where files are."""
        media = set(map(plain_name, self._suffixes))
        return [name for name in index.plain if name != ROW and name not in media]

    def shown(self, rows: pa.Table) -> list[JSON]:
        """Return found rows as JSON, without the files, which have addresses, and without folders."""
        media = set(map(plain_name, self._suffixes))
        names = [name for name in rows.column_names if name != ROW and name not in media]
        shown = as_rows(rows.select(names))
        for row in shown:
            for name, cell in row.items():
                if isinstance(cell, str) and os.path.isabs(cell):
                    row[name] = os.path.basename(cell)
        return shown

    def addresses(self, rows: pa.Table, alignment: str) -> list[JSON]:
        """Return where the files of found rows are on this service, by column, for each row."""
        addresses: list[JSON] = []
        for row in rows.to_pylist():
            files: JSON = {}
            for column in self._suffixes:
                if not is_missing(row.get(plain_name(column))):
                    query = {"row": row[ROW], "column": column, "alignment": alignment}
                    files[column] = f"media?{urlencode(query)}"
            addresses.append(files)
        return addresses

    def file(self, number: int, column: str, alignment: str) -> tuple[str, str]:
        """Return the path of a file of a row, and its media type.

        Raises `Refusal` for what is no image, audio or video of the index.
        """
        index = self._indices.get(alignment)
        row = index.row(number) if index is not None and column in self._suffixes else {}
        try:
            root = Path(str(row[FOLDER]))
            path = Media(row.get(plain_name(column)), root, suffixes=self._suffixes[column]).file
            with open(path, "rb") as file:
                kind = media_type(file.read(HEAD))
        except (BadCell, KeyError, OSError):
            raise Refusal(404, "no such file") from None
        if kind == BYTES:
            raise Refusal(404, "no such file")
        return path, kind

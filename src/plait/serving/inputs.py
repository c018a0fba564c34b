"""What a model takes: its columns as JSON Schema, and the cells of a request as rows of a table."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow as pa

from plait.api.model import Model
from plait.errors import BadCell, PlaitError, nearest
from plait.modalities.base import modalities
from plait.serving.limits import Limits
from plait.serving.refusals import Refusal, wrong_cell
from plait.table.json import JSON, JSONValue, read_list
from plait.table.read import read
from plait.table.schema import origin
from plait.table.table import Table

EXPECTED = "expected a file, as an upload, base64 or a data URI"
LONGEST_PATH = 4096  # characters
LONGEST_NAME = 100  # characters of a column that are shown
SHORTEST = 32  # characters of base64; no file of media is shorter, but words and paths may look like base64


@dataclass(frozen=True)
class Input:
    """A column that a model reads. `schema` is that of a cell, and `missing` the share of training rows.

    Cells of `media` are files. With `several`, a cell may hold more than one.
    """

    name: str
    modality: str
    schema: JSON
    media: bool
    several: bool
    missing: float

    @classmethod
    def all_of(cls, model: Model) -> dict[str, Input]:
        """Return the columns that a model reads, by name, in the table's order."""
        preprocessing = model.artifact.preprocessing
        names = model.plan.table_columns
        inputs: dict[str, Input] = {}
        for name, modality in preprocessing.inputs.items():
            column = origin(name, names)
            # The sound of a video, or the text in an image, is read from the same cell.
            if column in inputs and column != name:
                continue
            kind = model.plan.columns[name].modality.name
            several = name in preprocessing.several
            schema = _cell_schema(modality.cell_schema(), several)
            missing = model.schema[column].missing / max(model.schema.rows, 1)
            is_media = modalities.find(kind).media
            inputs[column] = cls(column, kind, schema, is_media, several, missing)
        return inputs


def _cell_schema(schema: JSON, several: bool) -> JSON:
    """Return the schema of a cell that may also be null, or hold several files."""
    if several:
        return {"anyOf": [schema, {"type": "array", "items": schema}, {"type": "null"}]}
    kinds = schema.get("type")
    if kinds is None:
        return schema
    listed = [kinds] if isinstance(kinds, str) else read_list(kinds)
    return {**schema, "type": [*listed, "null"]}


@dataclass
class Reader:
    """Reads the rows of requests as tables are read. With `files`, cells may be paths below that folder.

    A text may have so many `characters`.
    """

    model: Model
    inputs: dict[str, Input] = field(init=False)
    others: list[str] = field(init=False)
    files: Path | None = None
    characters: int = Limits.characters

    def __post_init__(self) -> None:
        self.inputs = Input.all_of(self.model)
        names = self.model.plan.table_columns
        self.others = [name for name in [*names, *self.model.targets] if name not in self.inputs]

    def read(self, rows: Sequence[Mapping[str, object]]) -> Table:
        """Return rows as a typed table with all inputs.

        Each row is read as a table of its own, so that no row changes the answer of another: a column that it
        leaves out is lacking, and one that is null is empty. A cell that holds no file where one is expected
        is bad. Raises `Refusal` for an unknown column.
        """
        cells: list[dict[str, object]] = []
        bad: dict[str, dict[int, str]] = {}
        for number, row in enumerate(rows):
            cells.append({})
            for name in row:
                self._check_known(number, name)
                try:
                    cells[number][name] = self._cell(name, row[name])
                except BadCell as error:
                    bad.setdefault(name, {})[number] = error.reason
        try:
            table = self.model.plan.read(read(cells))
        except PlaitError as error:
            raise Refusal(422, str(error)) from None

        data = table.data
        lacks = {}
        for name in self.inputs:
            lacks[name] = np.array([name not in row for row in rows], dtype=bool)
            if name not in data.column_names:
                data = data.append_column(name, pa.nulls(len(table)))
            bad.setdefault(name, {}).update(table.bad.get(name, {}))
        ids = self.model.schema.of("id")
        kept = [name for name in data.column_names if name in self.inputs or name in ids]
        return Table(data.select(kept), Path(), "the request", bad=bad, lacks=lacks)

    def _check_known(self, row: int, name: str) -> None:
        """Raise `Refusal` for a column that the model has never seen."""
        if name not in self.inputs and name not in self.others:
            name = name[:LONGEST_NAME]
            hint = nearest(name, [*self.inputs, *self.others])
            raise wrong_cell(row, name, f"the model knows no such column: {hint}")

    def _cell(self, name: str, cell: object) -> object:
        """Return a cell as a table has it: the bytes of files. Raises `BadCell`."""
        known = self.inputs.get(name)
        if known is None or not known.media:
            return self._value(cell)
        if not isinstance(cell, list):
            content = self._content(cell)
            return [content] if known.several and content is not None else content
        if not known.several:
            raise BadCell(f"{EXPECTED}; came a list, and training had one file in each cell")
        contents = [self._content(entry) for entry in cell]
        return [content for content in contents if content is not None]

    def _value(self, cell: object) -> object:
        """Return a cell that holds no file. Raises `BadCell` for a file that is no text, or a long text."""
        if isinstance(cell, bytes):
            cell = _as_text(cell)
        texts = [entry for entry in (cell if isinstance(cell, list) else [cell]) if isinstance(entry, str)]
        length = sum(map(len, texts))
        if length > self.characters:
            raise BadCell(f"expected a text of at most {self.characters:,} characters, came {length:,}")
        return cell

    def _content(self, cell: object) -> bytes | None:
        """Return the bytes of a file; None for nothing. Raises `BadCell`."""
        if isinstance(cell, Mapping) and "bytes" in cell:  # as Hugging Face datasets have it
            cell = cell["bytes"] or cell.get("path")
        if isinstance(cell, bytes):
            return cell or None
        if cell is None or cell == "":
            return None
        if not isinstance(cell, str):
            raise BadCell(f"{EXPECTED}; came {_kind(cell)}")
        content = self._file(cell) or _decoded(cell.strip())
        if content is None:
            paths = ", or a path below the folder of files" if self.files is not None else ""
            raise BadCell(f"{EXPECTED}{paths}; came {_shown(cell)}")
        if not content:
            raise BadCell("a data URI without content")
        return content

    def _file(self, cell: str) -> bytes:
        """Return the content of a file below `files`; nothing for any other path."""
        if self.files is None or len(cell) > LONGEST_PATH:
            return b""
        root = self.files.resolve()
        try:
            path = (root / cell).resolve()
            if path.is_relative_to(root) and path.is_file():
                return path.read_bytes()
        except (OSError, ValueError):  # names that no file can have
            pass
        return b""


def _as_text(cell: bytes) -> str:
    """Return a file that was sent where a value is expected. Raises `BadCell` if it is no text."""
    try:
        return cell.decode()
    except UnicodeDecodeError:
        raise BadCell("expected a value, came a file that is no text in UTF-8") from None


def _decoded(cell: str) -> bytes | None:
    """Return the file that a data URI or base64 holds; None for other text."""
    if cell[:5].lower() != "data:":
        return _from_base64(cell) if len(cell) >= SHORTEST else None
    head, comma, text = cell.partition(",")
    if not comma:
        return None
    if head.lower().endswith(";base64"):
        return _from_base64(text)
    return unquote_to_bytes(text)


def _from_base64(text: str) -> bytes | None:
    """Return the bytes that base64 writes, in either alphabet, with or without padding; None for others."""
    letters = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _shown(cell: str) -> str:
    """Return the beginning of a cell, for a message."""
    return repr(cell if len(cell) <= 40 else f"{cell[:40]}...")


def readable(rows: object, most: int) -> list[dict[str, object]]:
    """Return a request's JSON as rows: an object is one, a list has one or more. Raises `Refusal`."""
    if isinstance(rows, Mapping):
        rows = [rows]
    if not isinstance(rows, list):
        raise Refusal(422, f"expected an object of columns and cells, or a list of such; came {_kind(rows)}")
    if len(rows) > most:
        message = f"expected at most {most:,} rows, came {len(rows):,}; send more to /predict/batch"
        raise Refusal(422, message)
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise Refusal(422, f"row {number}: expected an object of columns and cells, came {_kind(row)}")
    return rows


def _kind(value: JSONValue | object) -> str:
    """Return what a value of JSON is called."""
    names: dict[type, str] = {bool: "a truth value", int: "a number", float: "a number", str: "a text"}
    names |= {list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), "something else")

"""What a model takes: its columns as JSON Schema, and the cells of a request as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from plait.api.model import Model
from plait.errors import BadCell, PlaitError, nearest
from plait.media.cell import file_in
from plait.modalities.base import modalities
from plait.serving.limits import Limits
from plait.serving.refusals import Refusal, too_large, wrong_cell
from plait.table.json import JSON, JSONValue, read_list
from plait.table.problems import Problem
from plait.table.read import read
from plait.table.schema import origin
from plait.table.table import Table

EXPECTED = "expected a file, as an upload, base64 or a data URI"
DEFAULTS = Limits()
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


@dataclass(frozen=True)
class RowGroup:
    """Rows of a request whose cells are of the same kinds: their numbers, and the typed table of them."""

    numbers: list[int]
    table: Table

    def located(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return problems of the table with the rows' numbers in the request."""
        return [replace(problem, row=self.numbers[problem.row]) for problem in problems]


class Reader:
    """Reads the rows of requests as tables are read. With `files`, cells may be paths below that folder."""

    def __init__(self, model: Model, files: Path | None = None, limits: Limits = DEFAULTS) -> None:
        self.model = model
        self.inputs = Input.all_of(model)
        self.files = files
        names = [*model.plan.table_columns, *model.targets]
        self.others = [name for name in dict.fromkeys(names) if name not in self.inputs]
        self._limits = limits

    def read(self, rows: Sequence[Mapping[str, object]]) -> list[RowGroup]:
        """Return rows as typed tables with all inputs.

        Rows are together only where their cells are of the same kinds, so that none changes how another is
        read. A column that a row leaves out is lacking, and one that is null is empty. A cell that holds no
        file where one is expected is bad. Raises `Refusal` for an unknown column, and for files of the
        machine that are larger than a request may be.
        """
        opened = _Files(self.files, self._limits)
        groups: list[tuple[dict[str, object], list[int]]] = []  # the kinds of cells, and the rows
        cells: list[dict[str, object]] = []
        bad: list[dict[str, str]] = []
        for number, row in enumerate(rows):
            cells.append({})
            bad.append({})
            for name in row:
                self._check_known(number, name)
                try:
                    cells[number][name] = self._cell(name, row[name], opened)
                except BadCell as error:
                    bad[number][name] = error.reason
            _add_to_group(groups, number, cells[number])

        row_groups = []
        for _, numbers in groups or [({}, [])]:
            table = self._table([cells[number] for number in numbers], [rows[number] for number in numbers])
            of_group: dict[str, dict[int, str]] = {
                name: dict(table.bad.get(name, {})) for name in self.inputs
            }
            for place, number in enumerate(numbers):
                for name, reason in bad[number].items():
                    of_group.setdefault(name, {})[place] = reason
            row_groups.append(RowGroup(numbers, replace(table, bad=of_group)))
        return row_groups

    def _table(self, cells: Sequence[dict[str, object]], rows: Sequence[Mapping[str, object]]) -> Table:
        """Return cells as a typed table. `rows` are those of the request, which say what is lacking."""
        try:
            table = self.model.plan.read(read(cells))
        except PlaitError as error:
            raise Refusal(422, str(error)) from None
        columns = table.data
        lacks = {}
        for name in self.inputs:
            lacks[name] = np.array([name not in row for row in rows], dtype=bool)
            if name not in columns.column_names:
                columns = columns.append_column(name, pa.nulls(len(table)))
        ids = self.model.schema.of("id")
        names = [name for name in columns.column_names if name in self.inputs or name in ids]
        return Table(columns.select(names), Path(), "the request", bad=table.bad, lacks=lacks)

    def _check_known(self, row: int, name: str) -> None:
        """Raise `Refusal` for a column that the model has never seen."""
        if name not in self.inputs and name not in self.others:
            name = name[:LONGEST_NAME]
            hint = nearest(name, [*self.inputs, *self.others])
            raise wrong_cell(row, name, f"the model knows no such column: {hint}")

    def _cell(self, name: str, cell: object, opened: _Files) -> object:
        """Return a cell as a table has it: the bytes of files. Raises `BadCell`."""
        column = self.inputs.get(name)
        if column is None or not column.media:
            return self._value(cell)
        if not isinstance(cell, list):
            content = _content(cell, opened)
            return [content] if column.several and content is not None else content
        if not column.several:
            raise BadCell(f"{EXPECTED}; came a list, and training had one file in each cell")
        contents = [_content(entry, opened) for entry in cell]
        return [content for content in contents if content is not None]

    def _value(self, cell: object) -> object:
        """Return a cell that holds no file. Raises `BadCell` for a file that is no text, or a long text."""
        if isinstance(cell, bytes):
            cell = _as_text(cell)
        texts = [entry for entry in (cell if isinstance(cell, list) else [cell]) if isinstance(entry, str)]
        length = sum(map(len, texts))
        if length > self._limits.characters:
            raise BadCell(
                f"expected a text of at most {self._limits.characters:,} characters, came {length:,}"
            )
        return cell


class _Files:
    """The files of the machine that a request names, read once each, and within the limit of a body."""

    def __init__(self, folder: Path | None, limits: Limits) -> None:
        self.folder = folder
        self._limits = limits
        self._contents: dict[Path, bytes] = {}
        self._left = limits.body

    def read(self, cell: str) -> bytes:
        """Return the content of a file below the folder; nothing for any other path. Raises `Refusal`."""
        if self.folder is None or len(cell) > LONGEST_PATH:
            return b""
        root = self.folder.resolve()
        try:
            path = (root / cell).resolve()
            if not path.is_relative_to(root) or not path.is_file():
                return b""
            if path not in self._contents:
                self._left -= path.stat().st_size
                if self._left < 0:
                    raise too_large(self._limits)
                self._contents[path] = path.read_bytes()
            return self._contents[path]
        except (OSError, ValueError):  # names that no file can have
            return b""


def _content(cell: object, opened: _Files) -> bytes | None:
    """Return the bytes of a file; None for nothing. Raises `BadCell`."""
    if isinstance(cell, Mapping) and "bytes" in cell:  # as Hugging Face datasets have it
        cell = cell["bytes"] or cell.get("path")
    if isinstance(cell, bytes):
        return cell or None
    if cell is None or cell == "":
        return None
    if not isinstance(cell, str):
        raise BadCell(f"{EXPECTED}; came {_kind(cell)}")
    content = opened.read(cell) or _decoded(cell.strip())
    if content is None:
        paths = ", or a path below the folder of files" if opened.folder is not None else ""
        raise BadCell(f"{EXPECTED}{paths}; came {_shown(cell)}")
    if not content:
        raise BadCell("a data URI without content")
    return content


def _add_to_group(
    groups: list[tuple[dict[str, object], list[int]]], number: int, row: Mapping[str, object]
) -> None:
    """Add a row to the first group whose cells are of the same kinds, or begin a group."""
    kinds = {name: _kind_of(cell) for name, cell in row.items() if cell is not None}
    for group_kinds, numbers in groups:
        if all(group_kinds.get(name, kind) == kind for name, kind in kinds.items()):
            group_kinds.update(kinds)
            numbers.append(number)
            return
    groups.append((kinds, [number]))


def _kind_of(cell: object) -> object:
    """Return what decides with which other cells of its column a cell can be read.

    A list of lists, and an object, are read alone.
    """
    if isinstance(cell, list):
        kinds = frozenset(map(type, cell))
        return object() if kinds & {list, dict} else (len(cell), kinds)
    return object() if isinstance(cell, dict) else type(cell)


def _as_text(cell: bytes) -> str:
    """Return a file that was sent where a value is expected. Raises `BadCell` if it is no text."""
    try:
        return cell.decode()
    except UnicodeDecodeError:
        raise BadCell("expected a value, came a file that is no text in UTF-8") from None


def _decoded(cell: str) -> bytes | None:
    """Return the file that a data URI or base64 holds; None for other text."""
    is_uri = cell[:5].lower() == "data:"
    return file_in(cell) if is_uri or len(cell) >= SHORTEST else None


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

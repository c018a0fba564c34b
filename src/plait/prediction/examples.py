"""A few rows that are kept beside a model, as examples for those who use it.

`examples.json` has their cells, and the folder `examples` the files of their media. Nothing that a model
answers depends on them.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from plait.disk.whole import make_inner_folder, write_bytes
from plait.errors import BadCell
from plait.media.cell import Media, is_missing
from plait.media.kinds import media_type
from plait.runs import files
from plait.table.table import Table

FILE, FOLDER = "examples.json", "examples"
MAX_FILE, MAX_FILES = 4 << 20, 32 << 20  # bytes: of one file, and of all together
NAME = r"\d+-\d+-\d+\.[a-z0-9]+"


@dataclass
class Example:
    """One row: its values, and the files of its media, each by column. A cell may hold several files."""

    values: dict[str, JsonValue] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)


class _SavedExample(BaseModel):
    model_config = ConfigDict(extra="forbid")
    values: dict[str, JsonValue]
    files: dict[str, list[Annotated[str, Field(pattern=f"^{NAME}$")]]]


class _Saved(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rows: list[_SavedExample]


def save(
    folder: Path, table: Table, rows: Sequence[int], names: Sequence[str], media: Collection[str]
) -> None:
    """Keep some rows of a table, of which `names` are the columns that count. Those in `media` have files.

    A file that is too large or cannot be read is left out, and so are those beyond `MAX_FILES` together.
    """
    left = MAX_FILES
    saved = []
    for number, row in enumerate(rows):
        example = _SavedExample(values={}, files={})
        for place, name in enumerate(names):
            cell = table.column(name)[row].as_py()
            if is_missing(cell):
                continue
            if name not in media:
                example.values[name] = _as_json(cell)
                continue
            contents = _contents(cell, table.root, min(left, MAX_FILE))
            left -= sum(map(len, contents))
            example.files[name] = _write(folder, f"{number}-{place}", contents)
        saved.append(example)
    files.write_checked(folder / FILE, _Saved(rows=saved).model_dump(mode="json"))


def load(folder: Path) -> list[Example]:
    """Return the examples beside a model; none for a model without. Raises `ArtifactError` if damaged."""
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        saved = _Saved.model_validate(files.read_checked(path))
    except ValidationError as error:
        raise files.wrong_entry(path, error) from error

    examples = []
    for row in saved.rows:
        example = Example(row.values)
        for name, file_names in row.files.items():
            paths = [folder / FOLDER / file_name for file_name in file_names]
            example.files[name] = [path for path in paths if path.is_file()]
        examples.append(example)
    return examples


def _contents(cell: object, root: Path, limit: int) -> list[bytes]:
    """Return the files of a cell, without those that cannot be read or are larger than `limit` together."""
    contents = []
    for entry in cell if isinstance(cell, list) else [cell]:
        try:
            content = Media(entry, root).data
        except BadCell:
            continue
        limit -= len(content)
        if limit >= 0:
            contents.append(content)
    return contents


def _write(folder: Path, stem: str, contents: Sequence[bytes]) -> list[str]:
    """Write files, and return their names. What they hold decides how their names end."""
    names = []
    for number, content in enumerate(contents):
        ending = re.sub(r"[^a-z0-9]", "", media_type(content).partition("/")[2])
        name = f"{stem}-{number}.{ending}"
        write_bytes(make_inner_folder(folder, FOLDER) / name, content, flush=False)
        names.append(name)
    return names


def _as_json(cell: object) -> JsonValue:
    """Return a value of a table as JSON has it: a date by ISO 8601."""
    if isinstance(cell, (datetime.datetime, datetime.date)):
        return cell.isoformat().removesuffix("T00:00:00")
    if isinstance(cell, list):
        return [_as_json(entry) for entry in cell]
    if cell is None or isinstance(cell, (bool, int, float, str)):
        return cell
    return str(cell)

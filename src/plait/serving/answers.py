"""What a model answers: its columns as JSON Schema, and rows of answers as JSON."""

from __future__ import annotations

import base64
import datetime
import math

import pyarrow as pa

from plait.api.model import Model
from plait.media.kinds import media_type
from plait.table.json import JSON, JSONValue


def row_schema(model: Model) -> JSON:
    """Return the JSON Schema of one row of answers. Id columns come back as they came."""
    properties: JSON = {name: {} for name in model.schema.of("id")}
    required: list[JSONValue] = []
    for field in model.predict([]).schema:
        properties[field.name] = _schema(field.type)
        required.append(field.name)
    return {"type": "object", "properties": properties, "required": required}


def _schema(kind: pa.DataType) -> JSON:
    """Return the JSON Schema of the cells of an Arrow type."""
    if pa.types.is_boolean(kind):
        return {"type": ["boolean", "null"]}
    if pa.types.is_integer(kind):
        return {"type": ["integer", "null"]}
    if pa.types.is_floating(kind):
        return {"type": ["number", "null"]}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"type": ["array", "null"], "items": _schema(kind.value_type)}
    return {"type": ["string", "null"]}


def as_rows(answers: pa.Table) -> list[JSON]:
    """Return answers as JSON: a number that is not finite is null, recordings are data URIs."""
    columns = {}
    for name in answers.column_names:
        columns[name] = [_json(cell) for cell in answers.column(name).to_pylist()]
    rows: list[JSON] = []
    for number in range(len(answers)):
        rows.append({name: cells[number] for name, cells in columns.items()})
    return rows


def as_uri(content: bytes) -> str:
    """Return a file as a data URI."""
    return f"data:{media_type(content)};base64,{base64.b64encode(content).decode()}"


def _json(cell: object) -> JSONValue:
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    if isinstance(cell, bytes):
        return as_uri(cell)
    if isinstance(cell, list):
        return [_json(entry) for entry in cell]
    if isinstance(cell, (datetime.date, datetime.datetime)):
        return cell.isoformat()
    if cell is None or isinstance(cell, (bool, int, str)):
        return cell
    return str(cell)

"""The service's OpenAPI description: the columns, ranges and answers of the very model that it serves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from plait.media.kinds import BYTES
from plait.prediction.examples import Example
from plait.serving.answers import as_uri, row_schema
from plait.serving.arrow import STREAM_TYPE
from plait.serving.bodies import FORM_TYPE, JSON_TYPE
from plait.serving.inputs import Input
from plait.serving.service import Service
from plait.serving.streaming import LINES_TYPES
from plait.table.json import JSON

MEDIA = ("image/*", "audio/*", "video/*")
SHOWN_FILE = 16_000  # bytes of a file that is shown as an example

ERROR: JSON = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "cells": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "row": {"type": "integer"},
                    "column": {"type": "string"},
                    "problem": {"type": "string"},
                },
            },
        },
    },
}
REASONS = {
    400: "the body cannot be parsed",
    401: "the token is missing or wrong",
    408: "the request took too long to arrive",
    413: "the request is too large",
    415: "the body is neither JSON nor a form",
    422: "a column is unknown, or a cell cannot be read",
    429: "the service has too much to do; Retry-After says when to try again",
}


def row(service: Service) -> JSON:
    """Return the JSON Schema of a row of a request."""
    properties: JSON = {}
    for name, column in service.reader.inputs.items():
        properties[name] = {**column.schema, "description": described(column)}
    for name in service.reader.others:
        properties[name] = {"description": "not read; ids come back beside the answers"}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def described(column: Input) -> str:
    """Say what a column is, and what the training rows had in it."""
    sentences = [column.modality]
    training = column.schema.get("x-training")
    if isinstance(training, Mapping):
        low, median, high = training.get("low"), training.get("median"), training.get("high")
        if low is not None:
            middle = f", half of them below {median:.4g}" if isinstance(median, float) else ""
            sentences.append(f"in training from {_shown(low)} to {_shown(high)}{middle}")
        values = training.get("values")
        if isinstance(values, Sequence):
            shown = ", ".join(map(str, values[:8]))
            sentences.append(f"in training {shown}{', ...' if len(values) > 8 else ''}")
    if column.missing:
        sentences.append(f"missing in {column.missing:.2g} of the training rows")
    return "; ".join(sentences)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def request_body(service: Service, one: bool = False) -> JSON:
    """Return what a route says of its body: a row as JSON or as a form, or several rows as JSON."""
    schema = row(service)
    rows: JSON = {"type": "array", "items": schema, "maxItems": service.limits.rows}
    examples: JSON = {}
    for number, example in enumerate(service.examples):
        cells: JSON = {name: cell for name, cell in example.values.items() if name in service.reader.inputs}
        for name, paths in example.files.items():
            for path in paths[:1]:
                if path.stat().st_size <= SHOWN_FILE:
                    cells[name] = as_uri(path.read_bytes())
        examples[f"row {number}"] = {"value": cells}
    json_content: JSON = {"schema": schema if one else {"anyOf": [schema, rows]}}
    if examples:
        json_content["examples"] = examples
    form: JSON = {"schema": _form(service)}
    return {"requestBody": {"required": True, "content": {JSON_TYPE: json_content, FORM_TYPE: form}}}


def _form(service: Service) -> JSON:
    """Return the JSON Schema of a row as a form: files are uploads, all else is text."""
    properties: JSON = {}
    for name, column in service.reader.inputs.items():
        cell: JSON = {"type": "string", "description": described(column)}
        if column.media:
            cell |= {"format": "binary", "contentMediaType": _media_type(column)}
        properties[name] = {"type": "array", "items": cell} if column.several else cell
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _media_type(column: Input) -> str:
    text = json.dumps(column.schema)
    for kind in MEDIA:
        if kind in text:
            return kind
    return BYTES


def responses(service: Service, answer: JSON) -> dict[int | str, JSON]:
    """Return what a route may answer."""
    answers: dict[int | str, JSON] = {
        200: {"description": "the answers", "content": {JSON_TYPE: {"schema": answer}}}
    }
    for status, reason in REASONS.items():
        answers[status] = refused(reason)
    return answers


def stream_body(service: Service) -> JSON:
    """Return what the route of streams says of its body."""
    return {"requestBody": {"required": True, "content": _stream_content(row(service))}}


def stream_responses(service: Service) -> dict[int | str, JSON]:
    """Return what the route of streams may answer."""
    answers = responses(service, {})
    answers[200] = {"description": "the answers, in the form of the rows", "content": {}}
    answers[200]["content"] = _stream_content(row_schema(service.model))
    return answers


def _stream_content(line: JSON) -> JSON:
    """Return how a stream is described. OpenAPI has no word for JSON Lines, so they are an array of lines."""
    content: JSON = {kind: {"schema": {"type": "array", "items": line}} for kind in LINES_TYPES}
    content[STREAM_TYPE] = {"schema": {"type": "string", "format": "binary"}}
    return content


def media_responses() -> dict[int | str, JSON]:
    """Return what the route of found files may answer."""
    file: JSON = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA}
    return {200: {"description": "the file", "content": file}, 404: refused("there is no such file")}


def refused(reason: str) -> JSON:
    """Return how a refusal is described."""
    return {"description": reason, "content": {JSON_TYPE: {"schema": ERROR}}}


def predicted(service: Service) -> JSON:
    """Return the JSON Schema of the answers to rows."""
    return lists(answers=row_schema(service.model), warnings={"type": "string"})


def lists(**items: JSON) -> JSON:
    """Return the JSON Schema of an answer with some lists, whose items have these schemas."""
    properties: JSON = {name: {"type": "array", "items": schema} for name, schema in items.items()}
    return {"type": "object", "required": list(items), "properties": properties}


def description(service: Service) -> JSON:
    """Return what `/schema` says of the model: its inputs, answers, scores and examples."""
    inputs = []
    for column in service.reader.inputs.values():
        inputs.append(
            {
                "name": column.name,
                "modality": column.modality,
                "description": described(column),
                "schema": column.schema,
                "media": _media_type(column) if column.media else None,
                "several": column.several,
                "missing": column.missing,
            }
        )
    return {
        "name": service.name,
        "description": service.model.summary,
        "inputs": inputs,
        "targets": service.model.targets,
        "alignments": service.model.alignments,
        "answers": row_schema(service.model),
        "examples": [_example(number, example) for number, example in enumerate(service.examples)],
    }


def _example(number: int, example: Example) -> JSON:
    """Return an example: its values, and where its files are."""
    files = {}
    for column, paths in example.files.items():
        files[column] = [f"examples/{path.name}" for path in paths]
    return {"row": number, "values": example.values, "files": files}

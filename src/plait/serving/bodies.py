"""Read the body of a request within its limits: JSON, or a form with files. Nothing reaches the disk."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from plait.serving.inputs import readable
from plait.serving.limits import Limits
from plait.serving.refusals import Refusal, too_large

JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data"
MOST_PARTS = 10_000  # of a form
MOST_VALUES = 1_000_000  # of JSON: each takes some thirty times the memory of its text
LONGEST_BOUNDARY = 100  # characters, with what stands around it
PIECE = 1 << 16  # bytes of a form that are parsed at once
BROKEN_FORM = "a form that is broken or cut short"


async def read_rows(request: Request, limits: Limits) -> list[dict[str, object]]:
    """Return the rows of a request: one of a form, one or more of JSON. Raises `Refusal`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON_TYPE, FORM_TYPE):
        raise Refusal(415, f"expected {JSON_TYPE} or {FORM_TYPE}, came {kind[:80] or 'no content type'}")
    body = await read_body(request, limits)
    if kind == FORM_TYPE:
        return [await _row_of_form(request.headers, body, limits)]
    return readable(parse_json(body), limits.rows)


async def read_body(request: Request, limits: Limits) -> bytearray:
    """Return the body of a request. Raises `Refusal` if it is too large, or takes too long to arrive."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > limits.body:
        raise too_large(limits)
    pieces = bytearray()
    try:
        async with asyncio.timeout(limits.upload):
            async for piece in request.stream():
                pieces += piece
                if len(pieces) > limits.body:
                    raise too_large(limits)
    except TimeoutError:
        message = f"the request did not arrive within {limits.upload:g} s"
        raise Refusal(408, message, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refusal(400, "the request was cut short") from None
    return pieces


def parse_json(text: bytes | bytearray) -> object:
    """Return what JSON says. Raises `Refusal`."""
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MOST_VALUES:
        raise Refusal(413, f"expected JSON of at most {MOST_VALUES:,} values")
    try:
        parsed: object = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        place = re.search(r"line \d+ column \d+", str(error))
        where = f" at {place[0]}" if place else ""
        raise Refusal(400, f"expected JSON; it is broken, no UTF-8 or nested too deeply{where}") from None
    return parsed


class _InMemory(MultiPartParser):
    """A parser of forms that keeps files in memory: the body is there already, and has a limit."""

    spool_max_size = 0  # the size from which on a file goes to the disk; 0: never


async def _row_of_form(headers: Headers, body: bytearray, limits: Limits) -> dict[str, object]:
    """Return the row that a form holds. A column that is there several times is a list."""

    # The parser takes a form that is cut short for a complete one.
    _, options = parse_options_header(headers["content-type"])
    end = b"--" + options.get(b"boundary", b"") + b"--"
    if not body[-2 * LONGEST_BOUNDARY :].rstrip().endswith(end):
        raise Refusal(400, BROKEN_FORM)

    async def whole() -> AsyncGenerator[bytes, None]:
        for first in range(0, len(body), PIECE):
            yield bytes(body[first : first + PIECE])

    parser = _InMemory(
        headers, whole(), max_files=MOST_PARTS, max_fields=MOST_PARTS, max_part_size=limits.body
    )
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, ValueError):
        raise Refusal(400, BROKEN_FORM) from None

    cells: dict[str, list[object]] = {}
    for name, field in form.multi_items():
        cell = await field.read() if isinstance(field, UploadFile) else field
        # A browser sends an empty field for what was left out.
        cells.setdefault(name, []).extend([cell] if cell else [])
    await form.close()
    row: dict[str, object] = {}
    for name, column in cells.items():
        row[name] = column if len(column) > 1 else next(iter(column), None)
    return row

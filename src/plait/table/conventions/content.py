"""Media in text form: base64, with or without the head of a data URI."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from plait.table.conventions.base import (
    FITS,
    Convention,
    Reading,
    Recognised,
    Style,
    bad_rows,
    by_distinct,
    chunked,
    is_text,
    without_marks,
)

DATA_URI = r"^data:[^,]{0,100};base64,"
BASE64 = r"^[A-Za-z0-9+/_\-\s]+={0,2}\s*$"
SAMPLE = 24  # cells that are decoded to recognise a column
SHORTEST = 64  # characters; a shorter word may be base64 by accident

# How files of images, audio and video begin. Words that are base64 by accident do not.
HEADS = (
    b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"OggS", b"fLaC", b"ID3",
    b"\xff\xfb", b"\x1aE\xdf\xa3", b"FORM",
)  # fmt: skip
HEAD_AT_FOUR = b"ftyp"


class Content(Convention):
    """A column of files in text form: base64, or data URIs of base64."""

    kind: Literal["content"] = "content"

    def described(self) -> str:
        """Return what a cell is."""
        return "a file as base64 or data URI"

    def read(self, cells: pa.ChunkedArray) -> Reading:
        """Return bytes. A column of paths stays as it is: a later table may have files instead."""
        if not is_text(cells.type):
            return Reading(cells)
        distinct, row_numbers = by_distinct(without_marks(cells))
        contents = list(map(_decoded, distinct.to_pylist()))
        if not any(contents):
            return Reading(cells)
        files = pa.array(contents, pa.large_binary())
        # Such a text is too long for a message.
        reason = f"expected {self.described()}, came other text"
        bad = dict.fromkeys(bad_rows(files, row_numbers), reason)
        return Reading(chunked(files.take(row_numbers)), bad)

    @classmethod
    def recognise(cls, texts: pa.ChunkedArray, style: Style, least: float = FITS) -> Recognised | None:
        """Recognise strings of which most decode to the head of a media file."""
        filled = without_marks(texts).drop_null()
        if not len(filled):
            return None
        is_long = pc.greater_equal(pc.utf8_length(filled), SHORTEST)
        if pc.mean(is_long).as_py() < least:
            return None
        sampled = filled.slice(0, SAMPLE).to_pylist()
        if sum(map(_is_media, sampled)) < least * len(sampled):
            return None
        return Recognised(cls(), 1.0, "files as base64")


def _is_media(text: str) -> bool:
    """Return whether a string decodes to what begins like a media file."""
    body = text.partition(";base64,")[2] if text.startswith("data:") else text
    head = _decoded(body[: SHORTEST // 4 * 4]) or b""
    return head.startswith(HEADS) or head[4:8] == HEAD_AT_FOUR


def _decoded(text: str) -> bytes | None:
    """Return the bytes that base64 writes; None for other text."""
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            return None
    # Mail breaks base64 into lines; addresses of the web have - and _, and no padding.
    plain = "".join(text.split()).replace("-", "+").replace("_", "/")
    padding = "=" * (-len(plain) % 4)
    try:
        return base64.b64decode(plain + padding, validate=True)
    except (binascii.Error, ValueError):
        return None

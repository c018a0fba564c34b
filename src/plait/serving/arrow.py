"""Read Arrow streams of strangers, message by message, as their bytes arrive.

A few bytes of Arrow can stand for gigabytes: compressed buffers, dictionaries, views, runs and nulls. A table
that could grow so is refused. The rest is validated before it is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pyarrow as pa

from plait.serving.limits import Limits
from plait.serving.refusals import Refusal, too_large

STREAM_TYPE = "application/vnd.apache.arrow.stream"

# Encapsulated messages (Arrow columnar format 1.5): a mark, the size of the metadata, the metadata, the body.
MARK, PREFIX = 0xFFFF_FFFF, 8
SCHEMA, RECORD_BATCH = 1, 3  # kinds of messages, in the order of Message.fbs
BROKEN = "an Arrow stream that is broken or cut short"


class ArrowReader:
    """Turns the bytes of an Arrow stream into rows, at most a batch of them at once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = bytearray()
        self._schema: pa.Schema | None = None
        self._is_finished = False
        self._needed = PREFIX  # bytes of the next message, as far as that is known

    def feed(self, piece: bytes) -> Iterator[list[dict[str, object]]]:
        """Yield the rows that are complete with another piece of the stream. Raises `Refusal`."""
        self._bytes += piece
        while not self._is_finished and (message := self._next_message()) is not None:
            try:
                yield from self._rows(message)
            except OverflowError:
                raise Refusal(422, "a date or a time that lies outside the years 1 to 9999") from None
            except (pa.ArrowException, struct.error, OSError, ValueError):
                raise Refusal(400, BROKEN) from None

    def finish(self) -> None:
        """Raise `Refusal` if the stream ends in the middle of a message."""
        if self._bytes and not self._is_finished:
            raise Refusal(400, BROKEN)

    def _next_message(self) -> bytes | None:
        """Take the next message; None if it has not arrived."""
        if len(self._bytes) < self._needed:
            return None
        mark, size = struct.unpack_from("<II", self._bytes)
        if mark != MARK:
            raise Refusal(400, BROKEN)
        if not size:  # the mark of the end
            self._is_finished = True
            return None
        if size > self._limits.body:
            raise too_large(self._limits)
        self._needed = PREFIX + size
        if len(self._bytes) < self._needed:
            return None
        try:
            body = _Message(self._bytes[PREFIX : PREFIX + size]).body_length
        except struct.error:
            raise Refusal(400, BROKEN) from None
        if not 0 <= body <= self._limits.body:
            raise too_large(self._limits)
        self._needed += body
        if len(self._bytes) < self._needed:
            return None
        message = bytes(self._bytes[: self._needed])
        del self._bytes[: self._needed]
        self._needed = PREFIX
        return message

    def _rows(self, content: bytes) -> Iterator[list[dict[str, object]]]:
        """Yield the rows of a message, if it has any."""
        message = pa.ipc.read_message(content)  # verifies the metadata
        (size,) = struct.unpack_from("<I", content, 4)
        parsed = _Message(content[PREFIX : PREFIX + size])
        if self._schema is None and parsed.kind == SCHEMA:
            self._schema = _checked(pa.ipc.read_schema(message))
            return
        if self._schema is None or parsed.kind != RECORD_BATCH:
            raise Refusal(400, BROKEN)
        if parsed.is_compressed:
            raise Refusal(422, "compressed Arrow is not read; write the stream without compression")

        batch = pa.ipc.read_record_batch(message, self._schema)
        batch.validate(full=True)
        if batch.num_rows > len(content):  # columns without any buffer may state any number of rows
            raise too_large(self._limits)
        for first in range(0, batch.num_rows, self._limits.batch):
            yield batch.slice(first, self._limits.batch).to_pylist()


def _checked(schema: pa.Schema) -> pa.Schema:
    """Return a schema of types whose cells are no larger than their bytes. Raises `Refusal` for others."""
    if not len(schema):
        raise Refusal(422, "expected one column or more")
    for field in schema:
        if not _is_plain(field.type):
            remedy = "cast it to strings, numbers or bytes"
            if pa.types.is_string_view(field.type) or pa.types.is_binary_view(field.type):
                remedy = "polars writes strings with compat_level=CompatLevel.oldest()"
            raise Refusal(422, f"column '{field.name}': cells of type {field.type} are not read; {remedy}")
    return schema


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return not types.is_nested(kind.value_type) and _is_plain(kind.value_type)
    has_width = types.is_primitive(kind) or types.is_decimal(kind)
    has_offsets = types.is_string(kind) or types.is_large_string(kind)
    return bool(has_width or has_offsets or types.is_binary(kind) or types.is_large_binary(kind))


class _Message:
    """What is asked of the metadata of a message, a flatbuffer of the table Message (Message.fbs)."""

    def __init__(self, metadata: bytes | bytearray) -> None:
        self._bytes = metadata
        (self._root,) = struct.unpack_from("<I", metadata)

    @property
    def kind(self) -> int:
        """The kind of message: 1 schema, 2 dictionary, 3 record batch."""
        place = self._field(self._root, 1)
        return struct.unpack_from("<B", self._bytes, place)[0] if place else 0

    @property
    def body_length(self) -> int:
        """The bytes behind the metadata."""
        place = self._field(self._root, 3)
        return struct.unpack_from("<q", self._bytes, place)[0] if place else 0

    @property
    def is_compressed(self) -> bool:
        """Whether the buffers of a record batch are compressed."""
        place = self._field(self._root, 2)
        if not place:
            return False
        (offset,) = struct.unpack_from("<I", self._bytes, place)
        return self._field(place + offset, 3) != 0

    def _field(self, table: int, number: int) -> int:
        """Return where a field of a table is; 0 if it has the default value."""
        (to_vtable,) = struct.unpack_from("<i", self._bytes, table)
        vtable = table - to_vtable
        (size,) = struct.unpack_from("<H", self._bytes, vtable)
        slot = 4 + 2 * number
        if slot + 2 > size:
            return 0
        (offset,) = struct.unpack_from("<H", self._bytes, vtable + slot)
        return table + offset if offset else 0

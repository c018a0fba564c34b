"""Answer rows that arrive as a stream, in JSON Lines or Arrow, while it still arrives.

Rows are answered in the order in which they come. Neither the rows nor the answers are ever all in memory.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import pyarrow as pa
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import Buffer

from plait.serving.answers import as_rows
from plait.serving.arrow import STREAM_TYPE, ArrowReader
from plait.serving.bodies import parse_json
from plait.serving.limits import Limits
from plait.serving.refusals import Refusal, too_large
from plait.serving.service import Service
from plait.table.json import JSON

LINES_TYPES = ("application/jsonl", "application/x-ndjson", "application/json-lines")
UNREAD = 64 << 20  # bytes of answers that wait for the client to read them


class Streamed(Response):
    """A response that is written while its request is still being read. `end` is called when it ends.

    Starlette's own waits for the client to go away by reading the request, which is not over yet.
    """

    def __init__(self, pieces: AsyncIterator[bytes], media_type: str, end: Callable[[], None]) -> None:
        self._pieces = pieces
        self._end = end
        super().__init__(media_type=media_type)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces one by one."""
        begin: Message = {"type": "http.response.start", "status": self.status_code}
        try:
            await send({**begin, "headers": self.raw_headers})
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except Refusal:
            # A response that has begun can only be cut off, which the client notices by the missing end.
            pass
        finally:
            self._end()


class Upload:
    """The body of a request as it arrives. It must bring a row every `limits.upload` seconds."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self._request = request
        self._limits = limits
        self._left = limits.upload  # seconds to wait for the next row
        self._is_over = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the body. Raises `Refusal` if no row comes."""
        stream = self._request.stream()
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(max(self._left, 0)):
                    piece = await anext(stream, None)
            except TimeoutError:
                raise Refusal(408, f"no row arrived within {self._limits.upload:g} s") from None
            except ClientDisconnect:
                raise Refusal(400, "the request was cut short") from None
            if piece is None:
                self._is_over = True
                return
            self._left -= time.monotonic() - began
            yield piece

    def brought_a_row(self) -> None:
        """Wait for the next row from now on."""
        self._left = self._limits.upload

    async def is_abandoned(self) -> bool:
        """Return whether the client has gone away, although all of its rows are there."""
        return self._is_over and await self._request.is_disconnected()


async def answer(request: Request, service: Service) -> Streamed:
    """Return the answers to a stream of rows, in the form in which they come. Raises `Refusal`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    upload = Upload(request, service.limits)
    if kind in LINES_TYPES:
        answers = _answered_lines(upload, service)
    elif kind == STREAM_TYPE:
        answers = _answered_batches(upload, service)
    else:
        expected = f"{LINES_TYPES[0]} or {STREAM_TYPE}"
        raise Refusal(415, f"expected {expected}, came {kind[:80] or 'no content type'}")

    # A stream that is refused at its first rows has the status of a refusal.
    service.begin_stream()
    try:
        ahead = _ahead(_until_abandoned(answers, upload), service.limits)
        first = await anext(ahead, b"")
    except BaseException:
        service.end_stream()
        raise
    return Streamed(_chained(first, ahead), kind, service.end_stream)


async def _until_abandoned(pieces: AsyncIterator[bytes], upload: Upload) -> AsyncIterator[bytes]:
    """Yield pieces as long as somebody reads them."""
    async for piece in pieces:
        yield piece
        if await upload.is_abandoned():
            return


async def _chained(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in others:
        yield piece


async def _within(seconds: float, reading: Awaitable[object]) -> None:
    """Wait until the client has read some answers. Raises `Refusal` if it does not."""
    try:
        await asyncio.wait_for(reading, seconds)
    except TimeoutError:
        raise Refusal(408, f"no answer was read within {seconds:g} s") from None


async def _ahead(pieces: AsyncIterator[bytes], limits: Limits) -> AsyncIterator[bytes]:
    """Yield pieces that are computed ahead: a client may send all of its rows before it reads answers.

    Without this, the client and the service would wait for each other.
    """
    queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
    waiting = 0
    has_room = asyncio.Event()

    async def compute() -> None:
        nonlocal waiting
        try:
            async for piece in pieces:
                queue.put_nowait(piece)
                waiting += len(piece)
                if waiting > UNREAD:
                    has_room.clear()
                    await _within(limits.upload, has_room.wait())
            queue.put_nowait(None)
        except Exception as error:  # it is raised where the pieces are read
            queue.put_nowait(error)

    task = asyncio.create_task(compute())
    try:
        while (piece := await queue.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            waiting -= len(piece)
            if waiting <= UNREAD:
                has_room.set()
            yield piece
    finally:
        task.cancel()


# --- JSON Lines ------------------------------------------------------------------------------------------


async def _lines(upload: Upload, limits: Limits) -> AsyncIterator[list[bytes]]:
    """Yield the lines that have arrived, at most a batch of them at once."""
    rest = bytearray()  # the beginning of a line
    async for piece in upload.pieces():
        *ends, beginning = piece.split(b"\n")
        lines = [bytes(rest) + ends[0], *ends[1:]] if ends else []
        rest = bytearray(beginning) if ends else rest
        rest += b"" if ends else beginning

        short = list(itertools.takewhile(lambda line: len(line) <= limits.body, lines))
        for first in range(0, len(short), limits.batch):
            yield short[first : first + limits.batch]
        if len(short) < len(lines) or len(rest) > limits.body:
            raise too_large(limits)
    if rest.strip():
        yield [bytes(rest)]


async def _answered_lines(upload: Upload, service: Service) -> AsyncIterator[bytes]:
    """Yield a line for each line with a row. What is no row gets a line that says why.

    A stream that stops in the middle ends with such a line.
    """
    number = 0
    try:
        async for lines in _lines(upload, service.limits):
            rows: list[Mapping[str, object] | Refusal] = []
            for line in lines:
                if line.strip():
                    rows.append(_parsed(line))
                    upload.brought_a_row()
            answers = await _answered(rows, service)
            for answer in answers:
                if isinstance(answer, Refusal):
                    yield to_json({"row": number, **answer.body()}) + b"\n"
                else:
                    yield to_json(answer) + b"\n"
                number += 1
    except Refusal as refusal:
        if not number:
            raise
        yield to_json({"row": number, **refusal.body()}) + b"\n"


def _parsed(line: bytes) -> Mapping[str, object] | Refusal:
    """Return the row of a line, or why it is none."""
    try:
        parsed = parse_json(line)
        if not isinstance(parsed, Mapping):
            raise Refusal(422, "expected an object of columns and cells")
        return parsed
    except Refusal as refusal:
        return refusal


async def _answered(rows: Sequence[Mapping[str, object] | Refusal], service: Service) -> list[JSON | Refusal]:
    """Return the answer of each row, or why it has none."""
    good = [row for row in rows if not isinstance(row, Refusal)]
    try:
        answered: list[JSON | Refusal] = [*as_rows((await service.answer(good)).answers)] if good else []
    except Refusal:
        # Some row is refused: each is answered by itself, so that the others are not.
        answered = [await _alone(row, service) for row in good]
    answers = iter(answered)
    return [row if isinstance(row, Refusal) else next(answers) for row in rows]


async def _alone(row: Mapping[str, object], service: Service) -> JSON | Refusal:
    try:
        (answer,) = as_rows((await service.answer([row])).answers)
        return answer
    except Refusal as refusal:
        return refusal


# --- Arrow -----------------------------------------------------------------------------------------------


async def _answered_batches(upload: Upload, service: Service) -> AsyncIterator[bytes]:
    """Yield a stream of Arrow with the answers to a stream of Arrow. Its column `problem` has bad cells."""
    reader = ArrowReader(service.limits)
    written = _Written()
    writer = None
    async for piece in upload.pieces():
        for rows in reader.feed(piece):
            upload.brought_a_row()
            answers = (await service.answer(rows)).answers
            if writer is None:
                writer = pa.ipc.new_stream(written, answers.schema)
                schema = answers.schema
            writer.write_table(answers.cast(schema))
            yield written.taken()
    reader.finish()
    if writer is None:  # there was no row, but answers have columns all the same
        writer = pa.ipc.new_stream(written, service.model.predict([]).schema)
    writer.close()
    yield written.taken()


class _Written(io.RawIOBase):
    """A file in memory whose bytes are taken as they are written."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, content: Buffer) -> int:
        """Keep bytes until they are taken."""
        self._bytes += bytes(content)
        return len(self._bytes)

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        content = bytes(self._bytes)
        self._bytes.clear()
        return content

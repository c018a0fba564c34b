"""HTTP as uvicorn speaks it, with limits for the head of a request and for slow clients."""

from __future__ import annotations

import asyncio
import json

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

LONGEST_HEAD = 1 << 16  # bytes of the address and the headers of a request
MOST_HEADERS = 256
MOST_CONNECTIONS = 500  # at once: processes may open 1024 files on most systems
TOO_LONG = f"expected an address and at most {MOST_HEADERS} headers, of {LONGEST_HEAD:,} bytes together"


class Protocol(HttpToolsProtocol):
    """One connection. It is closed if a head does not arrive within `seconds`, or answers are not read."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        seconds: float,
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._seconds = seconds
        self._head = 0  # bytes of a head that is not complete
        self._aside = 0  # bytes since a part of the body came: of chunks' heads, of trailers
        self._head_deadline: asyncio.TimerHandle | None = None
        self._read_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head. A connection too many is closed."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Read what has arrived, and refuse a head without an end: it would fill the memory."""
        self._aside += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_deadline is not None:
            self._head += len(data)
        if max(self._head, self._aside) > LONGEST_HEAD:
            self.send_400_response(TOO_LONG)

    def on_message_begin(self) -> None:
        """Wait for the rest of a head."""
        super().on_message_begin()
        self._await_head()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body. What stands beside the body must end: trailers would fill the memory."""
        self._aside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        self._aside = 0
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Let the request begin. The parser takes a `ValueError` for a broken request."""
        self._stop_waiting()
        self._head = 0
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > LONGEST_HEAD or len(self.headers) > MOST_HEADERS:
            raise ValueError(TOO_LONG)
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Wait for the client to read: a service that waits forever would soon have only such clients."""
        super().pause_writing()
        self._read_deadline = self.loop.call_later(self._seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on, since the client reads."""
        super().resume_writing()
        if self._read_deadline is not None:
            self._read_deadline.cancel()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, in the form of all other refusals."""
        body = json.dumps({"error": msg}).encode()
        head = [
            "HTTP/1.1 400 Bad Request",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        if self._read_deadline is not None:
            self._read_deadline.cancel()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._stop_waiting()
        self._head = 0
        self._head_deadline = self.loop.call_later(self._seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
        self._head_deadline = None

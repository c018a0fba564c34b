"""Run the server: uvicorn, with a limit for clients that connect and say nothing."""

from __future__ import annotations

import asyncio

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from plait.serving.limits import Limits

GRACE = 30  # seconds for requests in flight when the server stops


def run(app: FastAPI, host: str, port: int, limits: Limits) -> None:
    """Serve until the process is told to stop; requests in flight are answered before it ends."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_protocol(limits.upload),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        limit_concurrency=None,
    )
    uvicorn.Server(config).run()


def _protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return the HTTP protocol that closes a connection whose headers do not arrive in time."""

    class Protocol(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._deadline = self.loop.call_later(seconds, self._give_up)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._deadline.cancel()
            self._deadline = self.loop.call_later(seconds, self._give_up)

        def on_headers_complete(self) -> None:
            self._deadline.cancel()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._deadline.cancel()
            super().connection_lost(exc)

        def _give_up(self) -> None:
            self.transport.close()

    return Protocol

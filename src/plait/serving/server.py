"""The server: uvicorn, with a limit for clients that connect and say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from plait.errors import PlaitError
from plait.serving.limits import Limits
from plait.serving.protocol import Protocol

ALL = ("", "0.0.0.0", "::")  # hosts that stand for all addresses of the machine
GRACE = 30  # seconds for requests in flight when the server stops


class Server(uvicorn.Server):
    """A server of one application at one address. Raises `PlaitError` if it cannot listen there.

    `port` 0 stands for any that is free; `address` says which one it is.
    """

    def __init__(self, app: FastAPI, host: str, port: int, limits: Limits) -> None:
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", partial(Protocol, seconds=limits.upload)),
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(max(GRACE, limits.latency + limits.upload)),
        )
        super().__init__(config)
        self._listener = _listening(host, port)
        shown = "127.0.0.1" if host in ALL else host
        self.address = f"http://{f'[{shown}]' if ':' in shown else shown}:{self._listener.getsockname()[1]}"
        self._started: Callable[[], None] = lambda: None
        self._stopping: Callable[[int], None] = lambda requests: None

    def serve_until_stopped(
        self, started: Callable[[], None], stopping: Callable[[int], None] = lambda requests: None
    ) -> None:
        """Answer requests until the process is told to stop; those in flight are answered before it ends.

        `started` is called as soon as requests are accepted, `stopping` with the number of those in flight
        when the process is told to stop. Raises `PlaitError` if requests are never accepted.
        """
        self._started, self._stopping = started, stopping
        # A service that is told to stop has done what it should.
        # One that cannot begin would end the process.
        with self._listener, contextlib.suppress(KeyboardInterrupt, SystemExit):
            self.run([self._listener])
        if not self.started:
            raise PlaitError("the service could not start; the lines above say why")

    def stop(self) -> None:
        """Stop as if the process had been told to."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept requests."""
        await super().startup(sockets)
        if self.started:
            self._started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after the requests in flight, or at once if this is the second time."""
        super().handle_exit(sig, frame)
        if self.force_exit:  # what is cut off is no error
            logging.getLogger("uvicorn.error").disabled = True
        elif self.server_state.tasks:
            self._stopping(len(self.server_state.tasks))


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address. Raises `PlaitError` if it cannot be."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        is_taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = "choose another --port" if is_taken else "choose another --host"
        raise PlaitError(f"cannot listen at {host}:{port}: {error.strerror}; {remedy}") from None
    return listener

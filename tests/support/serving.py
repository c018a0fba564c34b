"""Start a service in this process, on a free port of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import plait
from plait.serving import app
from plait.serving.limits import Limits
from plait.serving.server import Server
from plait.serving.service import Service


@contextmanager
def served(
    model: plait.Model | str | Path,
    token: str | None = None,
    files: Path | None = None,
    local: bool = False,
    **limits: Any,
) -> Iterator[httpx.Client]:
    """Serve a model, and give a client of the service. One worker decodes unless `limits` says more."""
    loaded = plait.load(model, quiet=True) if isinstance(model, (str, Path)) else model
    bounds = Limits(**{"workers": 1, **limits})
    created = app.create(Service(loaded, bounds, files), token, local)
    server = Server(created, "127.0.0.1", 0, bounds)
    started = threading.Event()
    thread = threading.Thread(target=server.serve_until_stopped, args=[started.set])
    thread.start()
    try:
        assert started.wait(60)
        with httpx.Client(base_url=server.address, timeout=60) as client:
            yield client
    finally:
        server.stop()
        thread.join(60)
    assert not thread.is_alive()

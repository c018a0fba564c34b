"""The command that serves a model over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import plait
from plait.cli.app import app
from plait.cli.arguments import IndexOption, RunArgument
from plait.console import Screen
from plait.errors import PlaitError


@app.command(epilog="Example: plait serve runs/first --port 8000")
def serve(
    run: RunArgument,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
    index: IndexOption = None,
    files: Annotated[
        str | None,
        typer.Option(help="Folder that paths in requests may lead into. Default: requests name no files."),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            help="File with a token that requests must bring. Default: the variable PLAIT_TOKEN, if set."
        ),
    ] = None,
) -> None:
    """Serve a model: predictions over HTTP, and a page for people."""
    try:
        from plait.serving import app as application
        from plait.serving import server
        from plait.serving.limits import Limits
        from plait.serving.service import Service
    except ModuleNotFoundError as error:
        raise PlaitError(f"serving needs {error.name}: pip install 'plait[serve]'") from None

    token = _token(token_file)
    limits = Limits()
    service = Service(plait.load(run, quiet=True), limits, files, index)
    created = application.create(service, token)
    shown = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    Screen().say(f"{service.model.summary}\nserving at http://{shown}:{port} (Ctrl-C stops)")
    server.run(created, host, port, limits)


def _token(file: str | None) -> str | None:
    """Return the token that requests must bring; None if there is none.

    It is taken out of the environment, which other processes inherit.
    """
    token = os.environ.pop("PLAIT_TOKEN", "")
    if file is not None:
        try:
            token = Path(file).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise PlaitError(f"the token file '{file}' cannot be read: {error}") from None
        if not token.strip():
            raise PlaitError(f"the token file '{file}' is empty")
    return token.strip() or None

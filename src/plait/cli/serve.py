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
from plait.serving.limits import MB, Limits

LOCAL = ("127.0.0.1", "localhost", "::1")


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
        typer.Option(help="File with the token that requests must bring. Default: the variable PLAIT_TOKEN."),
    ] = None,
    latency: Annotated[
        float, typer.Option(min=0.01, help="Seconds within which a request is answered, or refused.")
    ] = Limits.latency,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds that a row waits for others, to be answered as a batch.")
    ] = Limits.wait,
    batch: Annotated[int, typer.Option(min=1, help="Rows that are answered together.")] = Limits.batch,
    rows: Annotated[int, typer.Option(min=1, help="Rows in a request that is no stream.")] = Limits.rows,
    megabytes: Annotated[
        float, typer.Option(min=0.001, help="Size of a request; of a line or a batch of a stream.")
    ] = Limits.body / MB,
    upload: Annotated[
        float, typer.Option(min=0.1, help="Seconds for a request to arrive; between pieces of a stream.")
    ] = Limits.upload,
    requests: Annotated[
        int, typer.Option(min=1, help="Requests that are read or answered at once.")
    ] = Limits.requests,
    cache: Annotated[
        float, typer.Option(min=0, help="Megabytes of decoded cells and embeddings that are kept.")
    ] = Limits.cache / MB,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that decode files. Default: one for each core.")
    ] = Limits.workers,
    decode_time: Annotated[
        float, typer.Option(min=0.1, help="Seconds of a processor to decode a file.")
    ] = Limits.decode_time,
    decode_memory: Annotated[
        float, typer.Option(min=10, help="Megabytes to decode a file.")
    ] = Limits.decode_memory / MB,
    pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image or a frame.")] = Limits.pixels,
    frames: Annotated[int, typer.Option(min=1, help="Frames of a video.")] = Limits.frames,
    duration: Annotated[
        float, typer.Option(min=0.1, help="Seconds of a recording or a video.")
    ] = Limits.duration,
) -> None:
    """Serve a model: predictions over HTTP, and a page for people.

    What exceeds a limit is refused, with a message. Files are decoded in processes of their own.
    """
    limits = Limits(
        latency=latency,
        wait=wait,
        batch=batch,
        rows=rows,
        body=int(megabytes * MB),
        upload=upload,
        requests=requests,
        cache=int(cache * MB),
        workers=workers,
        decode_time=decode_time,
        decode_memory=int(decode_memory * MB),
        pixels=pixels,
        frames=frames,
        duration=duration,
    )
    _serve(run, host, port, index, files, _token(token_file), limits)


def _serve(
    run: str, host: str, port: int, index: str | None, files: str | None, token: str | None, limits: Limits
) -> None:
    """Load a model and serve it until the process is told to stop."""
    try:
        from plait.serving import app as application
        from plait.serving.server import Server
        from plait.serving.service import Service
    except ModuleNotFoundError as error:
        raise PlaitError(f"serving needs {error.name}: pip install 'plait[serve]'") from None

    if files is not None and not Path(files).is_dir():
        raise PlaitError(f"no folder '{files}' (looked in {Path.cwd()})")
    service = Service(plait.load(run, quiet=True), limits, files, index)
    server = Server(application.create(service, token, host in LOCAL), host, port, limits)

    def say() -> None:
        """Say where the service is, and warn if strangers can reach it without a token."""
        screen = Screen()
        screen.say(f"{service.model.summary}\nserving at {server.address} (Ctrl-C stops)")
        if token is None and host not in LOCAL:
            screen.warn("anyone who reaches this address can use the model; --token-file asks for a token")

    server.serve_until_stopped(say)


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

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
from plait.errors import PlaitError, count
from plait.serving.limits import LOCAL, MB, Limits

HostOption = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")]
FilesOption = Annotated[
    str | None,
    typer.Option(help="Folder that paths in requests may lead into. Default: requests name no files."),
]
TokenFileOption = Annotated[
    str | None,
    typer.Option(help="File with the token that requests must bring. Default: the variable PLAIT_TOKEN."),
]
LatencyOption = Annotated[
    float, typer.Option(min=0.01, help="Seconds within which a request is answered, or refused.")
]
WaitOption = Annotated[
    float, typer.Option(min=0, help="Seconds that a row waits for others, to be answered as a batch.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Rows that are answered together.")]
RowsOption = Annotated[int, typer.Option(min=1, help="Rows in a request that is no stream.")]
MegabytesOption = Annotated[
    float, typer.Option(min=0.001, max=1e5, help="Size of a request; of a line or a batch of a stream.")
]
CharactersOption = Annotated[int, typer.Option(min=1, help="Characters of a text.")]
UploadOption = Annotated[
    float, typer.Option(min=0.1, help="Seconds for a request to arrive; between pieces of a stream.")
]
RequestsOption = Annotated[int, typer.Option(min=1, help="Requests that are answered at once.")]
StreamsOption = Annotated[int, typer.Option(min=1, help="Streams that are answered at once.")]
TotalMegabytesOption = Annotated[
    float, typer.Option(min=0.001, max=1e6, help="Size of all requests together that are read or answered.")
]
CacheOption = Annotated[
    float, typer.Option(min=0, max=1e6, help="Megabytes of decoded cells and embeddings that are kept.")
]
WorkersOption = Annotated[
    int, typer.Option(min=1, help="Processes that decode files. Default: one for each core, at most 4.")
]
DecodeTimeOption = Annotated[float, typer.Option(min=0.1, help="Seconds of a processor to decode a file.")]
DecodeMemoryOption = Annotated[float, typer.Option(min=10, max=1e6, help="Megabytes to decode a file.")]
PixelsOption = Annotated[int, typer.Option(min=1, help="Pixels of an image or a frame.")]
FramesOption = Annotated[int, typer.Option(min=1, help="Frames of a video.")]
DurationOption = Annotated[float, typer.Option(min=0.1, help="Seconds of a recording or a video.")]


@app.command(epilog="Example: plait serve runs/first --port 8000")
def serve(
    run: RunArgument,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    index: IndexOption = None,
    files: FilesOption = None,
    token_file: TokenFileOption = None,
    latency: LatencyOption = Limits.latency,
    wait: WaitOption = Limits.wait,
    batch: BatchOption = Limits.batch,
    rows: RowsOption = Limits.rows,
    megabytes: MegabytesOption = Limits.body / MB,
    characters: CharactersOption = Limits.characters,
    upload: UploadOption = Limits.upload,
    requests: RequestsOption = Limits.requests,
    streams: StreamsOption = Limits.streams,
    total_megabytes: TotalMegabytesOption = Limits.bodies / MB,
    cache: CacheOption = Limits.cache / MB,
    workers: WorkersOption = Limits.workers,
    decode_time: DecodeTimeOption = Limits.decode_time,
    decode_memory: DecodeMemoryOption = Limits.decode_memory / MB,
    pixels: PixelsOption = Limits.pixels,
    frames: FramesOption = Limits.frames,
    duration: DurationOption = Limits.duration,
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
        characters=characters,
        upload=upload,
        requests=requests,
        streams=streams,
        bodies=int(total_megabytes * MB),
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
        if error.name == "resource":
            raise PlaitError("serving runs on Linux and macOS") from None
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

    def say_stopping(requests: int) -> None:
        """Say what the service waits for."""
        Screen().say(f"waiting for {count(requests, 'request')}; Ctrl-C again stops at once")

    server.serve_until_stopped(say, say_stopping)


def _token(file: str | None) -> str | None:
    """Return the token that requests must bring; None if there is none.

    It is taken out of the environment, which other processes inherit. Raises `PlaitError` for one that no
    request could bring.
    """
    token = os.environ.pop("PLAIT_TOKEN", "")
    if file is not None:
        try:
            token = Path(file).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise PlaitError(f"the token file '{file}' cannot be read: {reason}") from None
        if not token.strip():
            raise PlaitError(f"the token file '{file}' is empty")
    if not token.isascii() or not token.strip().isprintable():
        raise PlaitError("the token must be of printable ASCII characters: HTTP cannot send others")
    return token.strip() or None

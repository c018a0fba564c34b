"""What runs in a worker process: it decodes files of strangers, with little to take or to break.

A decoder that fails on a hostile file ends this process and no other. It has limits on memory, on the time of
the processor and on open files, writes no file, and sends back arrays and reasons, nothing that is executed.
"""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from plait.errors import BadCell
from plait.media.cell import Cell, Media
from plait.media.guard import guarded, without_warnings
from plait.media.loading import Preparation, prepared
from plait.serving.limits import Limits

OPEN_FILES = 32  # more than Python has open itself


def run(pipe: Connection, preparations: Mapping[str, Sequence[Preparation]], limits: Limits) -> None:
    """Decode files until the pipe is closed.

    A request is the name of a column, then the content of a file. The reply says in JSON what came of each
    preparation of the column, then come the bytes of the arrays.
    """
    # Ctrl-C reaches all processes of a terminal; the service itself decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _confine(limits)
    with without_warnings():
        while True:
            try:
                column = pipe.recv_bytes().decode()
                content = pipe.recv_bytes()
            except EOFError:
                return
            _allow_time(limits.decode_time)
            _reply(pipe, [_decoded(preparation, content) for preparation in preparations[column]])


def _decoded(preparation: Preparation, content: bytes) -> Cell:
    """Return a prepared file; what is wrong with it is a note of a cell without an array."""
    try:
        with guarded("broken or cut short"):
            cell = prepared(preparation, Media(content, Path()))
    except BadCell as bad:
        return Cell(None, (bad.reason,))
    return cell


def _reply(pipe: Connection, cells: Sequence[Cell]) -> None:
    headers = []
    for cell in cells:
        header: dict[str, object] = {"notes": cell.notes}
        if cell.array is not None:
            header |= {"dtype": cell.array.dtype.str, "shape": cell.array.shape}
        headers.append(header)
    pipe.send_bytes(json.dumps(headers).encode())
    for cell in cells:
        if cell.array is not None:
            pipe.send_bytes(cell.array.tobytes())


def _confine(limits: Limits) -> None:
    """Limit what this process may take from now on."""
    mapped = _mapped_memory() + limits.decode_memory
    for kind, most in (
        (resource.RLIMIT_AS, mapped),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def _mapped_memory() -> int:
    """Return how many bytes this process has mapped; libraries take gigabytes of addresses, and use few."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux, which then has no limit of the address space either
        return resource.RLIM_INFINITY
    return pages * resource.getpagesize()


def _allow_time(seconds: float) -> None:
    """Let the process run for so many seconds more, of the processor; then the system ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = used.ru_utime + used.ru_stime + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (int(end) + 1, resource.RLIM_INFINITY))

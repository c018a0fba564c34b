"""What runs in a worker process: it decodes files of strangers, with little to take or to break.

A decoder that fails on a hostile file ends this process and no other. It has limits on memory, on the time of
the processor and on open files, and its environment holds no secrets. On Linux it also reaches no file but
libraries, no network and no other process (`sandbox`). It sends back arrays and reasons, nothing that is
executed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from PIL import Image as Pillow

from plait.errors import BadCell
from plait.media import limits as media_limits
from plait.media import ocr
from plait.media.cell import Cell, Media
from plait.media.guard import without_warnings
from plait.media.loading import Preparation, prepared
from plait.serving import sandbox
from plait.serving.limits import Limits

READY = b"ready"
MOST_FILES = 1000  # that a process decodes; then another one takes its place
HARMLESS = ("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
HARMLESS_BEGINNINGS = ("LC_", "PYTHON", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "ATEN_")


def is_harmless(name: str) -> bool:
    """Return whether a worker keeps a variable of the environment. Others may hold passwords and tokens."""
    return name in HARMLESS or name.startswith(HARMLESS_BEGINNINGS)


def run(pipe: Connection, preparations: Mapping[str, Sequence[Preparation]], limits: Limits) -> None:
    """Decode files until the pipe is closed, or the process has grown old.

    The first message says that the process is ready. A request is the name of a column, then the content of a
    file. The reply says in JSON what came of each preparation of the column, and whether another try may go
    better (`passing`); and whether it is the last one. Then come the bytes of the arrays.
    """
    # Ctrl-C reaches all processes of a terminal; the service itself decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    for name in list(os.environ):
        if not is_harmless(name):
            del os.environ[name]
    media_limits.set_limits(
        media_limits.Limits(
            pixels=limits.pixels,
            frames=limits.frames,
            seconds=limits.duration,
            video_seconds=limits.duration,
            memory=limits.decode_memory,
        )
    )
    Pillow.init()  # loads its formats while that is still cheap
    sandbox.confine(limits.decode_memory)
    most_memory = _peak_memory() + limits.decode_memory // 2
    pipe.send_bytes(READY)
    with without_warnings():
        for number in range(1, MOST_FILES + 1):
            try:
                column = pipe.recv_bytes().decode()
                content = pipe.recv_bytes()
            except EOFError:
                return
            _allow_time(limits.decode_time)
            decoded = [_decoded(preparation, content) for preparation in preparations[column]]
            is_last = number == MOST_FILES or _peak_memory() > most_memory
            _reply(pipe, decoded, is_last)
            if is_last:
                return


def _decoded(preparation: Preparation, content: bytes) -> tuple[Cell, bool]:
    """Return a prepared file, and whether another try may go better.

    What is wrong with the file is a note of a cell without an array.
    """
    try:
        return prepared(preparation, Media(content, Path())), False
    except BadCell as bad:  # it says nothing of the file: memory was short, or the engine could not be loaded
        # the engine's own words, which name files of this machine, are not for strangers
        is_of_engine = bad.reason.startswith(ocr.NOT_LOADED)
        return Cell(None, (ocr.NOT_LOADED if is_of_engine else bad.reason,)), True


def _reply(pipe: Connection, decoded: Sequence[tuple[Cell, bool]], is_last: bool) -> None:
    headers = []
    for cell, is_passing in decoded:
        header: dict[str, object] = {"notes": cell.notes, "passing": is_passing}
        if cell.array is not None:
            header |= {"dtype": cell.array.dtype.str, "shape": cell.array.shape}
        headers.append(header)
    pipe.send_bytes(json.dumps({"cells": headers, "last": is_last}).encode())
    for cell, _ in decoded:
        if cell.array is not None:
            pipe.send_bytes(cell.array.tobytes())


def _peak_memory() -> int:
    """Return the largest number of bytes of memory that this process has used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else peak * 1024  # macOS counts bytes, others KiB


def _allow_time(seconds: float) -> None:
    """Let the process run for so many seconds more, of the processor; then the system ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = used.ru_utime + used.ru_stime + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (int(end) + 1, resource.RLIM_INFINITY))

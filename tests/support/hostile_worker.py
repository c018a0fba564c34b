"""A worker that a file has taken over: it replies what the file says."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import torch

from plait.errors import BadCell
from plait.media.cell import Cell, Media
from plait.serving import worker

BETWEEN = b"|next message|"


def says(*messages: bytes, seconds: float = 0.0) -> bytes:
    """Return a file that makes the worker send these messages, after so many seconds."""
    return BETWEEN.join([str(seconds).encode(), *messages])


def header(
    *, shape: object = None, dtype: str = "|u1", notes: Sequence[str] = (), passing: bool = False
) -> bytes:
    """Return the first message of a reply."""
    cell: dict[str, object] = {"notes": list(notes), "passing": passing}
    if shape is not None:
        cell |= {"shape": shape, "dtype": dtype}
    return json.dumps({"cells": [cell], "last": False}).encode()


def run(pipe: Connection, preparations: object, limits: object) -> None:
    """Do what `worker.run` does, but leave the replies to the files."""
    pipe.send_bytes(worker.READY)
    while True:
        try:
            pipe.recv_bytes()
            seconds, *messages = pipe.recv_bytes().split(BETWEEN)
        except EOFError:
            return
        time.sleep(float(seconds))
        for message in messages:
            pipe.send_bytes(message)


def reply(pixels: Any) -> list[bytes]:
    """Return the messages of a good reply with an array."""
    return [header(shape=list(pixels.shape)), pixels.tobytes()]


class Short:
    """A preparation that finds too little memory for some files, and others bad."""

    nothing: ClassVar[str] = "nothing"
    suffixes: ClassVar[tuple[str, ...]] = ()
    ragged: ClassVar[bool] = False
    shape: tuple[int, ...] = (1,)
    dtype: torch.dtype = torch.uint8
    identity = "short"

    def prepare(self, media: Media) -> Cell:
        """Prepare nothing."""
        if media.content == b"large":
            raise MemoryError
        raise BadCell("broken")

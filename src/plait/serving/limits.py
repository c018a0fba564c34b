"""What a service takes from strangers, at most. The command line has an option for each."""

from __future__ import annotations

import os
from dataclasses import dataclass

MB = 1_000_000


LOCAL = ("127.0.0.1", "localhost", "::1")  # names of this machine


def _cores() -> int:
    """Return how many cores this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")  # of Linux
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


@dataclass(frozen=True)
class Limits:
    """The limits of a service. Sizes are in bytes, times in seconds.

    A request is answered within `latency` seconds after it has arrived, or refused (429). `wait` is how long
    a row waits for others, so that they are answered as one batch. The limits from `workers` on hold for the
    decoding of one file.
    """

    latency: float = 10.0
    wait: float = 0.005
    batch: int = 32  # rows that are answered together
    rows: int = 256  # in a request that is no stream
    body: int = 32 * MB  # of a request; of a line or a batch of a stream
    characters: int = 100_000  # of a text; the memory and time that a model takes grow with it
    upload: float = 30.0  # until a request has arrived; between two pieces of a stream
    requests: int = 256  # that are answered at once; others are refused
    streams: int = 16  # that are answered at once; others are refused
    bodies: int = 256 * MB  # of all requests that are read or answered at once, but streams
    cache: int = 256 * MB  # of decoded cells and embeddings that are kept
    workers: int = min(_cores(), 4)
    decode_time: float = 5.0  # of the processor; a worker is stopped after twice as long
    decode_memory: int = 1000 * MB
    pixels: int = 50_000_000  # of an image or a frame
    frames: int = 100_000  # of a video
    duration: float = 3600.0  # of a recording or a video

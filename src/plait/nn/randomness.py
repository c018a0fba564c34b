"""The random numbers of a training: apart from those of the caller, and of other trainings."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

_turn = threading.RLock()


@contextmanager
def apart(waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep what is drawn inside apart from the caller's random numbers, which go on as if nothing were drawn.

    Layers such as dropout draw from a generator that the whole process shares. So trainings in several
    threads take turns; `waiting` is called before one waits for its turn. A thread may nest them.
    """
    if not _turn.acquire(blocking=False):
        waiting()
        _turn.acquire()
    try:
        of_python, of_numpy = random.getstate(), np.random.get_state()
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        try:
            with torch.random.fork_rng(devices=gpus):
                yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)
    finally:
        _turn.release()

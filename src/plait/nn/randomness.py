"""The random numbers of a training: apart from those of the caller and of other trainings, and repeatable."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

RandomState: TypeAlias = tuple[Tensor, list[Tensor]]  # of the CPU, of each GPU

_turn = threading.RLock()


@contextmanager
def isolated(waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
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


def seed_all(seed: int) -> None:
    """Seed the random generators of all devices.

    `torch.manual_seed` also remembers where it was called from, for devices that may be set up later. That
    takes longer than a step of a small network.
    """
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def random_state() -> RandomState:
    """Return the states of the random generators of all devices."""
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), on_gpus


def restore_random(state: RandomState) -> None:
    """Set the random generators of all devices to a state."""
    on_cpu, on_gpus = state
    torch.set_rng_state(on_cpu)
    if on_gpus:
        torch.cuda.set_rng_state_all(on_gpus)

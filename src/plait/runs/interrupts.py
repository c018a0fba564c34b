"""Stop on Ctrl-C (SIGINT) and on SIGTERM, which systems send to a process that has to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

Handler = Callable[[int, FrameType | None], None]


class Stoppable(Protocol):
    """Work that looks at `stop` again and again, and saves its state once it is set."""

    stop: bool


@contextmanager
def save_first(work: Stoppable) -> Iterator[None]:
    """Ask the work inside to save and stop at the first signal. Stop at once at the second."""

    def ask(signum: int, frame: FrameType | None) -> None:
        if work.stop:
            raise KeyboardInterrupt
        work.stop = True

    with _handled([signal.SIGINT, signal.SIGTERM], ask):
        yield


@contextmanager
def terminable() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that open files and temporary folders are cleaned up."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled([signal.SIGTERM], stop):
        yield


@contextmanager
def _handled(signals: list[signal.Signals], handler: Handler) -> Iterator[None]:
    """Handle signals inside, and give them back to whoever handled them before."""
    # Python delivers signals to the main thread only, and refuses handlers from others.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    handlers_before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in handlers_before.items():
            signal.signal(number, previous)

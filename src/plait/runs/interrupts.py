"""Stop on Ctrl-C (SIGINT), and on SIGTERM and SIGHUP, which systems send to a process that has to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

Handler = Callable[[int, FrameType | None], None]

# SIGTERM comes from a scheduler or `kill`, SIGHUP from a terminal that was closed. Windows lacks SIGHUP.
ENDING = [signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])


class Stopped(KeyboardInterrupt):
    """The process has to end. `number` is that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def number_of(error: BaseException) -> int:
    """Return the number of the signal that an error stands for: Ctrl-C unless it says another one."""
    number: int = getattr(error, "number", signal.SIGINT)
    return number


class Stoppable(Protocol):
    """Work that looks at `stop` again and again, and saves its state once it is set.

    `signal` is the number of the signal that asked it to.
    """

    stop: bool
    signal: int


@contextmanager
def save_first(work: Stoppable) -> Iterator[None]:
    """Ask the work inside to save and stop at the first signal. Stop at once at the second."""

    def ask(number: int, frame: FrameType | None) -> None:
        if work.stop:
            raise Stopped(number)
        work.stop, work.signal = True, number

    with _handled([signal.SIGINT, *ENDING], ask):
        yield


@dataclass
class Received:
    """The number of the signal that came, that of Ctrl-C if none has."""

    number: int = signal.SIGINT


@contextmanager
def terminable() -> Iterator[Received]:
    """Treat SIGTERM and SIGHUP as Ctrl-C, so that open files and temporary folders are cleaned up."""
    received = Received()

    def stop(number: int, frame: FrameType | None) -> None:
        received.number = number
        raise Stopped(number)

    with _handled(ENDING, stop):
        yield received


@contextmanager
def _handled(signals: list[signal.Signals], handler: Handler) -> Iterator[None]:
    """Handle signals inside, and give them back to whoever handled them before.

    A signal that the process was told to ignore stays ignored: `nohup` ignores SIGHUP.
    """
    # Python delivers signals to the main thread only, and refuses handlers from others.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    handled = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    handlers_before = {number: signal.signal(number, handler) for number in handled}
    try:
        yield
    finally:
        for number, previous in handlers_before.items():
            signal.signal(number, previous)

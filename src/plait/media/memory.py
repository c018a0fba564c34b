"""Bound the memory that decoders take, for one file and for all threads together.

A small file may state an enormous image. What decoding it would take is computed from its header, before
anything is decoded. A file that needs more than the budget is refused. Others share the budget: a thread
waits until there is room. So decoding never takes more than the budget, however many threads there are.

`PLAIT_DECODE_MEMORY` sets the budget in gigabytes, unless the process has set `Limits.memory`. It is 1 by
default.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from plait.errors import BadCell, PlaitError
from plait.media import limits
from plait.media.guard import Unread

DEFAULT = 1e9  # bytes


# A file that takes more bytes than this, and more than a thousand times its own size, is taken for a bomb.
# Deflate reaches that ratio only where all pixels of an image are the same.
BOMB_SIZE, BOMB_RATIO = 256e6, 1000


# bytes for each pixel that FFmpeg keeps: 12 bits, in up to ten frames that others refer to
OF_VIDEO = 15


class Budget:
    """Memory that threads share. Who asks for more than is left waits.

    `remedy` is what those can do who need more.
    """

    def __init__(self, size: float, remedy: str = "") -> None:
        self.size = int(size)
        self.remedy = remedy
        self._left = self.size
        self._changed = threading.Condition()

    @contextmanager
    def take(self, count: float) -> Iterator[None]:
        """Hold `count` bytes. Raises `Unread` for more than the budget: another run may have a larger one."""
        count = int(count)
        if count > self.size:
            taken = f"decoding it takes {count / 1e9:.1f} GB, more than {self.size / 1e9:.1f}"
            raise Unread(f"absurd size: {taken}{self.remedy}")
        with self._changed:
            self._changed.wait_for(lambda: self._left >= count)
            self._left -= count
        try:
            yield
        finally:
            with self._changed:
                self._left += count
                self._changed.notify_all()


def check_bomb(memory: float, file_size: int, content: str) -> None:
    """Raise `BadCell` if decoding a file takes far more bytes than the file has. `content` is shown."""
    if memory > BOMB_SIZE and memory > BOMB_RATIO * file_size:
        raise BadCell(f"absurd size: {content} in {file_size:,} bytes, most likely a decompression bomb")


def _budget() -> Budget:
    memory = limits.current().memory
    if memory is not None:
        return Budget(memory)
    text = os.environ.get("PLAIT_DECODE_MEMORY", "")
    try:
        return Budget(float(text) * 1e9 if text else DEFAULT, " (PLAIT_DECODE_MEMORY)")
    except (ValueError, OverflowError):
        raise PlaitError(
            f"PLAIT_DECODE_MEMORY is '{text}'; expected a number of gigabytes, such as 1"
        ) from None


_budgets: dict[int, Budget] = {}


def budget() -> Budget:
    """Return the budget of this process. A process that was forked has its own, of which nothing is taken."""
    process = os.getpid()
    if process not in _budgets:
        # several threads may come here first; only one budget may be given out
        _budgets.setdefault(process, _budget())
    return _budgets[process]

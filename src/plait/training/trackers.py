"""Write the scores of every epoch to `log.csv`, and to TensorBoard if the recipe names it."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from plait.disk.whole import make_inner_folder, write_text
from plait.errors import RecipeError

EVERY = 1.0  # seconds

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Trackers:
    """Writes the history, whole, so that a resumed training leaves no row twice.

    Short epochs are written together, at most once in `EVERY` seconds, and `finish` writes the last ones.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.file = folder / "log.csv" if "csv" in names else None
        self.board = _tensorboard(folder) if "tensorboard" in names else None
        self._rows: list[str] = []
        self._next = 0.0  # when to write next

    def write(self, history: list[dict[str, float]]) -> None:
        """Count an epoch, and write the scores of all epochs if it is time to."""
        if self.board:
            for name, value in history[-1].items():
                self.board.add_scalar(name, value, len(history))
            self.board.flush()
        if time.monotonic() >= self._next:
            self.finish(history)
            self._next = time.monotonic() + EVERY

    @contextmanager
    def finished(self, history: list[dict[str, float]]) -> Iterator[None]:
        """Write at the end what is not written yet, also if the training is stopped or fails."""
        try:
            yield
        finally:
            self.finish(history)

    def finish(self, history: list[dict[str, float]]) -> None:
        """Write the scores of all epochs."""
        if not self.file or not history:
            return
        if not self._rows:
            self._rows.append(_line(["epoch", *history[0]]))
        for epoch in range(len(self._rows), len(history) + 1):
            digits = [f"{score:.8g}" for score in history[epoch - 1].values()]
            self._rows.append(_line([str(epoch), *digits]))
        write_text(self.file, "".join(self._rows), flush=False)


def _line(cells: Sequence[str]) -> str:
    """Return a line of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _tensorboard(folder: Path) -> SummaryWriter:
    """Open a writer of TensorBoard's events. Raises `RecipeError` if its package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RecipeError(
            "the tracker 'tensorboard' needs a package: pip install 'plait[tensorboard]'"
        ) from error
    return SummaryWriter(str(make_inner_folder(folder, "tensorboard")))

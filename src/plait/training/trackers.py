"""Write the scores of every epoch to `log.csv`, and to TensorBoard if the recipe names it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plait.disk.whole import make_inner_folder, write_text
from plait.errors import RecipeError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Trackers:
    """Writes the history after every epoch, whole, so that a resumed training leaves no row twice."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.file = folder / "log.csv" if "csv" in names else None
        self.board = _tensorboard(folder) if "tensorboard" in names else None

    def write(self, history: list[dict[str, float]]) -> None:
        """Write the scores of all epochs so far."""
        if self.file:
            write_text(self.file, _as_csv(history), flush=False)
        if self.board:
            for name, value in history[-1].items():
                self.board.add_scalar(name, value, len(history))
            self.board.flush()


def _as_csv(history: list[dict[str, float]]) -> str:
    """Return a table with one row an epoch."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *history[0]])
    for epoch, scores in enumerate(history, 1):
        digits = [f"{score:.8g}" for score in scores.values()]
        writer.writerow([epoch, *digits])
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

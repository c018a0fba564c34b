"""What a metric is: a function of rows that a task has scored. B rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeAlias

import numpy as np

# From a task's scored rows to a number. Each task has rows of its own class, which its metrics name.
Metric: TypeAlias = Callable[[Any], float]


@dataclass(frozen=True)
class ScoredRows:
    """What metrics need of some labelled rows: answers and labels, or how far they are apart.

    A task computes it once. The bootstrap then takes many samples of the rows. A subclass has arrays
    with one entry (or line) for each row, and may have constants.
    """

    def __len__(self) -> int:
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                return len(column)
        return 0

    def take(self, rows: np.ndarray) -> Self:
        """Return these rows, given by number. A row may come more than once."""
        taken = {}
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                taken[field.name] = column[rows]
        return replace(self, **taken)

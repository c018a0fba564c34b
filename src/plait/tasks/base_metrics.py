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

    A task computes it once. The bootstrap then takes many samples of the rows. A subclass has arrays,
    whose first dimension is the rows, and may have constants.
    """

    def __len__(self) -> int:
        """Return the number of rows."""
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                return len(column)
        return 0

    def take(self, rows: np.ndarray) -> Self:
        """Return the rows with these numbers. A row may come more than once."""
        sampled = {}
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                sampled[field.name] = column[rows]
        return replace(self, **sampled)

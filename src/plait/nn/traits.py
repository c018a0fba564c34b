"""What is measured of the cells of aligned columns, beside what their encoders make of them.

Traits are taken before a frozen encoder replaces a cell by its vector: of a text, an embedding keeps neither
the length nor the letters. Shape letters: B rows, M numbers, T n-grams of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TraitsLayout:
    """The form of a column's traits: the widths of its blocks of numbers, and the ids of n-grams.

    Numbers of one block are of one kind, such as spectra. `ngrams` is 0 for cells that are no texts.
    """

    numbers: tuple[int, ...]
    ngrams: int = 0

    @property
    def width(self) -> int:
        """Return how many numbers there are in all blocks."""
        return sum(self.numbers)


@dataclass
class Traits:
    """The traits of some rows: floats (B, M), and ids of hashed n-grams (T,), row after row.

    `count_B` says how many n-grams each row has. Both are None for cells that are no texts.
    """

    numbers_BM: Tensor
    ids_T: Tensor | None = None
    count_B: Tensor | None = None

    @classmethod
    def absent(cls, rows: int, layout: TraitsLayout) -> Traits:
        """Return the traits of rows without a cell: zeros, and no n-grams."""
        numbers_BM = torch.zeros(rows, layout.width)
        if not layout.ngrams:
            return cls(numbers_BM)
        return cls(numbers_BM, torch.zeros(0, dtype=torch.int32), torch.zeros(rows, dtype=torch.long))

    def take(self, rows: Tensor) -> Traits:
        """Return the traits of these rows, copied."""
        numbers_BM = self.numbers_BM.index_select(0, rows)
        if self.ids_T is None or self.count_B is None:
            return Traits(numbers_BM)

        # The n-grams of a row begin where those of the rows before it end.
        first_B = (self.count_B.cumsum(0) - self.count_B).index_select(0, rows)
        count_B = self.count_B.index_select(0, rows)
        shift_B = first_B - (count_B.cumsum(0) - count_B)
        place_T = torch.arange(int(count_B.sum()), device=rows.device) + shift_B.repeat_interleave(count_B)
        return Traits(numbers_BM, self.ids_T.index_select(0, place_T), count_B)

    def to(self, device: torch.device) -> Traits:
        """Move all tensors to a device."""
        if self.ids_T is None or self.count_B is None:
            return Traits(self.numbers_BM.to(device, non_blocking=True))
        return Traits(
            self.numbers_BM.to(device, non_blocking=True),
            self.ids_T.to(device, non_blocking=True),
            self.count_B.to(device, non_blocking=True),
        )

    def row_of_ngram(self) -> Tensor:
        """Return the row of each n-gram, (T,)."""
        assert self.count_B is not None
        row_B = torch.arange(len(self.count_B), device=self.count_B.device)
        return row_B.repeat_interleave(self.count_B)

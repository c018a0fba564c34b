"""What flows through a model: values of cells, tokens of encoders, and the batch that holds a row's
parts together.

Shape letters: B rows, L steps or tokens, D width.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from plait.nn.layers import masked_mean
from plait.table.problems import Problem

Kind = Literal["vector", "index", "tokens", "bag", "grid", "frames", "spectrogram", "wave"]


@dataclass(frozen=True)
class Layout:
    """The form of one column's prepared values: what an encoder needs to know to be built.

    - `vector`: floats of shape (B, size[0]);
    - `index`: integers in 0..vocabulary-1 of shape (B,), 0 meaning a value not seen in training;
    - `tokens`: integer ids of shape (B, size[0]), 0 being padding, with a length per row; `vocabulary`
      ids;
    - `bag`: as `tokens`, but their order says nothing;
    - `grid`: pictures of shape (B, size[0] channels, size[1] high, size[2] wide);
    - `frames`: pictures of shape (B, at most size[0] steps, size[1] channels, size[2] high, size[3]
      wide), with a length per row;
    - `wave`: samples of shape (B, at most size[0] steps), with a length per row;
    - `spectrogram`: spectra of shape (B, at most size[0] steps, size[1] bands), with a length per row.
    """

    kind: Kind
    size: tuple[int, ...] = ()
    vocabulary: int = 0


@dataclass
class Values:
    """One column's cells for some rows: `x` has one entry a row; `length_B` counts the valid steps
    along dimension 1.

    Where a cell holds several media, `count_B` says how many, and `x` (and `length_B`) have one entry
    for each of them, row after row. `encoded` values are no cells but vectors, (B, L, D), that a frozen
    encoder has made of them.
    """

    x: Tensor
    length_B: Tensor | None = None
    count_B: Tensor | None = None
    encoded: bool = False

    def __len__(self) -> int:
        """The number of entries: of rows, or of all their media."""
        return len(self.x)

    def some(self, items: Tensor) -> Values:
        """These entries, whatever rows they belong to."""
        return Values(self.x, self.length_B, encoded=self.encoded).take(items)

    def take(self, rows: Tensor) -> Values:
        """The values of these rows, copied."""
        if self.count_B is not None:
            count = self.count_B.index_select(0, rows)
            first = (self.count_B.cumsum(0) - self.count_B).index_select(0, rows)
            items = self.some(first.repeat_interleave(count) + place_within(count))
            return Values(items.x, items.length_B, count, self.encoded)
        length = None if self.length_B is None else self.length_B.index_select(0, rows)
        x = self.x.index_select(0, rows)
        if length is not None and len(length):  # no encoder need walk over padding that no row here uses
            x = x[:, : max(int(length.max()), 1)]
        return Values(x, length, encoded=self.encoded)

    def mask_BL(self) -> Tensor:
        """True at the valid steps; a column without lengths has one step, always valid."""
        if self.length_B is None:
            return torch.ones(len(self.x), 1, dtype=torch.bool, device=self.x.device)
        return torch.arange(self.x.shape[1], device=self.x.device) < self.length_B[:, None]

    def to(self, device: torch.device) -> Values:
        length_B, count_B = (
            None if t is None else t.to(device, non_blocking=True) for t in (self.length_B, self.count_B)
        )
        return replace(self, x=self.x.to(device, non_blocking=True), length_B=length_B, count_B=count_B)


def place_within(count_B: Tensor) -> Tensor:
    """For each item its place among those of its own row: counts of 2 and 3 give 0 1 0 1 2."""
    before = count_B.cumsum(0) - count_B
    return torch.arange(int(count_B.sum()), device=count_B.device) - before.repeat_interleave(count_B)


@dataclass
class Tokens:
    """What an encoder makes of one column: vectors, and True where they are valid.

    In a row where the column is missing, the mask is False everywhere and `x_BLD` holds the column's
    learned token.
    """

    x_BLD: Tensor
    mask_BL: Tensor

    def pooled_BD(self) -> Tensor:
        """One vector a row: the mean of its valid tokens, or the learned token where the column is
        missing.
        """
        return masked_mean(self.x_BLD, self.mask_BL)


@dataclass
class Batch:
    """Some rows of a prepared table.

    `present[c]` is True where the row has column c; `labelled[t]` is True where it has target t. `rows`
    are the rows' numbers in the table that they come from. `given` is what `present` was before
    training hid some of it.
    """

    values: dict[str, Values]
    present: dict[str, Tensor]
    rows: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)
    labelled: dict[str, Tensor] = field(default_factory=dict)
    given: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Batch:
        if device.type == "cpu":
            return self
        move = {name: v.to(device) for name, v in self.values.items()}
        whole = (self.present, self.targets, self.labelled, self.given)
        present, targets, labelled, given = (
            {k: v.to(device, non_blocking=True) for k, v in d.items()} for d in whole
        )
        return Batch(move, present, self.rows, targets, labelled, given)

    def take(self, rows: Tensor) -> Batch:
        """A part of this batch; `rows` count within it."""
        whole = (self.present, self.targets, self.labelled, self.given)
        present, targets, labelled, given = (
            {k: v.index_select(0, rows) for k, v in d.items()} for d in whole
        )
        return Batch(
            {k: v.take(rows) for k, v in self.values.items()},
            present,
            self.rows.index_select(0, rows),
            targets,
            labelled,
            given,
        )

    def only(self, columns: set[str]) -> Batch:
        """The same rows with every other column hidden, as if its cells were missing."""
        return replace(
            self, present={c: p if c in columns else torch.zeros_like(p) for c, p in self.present.items()}
        )

    def drop(self, probability: float, generator: torch.Generator) -> Batch:
        """Modality dropout, in each row on its own: with this probability the row keeps only some of
        its present cells, their number drawn evenly from one to all but one, then that many of them by
        lot. So small subsets are seen as often as large ones, however many columns there are, and no
        row trains on nothing.
        """
        if probability <= 0 or len(self.present) < 2:
            return self
        present = torch.stack(list(self.present.values()))  # (columns, B)
        lot = torch.rand(present.shape, generator=generator).to(present.device).masked_fill(~present, 2.0)
        place = lot.argsort(0).argsort(0)  # the absent ones come last
        have_B = present.sum(0)
        hit_B, size_B = torch.rand(2, len(self), generator=generator).to(present.device)
        most_B = torch.where(hit_B < probability, 1 + (size_B * (have_B - 1)).long(), have_B)
        kept = present & (place < most_B.clamp(min=1))
        return replace(self, present=dict(zip(self.present, kept, strict=True)), given=self.present)


IN_MEMORY = 2 << 30  # bytes of one prepared column above which it lies in a temporary file instead


@dataclass
class Loaded:
    """A column, prepared. Missing and bad cells have `present` False and zeros in `values`.

    `digests` has short hashes of the content of each row's media, to find the same picture on both
    sides of a split. `notes` maps what is worth a warning, but no problem (`silent`), to the rows of
    which it is true.
    """

    values: Values
    present: Tensor
    problems: list[Problem] = field(default_factory=list)
    digests: list[set[bytes]] = field(default_factory=list)
    notes: dict[str, list[int]] = field(default_factory=dict)


def allocate(rows: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros; in an unlinked temporary file when it would fill the memory."""
    size = rows * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size <= IN_MEMORY:
        return torch.zeros((rows, *shape), dtype=dtype)
    with tempfile.NamedTemporaryFile(prefix="plait-") as file:
        os.truncate(file.name, size)
        return torch.from_file(file.name, shared=True, size=size // dtype.itemsize, dtype=dtype).view(
            rows, *shape
        )

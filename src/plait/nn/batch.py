"""What flows through a model: values of cells, tokens of encoders, and batches of rows.

Shape letters: B rows, N media of all rows, L steps or tokens, D width, P blocks, or present rows.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from plait.nn.layers import masked_mean
from plait.nn.traits import Traits
from plait.table.problems import Problem

Entry = TypeVar("Entry")

Kind = Literal["vector", "index", "tokens", "bag", "grid", "frames", "spectrogram", "wave"]


@dataclass(frozen=True)
class Layout:
    """The form of one column's prepared values: all that an encoder needs to know to be built.

    - `vector`: floats of shape (B, size[0]);
    - `index`: integers in 0..vocabulary-1 of shape (B,), 0 meaning a value not seen in training;
    - `tokens`: integer ids of shape (B, size[0]), 0 being padding, with a length per row; `vocabulary`
      ids;
    - `bag`: as `tokens`, but their order says nothing;
    - `grid`: images of shape (B, size[0] channels, size[1] high, size[2] wide);
    - `frames`: images of shape (B, at most size[0] steps, size[1] channels, size[2] high, size[3]
      wide), with a length per row;
    - `wave`: samples of shape (B, at most size[0] steps), with a length per row;
    - `spectrogram`: spectra of shape (B, at most size[0] steps, size[1] bands), with a length per row.
    """

    kind: Kind
    size: tuple[int, ...] = ()
    vocabulary: int = 0

    @property
    def is_text(self) -> bool:
        """Whether cells are texts: ids of tokens or of n-grams, which can be counted."""
        return self.kind in ("tokens", "bag")

    @property
    def is_recording(self) -> bool:
        """Whether cells last: their length in time varies from row to row."""
        return self.kind in ("spectrogram", "wave", "frames")

    @property
    def is_convolved(self) -> bool:
        """Whether encoders convolve the cells."""
        return self.is_recording or self.kind == "grid"

    def absent(self, rows: int) -> Values:
        """Return rows without a cell, of a layout whose cells are values of the table."""
        if self.kind == "vector":
            return Values(torch.zeros(rows, *self.size))
        if self.kind == "index":
            return Values(torch.zeros(rows, dtype=torch.long))

        # A sequence of ids has one step at least, and no valid one.
        ids = torch.zeros(rows, 1, dtype=torch.int32)
        return Values(ids, torch.zeros(rows, dtype=torch.long))


@dataclass
class Values:
    """One column's cells for some rows.

    `x` has one entry for each row. `length_B` counts the valid steps along dimension 1. Where a cell holds
    several media, `count_B` says how many. Then `x` and `length_B` have one entry for each medium, row after
    row. `encoded` values are not cells but the vectors (B, L, D) that a frozen encoder has made of them.
    Where absent cells are left out (`packed`), `row_P` has the row in the batch of each one that is left.
    `traits` are those of the rows, in columns that an alignment compares.
    """

    x: Tensor
    length_B: Tensor | None = None
    count_B: Tensor | None = None
    encoded: bool = False
    row_P: Tensor | None = None
    traits: Traits | None = None

    def __len__(self) -> int:
        """Return the number of entries: of rows, or of all their media."""
        return len(self.x)

    def some(self, entries: Tensor) -> Values:
        """Return these entries of `x`, whatever rows they belong to, copied."""
        x = self.x.index_select(0, entries)
        if self.length_B is None:
            return Values(x, encoded=self.encoded)

        length_B = self.length_B.index_select(0, entries)
        if len(length_B):
            # Padding that none of these entries needs is cut off: it would only cost time.
            longest = max(int(length_B.max()), 1)
            x = x[:, :longest]
        return Values(x, length_B, encoded=self.encoded)

    def packed(self, present_B: Tensor) -> Values:
        """Leave out absent cells, if running an encoder on the others only saves time."""
        if self.encoded and self.count_B is None:
            return self  # after a frozen encoder, selecting rows costs more than it saves
        if bool(present_B.all()):
            return self
        row_P = present_B.nonzero()[:, 0]
        return replace(self.take(row_P), row_P=row_P)

    def take(self, rows: Tensor) -> Values:
        """Return the values of these rows, copied."""
        assert self.row_P is None  # else an entry's number is not its row's
        traits = None if self.traits is None else self.traits.take(rows)
        if self.count_B is None:
            return replace(self.some(rows), traits=traits)

        # The media of a row follow each other: they begin where those of the rows before it end.
        first_B = self.count_B.cumsum(0) - self.count_B
        first_B = first_B.index_select(0, rows)
        count_B = self.count_B.index_select(0, rows)
        medium_N = first_B.repeat_interleave(count_B) + place_within(count_B)
        media = self.some(medium_N)
        return Values(media.x, media.length_B, count_B, self.encoded, traits=traits)

    def mask_BL(self) -> Tensor:
        """Return a mask, True at the valid steps. A column without lengths has one step, always valid."""
        if self.length_B is None:
            return torch.ones(len(self.x), 1, dtype=torch.bool, device=self.x.device)
        step_L = torch.arange(self.x.shape[1], device=self.x.device)
        return step_L < self.length_B[:, None]

    def to(self, device: torch.device) -> Values:
        """Move the values, lengths and counts to a device."""
        return replace(
            self,
            x=self.x.to(device, non_blocking=True),
            length_B=_on_device(self.length_B, device),
            count_B=_on_device(self.count_B, device),
            row_P=_on_device(self.row_P, device),
            traits=None if self.traits is None else self.traits.to(device),
        )


def _on_device(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """Move a tensor to a device, if there is one."""
    if tensor is None:
        return None
    return tensor.to(device, non_blocking=True)


def select(by_name: Mapping[str, Entry], names: Iterable[str]) -> dict[str, Entry]:
    """Return the entries of these names, in the order of the names."""
    return {name: by_name[name] for name in names}


def place_within(count_B: Tensor) -> Tensor:
    """Number the media of each row from 0: counts of 2 and 3 give 0 1 0 1 2."""
    first_B = count_B.cumsum(0) - count_B
    number_N = torch.arange(int(count_B.sum()), device=count_B.device)
    return number_N - first_B.repeat_interleave(count_B)


@dataclass
class Tokens:
    """What an encoder makes of one column: vectors, and a mask that is True where they are valid.

    In a row without a cell of the column, the mask is False everywhere, and `x_BLD` holds the column's
    stand-in token.
    """

    x_BLD: Tensor
    mask_BL: Tensor

    @classmethod
    def one_each(cls, x_BD: Tensor) -> Tokens:
        """Make one valid token of each vector."""
        mask_B1 = torch.ones(len(x_BD), 1, dtype=torch.bool, device=x_BD.device)
        return cls(x_BD[:, None], mask_B1)

    @classmethod
    def all_valid(cls, x_BLD: Tensor) -> Tokens:
        """Make tokens that are valid in every row."""
        mask_BL = torch.ones(x_BLD.shape[:2], dtype=torch.bool, device=x_BLD.device)
        return cls(x_BLD, mask_BL)

    def pooled_BD(self) -> Tensor:
        """Return the mean of each row's valid tokens, or the stand-in token where the cell is absent."""
        return masked_mean(self.x_BLD, self.mask_BL)


@dataclass
class Masks:
    """Which cells of some rows are present, by column. `Batch` says what `present` and `in_table` mean."""

    present: dict[str, Tensor]
    in_table: dict[str, Tensor]

    def to(self, device: torch.device) -> Masks:
        """Move both masks to a device."""
        return Masks(_moved(self.present, device), _moved(self.in_table, device))

    def take(self, rows: Tensor) -> Masks:
        """Return both masks for some rows; `rows` count within them."""
        return Masks(_taken(self.present, rows), _taken(self.in_table, rows))


@dataclass
class Encoded:
    """The tokens of every column for some rows, and which cells they were made of.

    `present[c]` is True where the row has a cell of column c. `in_table[c]` is True where the row's table has
    the column: an absent cell is then empty; otherwise nothing is known of it.
    """

    tokens: dict[str, Tokens]
    present: dict[str, Tensor]
    in_table: dict[str, Tensor]


@dataclass
class Fused:
    """What fusion makes of some rows: a vector of all columns, and a vector of each block.

    `vector_BD` is the fused vector. `blocks[b]` has the vectors of block b, for the unimodal heads; it
    is empty in a model without them. `present[b]` is True where the row has a cell of block b,
    `in_table[b]` where the row's table has one of its columns.
    """

    vector_BD: Tensor
    blocks: dict[str, Tensor]
    present: dict[str, Tensor]
    in_table: dict[str, Tensor]

    def count_B(self) -> Tensor:
        """Return how many blocks each row has."""
        return torch.stack(list(self.present.values())).sum(0)

    def empty_BP(self) -> Tensor:
        """Return which blocks of each row are empty: its table has them, and the row has no cell of them."""
        empty = []
        for block, present_B in self.present.items():
            empty.append(self.in_table[block] & ~present_B)
        return torch.stack(empty, 1)

    def answered_BD(self) -> Tensor:
        """Return the vector that each row is answered from.

        With two blocks or more it is the fused vector, with one it is that block's vector, and with none it
        is zero.
        """
        count_B = self.count_B()
        vector_BD = self.vector_BD

        # Fusion has seen few rows with one block. The block's unimodal network has seen all of them.
        for block, block_BD in self.blocks.items():
            has_only_B = self.present[block] & (count_B == 1)
            vector_BD = torch.where(has_only_B[:, None], block_BD.to(vector_BD.dtype), vector_BD)

        has_any_B = count_B > 0
        return torch.where(has_any_B[:, None], vector_BD, 0.0)


@dataclass
class Batch:
    """Some rows of a prepared table.

    `present[c]` is True where the row has a cell of column c, `in_table[c]` where the row's table has
    the column. `labelled[t]` is True where the row has target t. `rows` are the rows' numbers in the
    table that they come from. `complete` has both masks as they were before training hid some cells;
    None where nothing is hidden. In a `packed` batch absent cells are left out already.

    `has_labels` says which targets some row has, as it was looked up before the batch moved to a device:
    there each look would wait for the device.
    """

    values: dict[str, Values]
    present: dict[str, Tensor]
    in_table: dict[str, Tensor]
    rows: Tensor
    targets: dict[str, Tensor] = field(default_factory=dict)
    labelled: dict[str, Tensor] = field(default_factory=dict)
    complete: Masks | None = None
    packed: bool = False
    has_labels: dict[str, bool] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def has_label(self, target: str) -> bool:
        """Return whether some row has this target."""
        if self.has_labels is not None:
            return self.has_labels[target]
        return bool(self.labelled[target].any())

    @property
    def masks(self) -> Masks:
        """Which cells are present, and which columns the rows' tables have."""
        return Masks(self.present, self.in_table)

    def to(self, device: torch.device) -> Batch:
        """Move everything but the rows' numbers to a device."""
        if device.type == "cpu":
            return self
        has_labels = {target: self.has_label(target) for target in self.labelled}
        return Batch(
            values={name: values.to(device) for name, values in self.values.items()},
            present=_moved(self.present, device),
            in_table=_moved(self.in_table, device),
            rows=self.rows,
            targets=_moved(self.targets, device),
            labelled=_moved(self.labelled, device),
            complete=None if self.complete is None else self.complete.to(device),
            packed=self.packed,
            has_labels=has_labels,
        )

    def take(self, rows: Tensor) -> Batch:
        """Return some rows of this batch; `rows` count within it."""
        return Batch(
            values={name: values.take(rows) for name, values in self.values.items()},
            present=_taken(self.present, rows),
            in_table=_taken(self.in_table, rows),
            rows=self.rows.index_select(0, rows),
            targets=_taken(self.targets, rows),
            labelled=_taken(self.labelled, rows),
            complete=None if self.complete is None else self.complete.take(rows),
        )


def _moved(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Move tensors to a device. Copies from pinned memory overlap with computation."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}


def _taken(tensors: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Return tensors by name for some rows."""
    return {name: tensor.index_select(0, rows) for name, tensor in tensors.items()}


IN_MEMORY = 2 << 30  # bytes of one prepared column above which it lies in a temporary file instead


@dataclass
class Loaded:
    """A prepared column. Missing and bad cells have `present` False and zeros in `values`.

    `digests` has short hashes of the content of each row's media. With them, the same file is found on both
    sides of a split. `notes` maps what deserves a warning but is no problem (`silent`) to the rows of which
    it is true.
    """

    values: Values
    present: Tensor
    problems: list[Problem] = field(default_factory=list)
    digests: list[set[bytes]] = field(default_factory=list)
    notes: dict[str, list[int]] = field(default_factory=dict)


def allocate(rows: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor of zeros, (rows, *shape).

    Above `IN_MEMORY` bytes it lies in an unlinked temporary file.
    """
    entries = rows * int(np.prod(shape, dtype=np.int64))
    size = entries * dtype.itemsize
    if size <= IN_MEMORY:
        return torch.zeros((rows, *shape), dtype=dtype)

    # The system frees an unlinked file with the last tensor that maps it, even if the process is killed.
    with tempfile.NamedTemporaryFile(prefix="plait-") as file:
        os.truncate(file.name, size)
        x = torch.from_file(file.name, shared=True, size=entries, dtype=dtype)
        return x.view(rows, *shape)

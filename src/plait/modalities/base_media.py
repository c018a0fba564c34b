"""The base of modalities whose cells are media files."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
import torch

from plait.errors import BadCell
from plait.media.cell import Cell, Media, is_bytes, is_file
from plait.media.loading import load_together
from plait.modalities.base import Match, Modality
from plait.nn.batch import Loaded, Values
from plait.table.conventions.base import Convention
from plait.table.conventions.content import Content
from plait.table.conventions.listing import Listing
from plait.table.conventions.plain import Plain
from plait.table.json import JSON
from plait.table.table import Source
from plait.table.values import is_list, is_text, items, sample

# of prepared cells: raise it after a change to how they are prepared, so that cached ones are not used
VERSION = 1


class MediaModality(Modality):
    """A modality of media cells. It learns nothing from the rows and is built from its config alone.

    A cell becomes an array of bytes or halves, of `shape`. If the modality is `ragged`, the first dimension
    counts steps, and differs between cells.
    """

    media: ClassVar[bool] = True
    drops_constant: ClassVar[bool] = False
    conventions: ClassVar[tuple[type[Convention], ...]] = (Plain, Listing, Content)
    ragged: ClassVar[bool]
    nothing: ClassVar[str] = "nothing in it"
    shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def __init__(self, config: Any) -> None: ...

    @abstractmethod
    def prepares(self) -> JSON:
        """Return all options and versions of decoders that the result of `prepare` depends on."""

    @abstractmethod
    def prepare(self, media: Media) -> Cell | None:
        """Prepare one cell. Raises `BadCell`.

        Returns None if a file has none of this media, such as the audio of a video without an audio stream.
        """

    @cached_property
    def identity(self) -> str:
        """The key of its cells in a store: a short hash of what `prepares` returns."""
        description = {"modality": type(self).__name__, "version": VERSION, **self.prepares()}
        text = json.dumps(description, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    @classmethod
    def fit(cls, config: Any, cells: pa.ChunkedArray) -> MediaModality:
        """Build the modality; the cells are not read."""
        return cls(config)

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        """Prepare every cell, or read it from the cache."""
        return load_together([self], cells, [source])[0]

    def absent(self, rows: int) -> Loaded:
        """Return empty cells that share one row of memory: a table may lack a column of large images."""
        shape = self.shape
        length_B = None
        if self.ragged:
            shape = (1, *shape[1:])
            length_B = torch.zeros(rows, dtype=torch.long)
        one_cell = torch.zeros(1, *shape, dtype=self.dtype)
        values = Values(one_cell.expand(rows, *shape), length_B)
        return Loaded(values, torch.zeros(rows, dtype=torch.bool))

    def state(self) -> JSON:
        """Return an empty state: nothing is learned."""
        return {}

    @classmethod
    def from_state(cls, config: Any, state: JSON) -> MediaModality:
        """Build the modality from its config."""
        return cls(config)


def recognise(
    cells: pa.ChunkedArray,
    source: Source,
    what: str,
    suffixes: tuple[str, ...],
    is_one: Callable[[Media], bool],
) -> Match | None:
    """Return how sure it is that these cells are `what`, or None if they are something else.

    The content of a sample decides: `is_one` says of one cell whether it is `what`. If the files cannot be
    read, the ends of their names decide.
    """
    if is_list(cells):
        cells = items(cells)
    if not _may_be_media(cells):
        return None

    # a column of plain texts is refused before every cell is looked for on the disk
    sampled = sample(cells)
    count = len(sampled)
    named = _count_named(sampled, suffixes)
    if is_text(cells) and not named and not _names_a_file(sampled[:4], source):
        return None

    # half is enough: some of the files may be damaged, or may be missing
    matching = sum(_is(cell, source, is_one) for cell in sampled)
    if matching >= count / 2:
        return Match(1.0, f"{matching} of {count} cells looked at are {what} by their content")
    if named >= count / 2:
        reason = (
            f"the file names end like those of {what}, but {count - matching} of {count} looked at cannot be "
            f"read as {what} under {source.root}"
        )
        return Match(0.9, reason)
    return None


def _may_be_media(cells: pa.ChunkedArray) -> bool:
    """Return whether there are cells, and they are paths or bytes."""
    return len(cells) > 0 and (is_text(cells) or is_bytes(cells.type))


def _count_named(cells: Sequence[object], suffixes: tuple[str, ...]) -> int:
    """Count the cells that are names with one of these ends."""
    names = [cell.lower() for cell in cells if isinstance(cell, str)]
    return sum(name.endswith(suffixes) for name in names)


def _names_a_file(cells: Sequence[str], source: Source) -> bool:
    """Return whether one of the cells is the path of a file."""
    return any(is_file(cell, source.root) for cell in cells)


def _is(cell: object, source: Source, is_one: Callable[[Media], bool]) -> bool:
    """Return whether `is_one` holds for a cell; a cell that cannot be read does not count."""
    try:
        return is_one(Media(cell, source.root))
    except BadCell:
        return False

"""The base of modalities whose cells are media files."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
import torch

from plait.errors import BadCell
from plait.media.cell import Cell, Media, holds_file, is_bytes, is_file, is_missing
from plait.media.guard import guarded, without_warnings
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
VERSION = 2


class MediaModality(Modality):
    """A modality of media cells. It learns nothing from the rows and is built from its config alone.

    A cell becomes an array of bytes or halves, of `shape`. If the modality is `ragged`, the first dimension
    counts steps, and differs between cells.
    """

    media: ClassVar[bool] = True
    drops_constant: ClassVar[bool] = False
    conventions: ClassVar[tuple[type[Convention], ...]] = (Plain, Listing, Content)
    ragged: ClassVar[bool]
    content: ClassVar[str] = "*/*"  # the media type of such files, such as image/*
    suffixes: ClassVar[tuple[str, ...]]  # the ends of the names of such files
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

    def cell_schema(self) -> JSON:
        """Return the schema of a file in text form."""
        return {"type": "string", "contentEncoding": "base64", "contentMediaType": self.content}

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
    kind_of: Callable[[Media], str],
    count_matching: Callable[[Counter[str]], int],
) -> Match | None:
    """Return how sure it is that these cells are `what`, or None if they are something else.

    The content of a sample decides: `kind_of` names what one cell is, and `count_matching` says how many
    cells of each kind are `what`. If the files cannot be read, the ends of their names decide.
    """
    if is_list(cells):
        cells = items(cells)
    if pa.types.is_dictionary(cells.type):  # a categorical column of pandas may hold paths
        cells = cells.cast(cells.type.value_type)
    if not _may_be_media(cells):
        return None

    # a column of plain texts is refused before every cell is looked for on the disk
    sampled = [cell for cell in sample(cells) if not is_missing(cell)]
    count = len(sampled)
    named = _count_named(sampled, suffixes)
    if is_text(cells) and not named and not _lead_to_files(sampled, source, suffixes):
        return None

    # half is enough: some of the files may be damaged, or may be missing
    with without_warnings():
        kinds = Counter(_kind(cell, source, suffixes, kind_of) for cell in sampled)
    matching = count_matching(kinds)
    if matching and matching >= count / 2:
        return Match(1.0, f"{matching} of {count} cells looked at are {what} by their content")
    if named and named >= count / 2:
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
    names = [cell.lower().rstrip() for cell in cells if isinstance(cell, str)]
    return sum(name.endswith(suffixes) for name in names)


def _lead_to_files(cells: Sequence[str], source: Source, suffixes: tuple[str, ...]) -> bool:
    """Return whether one of the first cells is the path of a file, or holds one.

    Names may lack their endings if most of them differ: a few words may also name files by accident.
    """
    if len(set(cells)) <= len(cells) / 2:
        suffixes = ()
    return any(holds_file(cell) or is_file(cell, source.root, suffixes) for cell in cells[:4])


def _kind(cell: object, source: Source, suffixes: tuple[str, ...], kind_of: Callable[[Media], str]) -> str:
    """Return what a cell is; nothing for a cell that cannot be read."""
    try:
        with guarded("cannot be read"):
            return kind_of(Media(cell, source.root, suffixes=suffixes))
    except BadCell:
        return ""

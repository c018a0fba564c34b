"""What a modality of media files is."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
import torch

from plait.errors import BadCell
from plait.media.cell import Cell, Media, is_bytes, is_file
from plait.media.loading import load_together
from plait.modalities.base import Match, Modality
from plait.nn.batch import Loaded
from plait.table.json import JSON
from plait.table.table import Source
from plait.table.values import is_list, is_text, items, sample

VERSION = (
    1  # of everything that is prepared; another one finds nothing of what an earlier plait left in a store
)


class MediaModality(Modality):
    """A modality of media cells, which learns nothing from the rows. What it makes of one is an array
    of bytes or halves, of `shape` but for its first dimension where that counts steps (`ragged`). It is
    built from its config alone.
    """

    media: ClassVar[bool] = True
    drops_constant: ClassVar[bool] = False
    ragged: ClassVar[bool]
    nothing: ClassVar[str] = "nothing in it"
    shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def __init__(self, config: Any) -> None: ...

    @abstractmethod
    def prepares(self) -> JSON:
        """All options that decide what `prepare` makes, and the versions of what decodes: a prepared
        cell's identity.
        """

    @abstractmethod
    def prepare(self, media: Media) -> Cell | None:
        """One cell; None where a file has none (the sound of a silent clip). Raises `BadCell`."""

    @cached_property
    def identity(self) -> str:
        """Where its cells lie in a store."""
        about = json.dumps(
            {"modality": type(self).__name__, "version": VERSION, **self.prepares()}, sort_keys=True
        )
        return hashlib.blake2b(about.encode(), digest_size=12).hexdigest()

    @classmethod
    def fit(cls, config: Any, cells: pa.ChunkedArray) -> MediaModality:
        return cls(config)

    def load(self, cells: pa.ChunkedArray, source: Source) -> Loaded:
        return load_together([self], cells, [source])[0]

    def state(self) -> JSON:
        return {}

    @classmethod
    def from_state(cls, config: Any, state: JSON) -> MediaModality:
        return cls(config)


def recognise(
    cells: pa.ChunkedArray,
    source: Source,
    what: str,
    suffixes: tuple[str, ...],
    is_one: Callable[[Media], bool],
) -> Match | None:
    """How sure it is that these cells are `what`, by the content of some of them, or else by the ends
    of their names.
    """
    if is_list(cells):
        cells = items(cells)
    if not len(cells) or not (is_text(cells) or is_bytes(cells.type)):
        return None
    looked = sample(cells)
    named = sum(isinstance(c, str) and c.lower().endswith(suffixes) for c in looked)
    if is_text(cells) and not named and not any(is_file(cell, source.root) for cell in looked[:4]):
        return None
    found = sum(_is(cell, source, is_one) for cell in looked)
    if found >= len(looked) / 2:
        return Match(1.0, f"{found} of {len(looked)} cells looked at are {what} by their content")
    if named >= len(looked) / 2:
        return Match(
            0.9,
            f"names end like those of {what}, but {len(looked) - found} of {len(looked)} looked at are none "
            f"under {source.root}",
        )
    return None


def _is(cell: object, source: Source, is_one: Callable[[Media], bool]) -> bool:
    try:
        return is_one(Media(cell, source.root))
    except BadCell:
        return False

"""Questions about the cells of a column, answered without knowing its modality."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# Japanese, Chinese, Korean and Thai.
LETTER_WITHOUT_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
SAMPLE = 24  # cells looked at to recognise a media column


def sample(cells: pa.ChunkedArray, count: int = SAMPLE) -> list[Any]:
    """Return up to `count` cells, spread evenly over the column."""
    count = min(count, len(cells))
    rows = [number * len(cells) // count for number in range(count)]
    return [cells[row].as_py() for row in rows]


def is_list(cells: pa.ChunkedArray) -> bool:
    """Return whether the cells are lists, of any kind that Arrow has."""
    kind = cells.type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def items(cells: pa.ChunkedArray, keep_null: bool = False) -> pa.ChunkedArray:
    """Return the media of a column of lists, one after the other, without nulls unless `keep_null`."""
    flat = pc.list_flatten(cells)
    return flat if keep_null else flat.drop_null()


def is_text(cells: pa.ChunkedArray) -> bool:
    """Return whether the cells are strings."""
    return pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)


def joined_texts(cells: pa.ChunkedArray) -> list[str | None]:
    """Return cells as texts; of a list, all entries with commas between, of which n-grams know nothing."""
    if is_list(cells):
        cells = pc.cast(cells, pa.list_(pa.string()))
        return [
            None if entries is None else ", ".join(filter(None, entries)) for entries in cells.to_pylist()
        ]
    if not is_text(cells):
        cells = pc.cast(cells, pa.string())
    return cells.to_pylist()


def words_a_cell(cells: pa.ChunkedArray) -> float:
    """Return the mean number of words. In scripts without spaces, three letters count as one word."""
    texts = list(filter(None, sample(cells, 500)))
    if not texts:
        return 0.0
    words = 0.0
    for text in texts:
        letters = LETTER_WITHOUT_SPACES.findall(text)
        words += max(len(text.split()), len(letters) / 3)
    return words / len(texts)


def distinct(cells: pa.ChunkedArray) -> int:
    """Count different cells; null is one of them."""
    return len(cells.unique())

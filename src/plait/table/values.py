"""Questions about the cells of a column, answered without knowing its modality."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Japanese, Chinese, Korean and Thai
LETTER_WITHOUT_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
SAMPLE = 24  # cells looked at to recognise a media column
MOST = 0.95  # the share of numbers from which strings are taken for numbers


def sample(cells: pa.ChunkedArray, count: int = SAMPLE) -> list[Any]:
    """Return up to `count` cells, spread evenly over the column."""
    count = min(count, len(cells))
    return [cells[i * len(cells) // count].as_py() for i in range(count)]


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


def words_a_cell(cells: pa.ChunkedArray) -> float:
    """Return the mean number of words. In scripts without spaces, three letters count as one word."""
    texts = [text for text in sample(cells, 500) if text]
    if not texts:
        return 0.0
    words = 0.0
    for text in texts:
        words += max(len(text.split()), len(LETTER_WITHOUT_SPACES.findall(text)) / 3)
    return words / len(texts)


def distinct(cells: pa.ChunkedArray) -> int:
    """Count different cells; null is one of them."""
    return len(cells.unique())


def share_of_numbers(cells: pa.ChunkedArray) -> float:
    """Return the share of strings that are numbers: of a sample, and of all if most of the sample are."""
    sampled = sample(cells, 500)
    share = sum(map(parses, sampled)) / max(len(sampled), 1)
    if share < MOST:
        return share
    return sum(map(parses, cells.to_pylist())) / len(cells)


def numbers(cells: pa.ChunkedArray) -> tuple[np.ndarray, list[tuple[int, object]]]:
    """Return the cells as float64 (rows,), NaN where missing or bad, and the bad ones: (row, cell)."""
    if is_text(cells):
        x = np.array([_number(c) for c in cells.to_pylist()], dtype=np.float64)
    else:
        # whole numbers beyond 2^53 are rounded
        x = pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    missing = pc.is_null(cells, nan_is_null=not is_text(cells)).to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(~missing & ~np.isfinite(x))
    x[bad] = np.nan
    return x, [(int(row), cells[int(row)].as_py()) for row in bad]


def _number(cell: str | None) -> float:
    try:
        return float("nan") if cell is None else float(cell.replace(",", "").strip("$€£% "))
    except ValueError:
        return float("nan")


def parses(cell: str) -> bool:
    """Return whether a string is a finite number."""
    return bool(np.isfinite(_number(cell)))

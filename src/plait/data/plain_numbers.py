"""What plain columns and texts say of rows, as numbers, before anything is prepared. N rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plait.modalities.base import modalities
from plait.table.conventions.plain import as_texts
from plait.table.schema import Schema
from plait.table.table import Table
from plait.table.values import joined_texts

MAX_NUMBERS = 200  # of all columns together
FREQUENT = 20  # values of a category, and words of a text, that have a number of their own
LEAST_CELLS = 5  # that a value or a word is in


def plain_numbers(table: Table, schema: Schema, inputs: Iterable[str], rows: np.ndarray) -> np.ndarray:
    """Return numbers (N, numbers) of the inputs in these rows, NaN where one is missing.

    Numbers and dates count as they are. The most frequent categories and words are 1 where the cell has them,
    and 0 elsewhere. Other inputs are left out, and so are those whose cells their modality cannot read: it
    says so when it is fitted. The cells must have been read by their conventions.
    """
    columns: list[np.ndarray] = []
    for name in inputs:
        modality = schema[name].modality
        if modality is None or len(columns) >= MAX_NUMBERS:
            continue
        kind = modalities.find(modality)
        if name not in table.data.column_names or not (kind.plain or kind.is_text):
            continue
        cells = table.column(name).take(pa.array(rows))
        if kind.is_label or kind.is_text:
            columns += _frequent(_texts(cells, kind.is_text), split=kind.is_text)
        else:
            columns += _number(cells)
    return np.stack(columns[:MAX_NUMBERS], 1) if columns else np.zeros((len(rows), 0))


def _texts(cells: pa.ChunkedArray, is_text: bool) -> Sequence[str | None]:
    """Return each cell as a text, None for a missing one: (N,), or none at all for a type without texts."""
    try:
        return joined_texts(cells) if is_text else as_texts(cells).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return []


def _number(cells: pa.ChunkedArray) -> list[np.ndarray]:
    """Return numbers, or the time of dates, in float64: one array (N,), none for other types."""
    if pa.types.is_timestamp(cells.type) or pa.types.is_date(cells.type):
        cells = cells.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    kind = cells.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return []
    y = pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return [np.where(np.isfinite(y), y, np.nan)]


def _frequent(texts: Sequence[str | None], split: bool) -> list[np.ndarray]:
    """Return an array (N,) for each frequent text, or with `split` for each frequent word."""
    places: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        if text is None:
            continue
        for word in set(text.lower().split()) if split else (text,):
            places.setdefault(word, []).append(row)

    counts = Counter({word: len(of_word) for word, of_word in places.items()})
    columns = []
    for word, count in counts.most_common(FREQUENT):
        if LEAST_CELLS <= count < len(texts):
            column = np.zeros(len(texts))
            column[places[word]] = 1
            columns.append(column)
    return columns

"""Tell which cells are the same: rows that share a cell are not each other's negatives."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plait.table.values import is_text


def field(cells: pa.ChunkedArray, number: int) -> pa.ChunkedArray:
    """Return one column of a column of structs."""
    return pc.struct_field(cells, [number])


def identify(cells: pa.ChunkedArray) -> np.ndarray:
    """Return an id for each different cell, from 0, and -1 for null, (N,).

    Texts that differ only in case or in blanks at both ends count as the same cell.
    """
    if pa.types.is_dictionary(cells.type):
        # Its texts may differ in case or in blanks, so its own numbers do not tell cells apart.
        cells = pc.cast(cells, cells.type.value_type)
    if is_text(cells):
        trimmed = pc.utf8_trim_whitespace(cells)
        cells = pc.utf8_lower(trimmed)
    elif pa.types.is_nested(cells.type) or pa.types.is_large_binary(cells.type):
        # Arrow cannot encode these types as a dictionary.
        keys = [_key(cell) for cell in cells.to_pylist()]
        cells = pa.chunked_array([pa.array(keys, pa.binary())])

    encoded = pc.dictionary_encode(cells)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    ids = pc.fill_null(encoded.indices, -1)
    return np.asarray(ids, dtype=np.int64)


def _key(cell: object) -> bytes | None:
    """Return bytes that are equal for equal cells; None for null."""
    if cell is None or isinstance(cell, bytes):
        return cell
    text = json.dumps(cell, default=_json_of, sort_keys=True)
    return text.encode()


def _json_of(cell: object) -> str:
    """Return a string for a value in a cell that JSON cannot express."""
    return cell.hex() if isinstance(cell, bytes) else str(cell)


def components(ids: np.ndarray) -> np.ndarray:
    """Number the sets of rows that are linked by equal ids in any column, (N,), from ids (N, K).

    Where more than half of the rows are linked, each row is a set of its own: few cells differ at all.
    """
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    rows, columns = np.nonzero(ids >= 0)
    first_of_column = np.concatenate([[0], (ids.max(0) + 1).cumsum()[:-1]])
    nodes = len(ids) + first_of_column[columns] + ids[rows, columns]
    count = int(nodes.max(initial=len(ids))) + 1
    links = sparse.coo_array((np.ones(len(rows)), (rows, nodes)), shape=(count, count))
    _, of_node = connected_components(links, directed=False)
    of_row: np.ndarray = of_node[: len(ids)]
    if np.bincount(of_row).max() > len(ids) / 2:
        return np.arange(len(ids))
    return of_row

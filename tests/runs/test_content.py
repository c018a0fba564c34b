"""The hash of a column is that of all its cells, however they are cut into chunks."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from plait.runs.content import column_hash, media_hash

COLUMNS: dict[str, Any] = {
    "integers": pa.array([1, None, 3, 4, 5]),
    "floats": pa.array([1.5, None, float("nan"), 0.0, -0.5]),
    "bools": pa.array([True, None, False, True, True]),
    "texts": pa.array(["a", None, "", "bc", "é"]),
    "long texts": pa.array(["a", None, "", "bc", "é"], pa.large_string()),
    "text views": pa.array(["a", None, "", "bc", "é"], pa.string_view()),
    "categories": pa.array(["a", None, "b", "a", "c"]).dictionary_encode(),
    "bytes": pa.array([b"a", None, b"", b"bc", b"\0"]),
    "lists": pa.array([[1, 2], None, [], [3, None], [5]]),
    "lists of texts": pa.array([["a"], None, [], ["b", None], ["c", "d"]]),
    "vectors": pa.array([[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], pa.list_(pa.float32(), 2)),
    "structs": pa.array(
        [{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}, {"a": 3, "b": None}, {"a": 4, "b": ""}]
    ),
    "dates": pa.array([datetime.date(2026, 1, day) for day in range(1, 6)]),
    "times": pa.array([datetime.datetime(2026, 1, day) for day in range(1, 6)]),
    "decimals": pa.array([decimal.Decimal(n) for n in range(5)]),
    "maps": pa.array([[("a", 1)], None, [], [("b", 2)], [("c", 3)]], pa.map_(pa.string(), pa.int64())),
    "halves": pa.array(np.arange(5, dtype=np.float16)),
}


def hash_of(*chunks: pa.Array) -> str:
    return column_hash(pa.chunked_array(list(chunks)))


@pytest.mark.parametrize("name", COLUMNS)
def test_chunks_make_no_difference(name: str) -> None:
    array = COLUMNS[name]
    cut = hash_of(array.slice(0, 1), array.slice(1, 0), array.slice(1, 3), array.slice(4))
    assert cut == hash_of(array)
    assert hash_of(pa.concat_arrays([array.slice(1, 4)])) == hash_of(array.slice(1, 4))


@pytest.mark.parametrize("name", COLUMNS)
def test_every_cell_counts(name: str) -> None:
    """Each row is replaced by another one, two rows change places, and one is left out."""
    array = COLUMNS[name]
    orders = [[0, 1, 2, 3, 4], [0, 1, 2, 3], [4, 1, 2, 3, 0]]
    for row in range(5):
        order = list(range(5))
        order[row] = (row + 1) % 5
        orders.append(order)
    columns = [pa.concat_arrays([array.slice(row, 1) for row in order]) for order in orders]
    assert len(set(map(hash_of, columns))) == len({str(column.to_pylist()) for column in columns})


def test_a_change_behind_the_first_thousand_rows_is_noticed() -> None:
    cells = [f"text {i}" for i in range(5000)]
    changed = [*cells[:4000], "another text", *cells[4001:]]
    assert hash_of(pa.array(cells)) != hash_of(pa.array(changed))


def test_text_that_moves_from_one_cell_to_the_next_is_noticed() -> None:
    assert hash_of(pa.array(["ab", "c"])) != hash_of(pa.array(["a", "bc"]))
    assert hash_of(pa.array([["a", "b"], []])) != hash_of(pa.array([["a"], ["b"]]))
    assert hash_of(pa.array([1], pa.int64())) != hash_of(pa.array([1], pa.int32()))


def test_files_count_by_row() -> None:
    first, second = {b"1"}, {b"2"}
    assert media_hash([first, second]) == media_hash([{b"1"}, {b"2"}])
    assert (
        len(
            {
                media_hash(rows)
                for rows in ([first, second], [second, first], [first], [first | second, set()])
            }
        )
        == 4
    )

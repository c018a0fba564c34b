"""The rows of a table as an index keeps them: their plain columns, and an id for each."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from xxhash import xxh3_128

CONTENT = "row_content"  # the column with the hash of a row's cells, of tables without an id column
ROW = "row"  # the column that numbers the rows in the order in which they were added
FOLDER = "row_folder"  # the column with the folder that paths in a row start from
HIDDEN = (CONTENT, FOLDER)  # columns that are no part of an answer
VECTOR = "vector_"  # the names of the vectors' columns start with it


def plain_columns(table: pa.Table) -> pa.Table:
    """Return the columns that an index has beside vectors: all but bytes and nested ones.

    Dots in names become underscores, and names that the index needs get one more.
    """
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        kind = column.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            continue
        if pa.types.is_null(kind):
            column = column.cast(pa.string())
        columns[plain_name(name)] = column
    return pa.table(columns)


def plain_name(name: str) -> str:
    """Return what an index calls a plain column of a table."""
    plain = name.replace(".", "_")
    is_taken = plain in (ROW, *HIDDEN, "score", "_distance") or plain.startswith(VECTOR)
    return f"{plain}_" if is_taken else plain


def content_ids(table: pa.Table) -> pa.Array:
    """Return an id for each row of a table without an id column: a hash of its cells.

    Rows that are alike get a number behind it, so that they stay apart.
    """
    hashes = [xxh3_128() for _ in range(len(table))]
    for name in table.column_names:
        for row_hash, cell in zip(hashes, table.column(name), strict=True):
            row_hash.update(f"{name}={cell.as_py()!r};".encode("utf-8", "backslashreplace"))

    counts: Counter[str] = Counter()
    ids = []
    for row_hash in hashes:
        digest = row_hash.hexdigest()
        ids.append(f"{digest}-{counts[digest]}" if counts[digest] else digest)
        counts[digest] += 1
    return pa.array(ids, pa.string())

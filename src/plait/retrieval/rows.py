"""The rows of a table as an index keeps them: their plain columns, and an id for each."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from xxhash import xxh3_128

CONTENT = "row_content"  # the column with the hash of a row's cells, of tables without an id column
ROW = "row"  # the column that numbers the rows in the order in which they were added
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
        safe = name.replace(".", "_")
        if safe in (ROW, CONTENT, "score", "_distance") or safe.startswith(VECTOR):
            safe = f"{safe}_"
        columns[safe] = column
    return pa.table(columns)


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

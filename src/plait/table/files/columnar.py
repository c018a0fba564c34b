"""Columnar files: Parquet, Arrow, Feather and ORC. All that they hold is checked before it is used."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet

from plait.errors import TableError
from plait.table.files.content import Content, FileTable

ARROW_FILE = b"ARROW1"


def read_parquet(content: Content) -> FileTable:
    """Read a Parquet file."""
    with content.arrow_file() as file:
        parquet = pa.parquet.ParquetFile(file)
        return _checked(parquet.read())


def read_orc(content: Content) -> FileTable:
    """Read an ORC file."""
    with content.arrow_file() as file:
        orc = pa.orc.ORCFile(file)
        return _checked(orc.read())


def read_arrow(content: Content) -> FileTable:
    """Read an Arrow or Feather file: the file format, else that of streams."""
    if content.head.startswith(b"FEA1"):
        raise TableError(f"'{content.label}' is of the first version of Feather; save it again, as Parquet")
    # Feather's second version is Arrow's file format. Programs also call a stream .arrow.
    open_arrow = pa.ipc.open_stream
    if content.head.startswith(ARROW_FILE):
        open_arrow = pa.ipc.open_file
    with content.arrow_file() as file:
        return _checked(open_arrow(file).read_all())


def _checked(table: pa.Table) -> FileTable:
    """Return a table that holds what it promises. A damaged file may point anywhere in memory."""
    table.validate(full=True)
    return FileTable(table)

"""The formats of files: told by how a file begins, else by the ending of its name."""

from __future__ import annotations

import codecs
import zipfile
from collections.abc import Callable

import pyarrow as pa

from plait.errors import TableError
from plait.table.files.columnar import read_arrow, read_orc, read_parquet
from plait.table.files.content import ZIP, Content, FileTable
from plait.table.files.delimited import read_delimited
from plait.table.files.json import read_json
from plait.table.files.sheets import SHEETS, read_sheet

Reader = Callable[[Content], FileTable]

# A format's first bytes leave less doubt than the ending of a name.
BEGINNINGS: tuple[tuple[bytes, Reader], ...] = (
    (b"PAR1", read_parquet),
    (b"ARROW1", read_arrow),
    (b"FEA1", read_arrow),
    (b"ORC", read_orc),
    (ZIP, read_sheet),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", read_sheet),  # XLS of Excel 97 to 2003
)

ARROW_STREAM = b"\xff\xff\xff\xff"  # before each message of a stream

ENDINGS: dict[str, Reader] = {
    ".csv": read_delimited, ".tsv": read_delimited, ".tab": read_delimited, ".psv": read_delimited,
    ".txt": read_delimited, ".dat": read_delimited, ".data": read_delimited,
    ".json": read_json, ".jsonl": read_json, ".ndjson": read_json, ".geojson": read_json,
    ".parquet": read_parquet, ".pq": read_parquet,
    ".arrow": read_arrow, ".arrows": read_arrow, ".ipc": read_arrow, ".feather": read_arrow,
    ".orc": read_orc,
    **dict.fromkeys(SHEETS, read_sheet),
}  # fmt: skip

# What to do with files that plait does not read.
REMEDIES = {
    ".pkl": "unpickling runs code; save it as Parquet", ".pickle": "unpickling runs code; save it as Parquet",
    ".npy": "give columns names by pandas.DataFrame(numpy.load(...), columns=...)",
    ".npz": "give columns names by pandas.DataFrame(numpy.load(...)[...], columns=...)",
    ".dta": "use pandas.read_stata", ".sav": "use pandas.read_spss", ".sas7bdat": "use pandas.read_sas",
    ".h5": "use pandas.read_hdf", ".hdf5": "use pandas.read_hdf", ".xml": "use pandas.read_xml",
    ".html": "use pandas.read_html", ".htm": "use pandas.read_html",
    ".db": "use pandas.read_sql", ".sqlite": "use pandas.read_sql", ".sqlite3": "use pandas.read_sql",
    ".rds": "use write.csv in R", ".rda": "use write.csv in R", ".rdata": "use write.csv in R",
    ".tar": "unpack it", ".7z": "unpack it", ".rar": "unpack it", ".numbers": "export it as CSV",
}  # fmt: skip


def read_content(content: Content) -> FileTable:
    """Read a file of any format that plait knows. Raises `TableError` for another, or a damaged one."""
    reader = _reader(content)
    try:
        return reader(content)
    except TableError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, zipfile.BadZipFile) as error:
        kind = content.suffix[1:].upper() or "a table"
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise TableError(f"'{content.label}' cannot be read as {kind}: {reason}") from error


def _reader(content: Content) -> Reader:
    """Return what reads a file. Raises `TableError` for a format that plait does not read."""
    for beginning, reader in BEGINNINGS:
        if content.head.startswith(beginning) and not _is_text_of(content, beginning):
            return reader
    reader_by_ending = ENDINGS.get(content.suffix)
    # Programs write tables of tabs or of HTML that are called .xls, so that Excel opens them.
    is_text = b"\t" in content.head or b"<" in content.head[:20]
    if not content.suffix or (reader_by_ending is read_sheet and is_text):
        return _reader_of_text(content)
    if reader_by_ending is not None:
        return reader_by_ending
    endings = ", ".join(ENDINGS)
    remedy = REMEDIES.get(content.suffix, "convert it, or give it the ending that tells what it is")
    raise TableError(
        f"cannot tell what '{content.name}' is by its ending; plait reads {endings} and folders of class "
        f"folders; {remedy}"
    )


def _is_text_of(content: Content, beginning: bytes) -> bool:
    """Return whether a text happens to begin like another format: a column may be called ORC."""
    return beginning == b"ORC" and content.suffix != ".orc" and content.head.isascii()


def _reader_of_text(content: Content) -> Reader:
    """Return the reader of what has no telling name, such as standard input."""
    head = content.head.removeprefix(codecs.BOM_UTF8).lstrip()
    if head.startswith(ARROW_STREAM):
        return read_arrow
    if head[:1] in (b"{", b"["):
        return read_json
    if head[:20].lower().startswith((b"<html", b"<!doctype", b"<?xml", b"<table")):
        raise TableError(f"'{content.label}' is a web page or XML, no table; save it as CSV")
    # Text has zero bytes only in UTF-16 and UTF-32, where at least every second byte of ASCII is zero.
    is_wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not is_wide and 0 < head[:200].count(0) < 40:
        raise TableError(f"'{content.label}' is no text, and no other format that plait reads")
    return read_delimited

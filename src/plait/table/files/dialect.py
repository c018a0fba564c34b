"""The dialect of a delimited text: what stands between cells and around them, and where the table begins.

A dialect is good if it cuts all rows into equally many cells, and leaves no marks of another dialect in them:
`57,5;a` is one cell with a semicolon in it if cut at commas.
"""

from __future__ import annotations

import csv
import io
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

DELIMITERS = ",\t;|"  # the likelier ones first
QUOTES = "\"'"
RARE = "^~\x01"  # only if none of the others fits
SAMPLE = 1 << 17  # characters that a dialect is inferred from
ROWS = 400

PREFER_NO_PREAMBLE = 0.9
PREFER_NO_ESCAPE = 0.9999
LEAST = 0.7  # the score from which a text has several columns

NUMBER = re.compile(
    r"^[-+($€£¥ ]{0,3}\d[\d.,' \u00a0\u202f]*([eE][+-]?\d+)?\s*[^\d\s;|,]{0,4}$|^[+-]?[.,]\d+$"
)
DATE = re.compile(
    r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?$|^\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( .*)?$"
    r"|^\d{1,2}:\d{2}(:\d{2}.*)?$"
)
QUOTED = re.compile(r"""^\s*(["']).*\1\s*$""", re.DOTALL)
LONGEST_NUMBER = 64  # characters, of dates too
NAME = re.compile(r"^\w+$")


@dataclass(frozen=True)
class Dialect:
    """How cells are written.

    `quote` stands around cells, "" if nothing does. With `escapes` a backslash takes the meaning from the
    character behind it. With `spaced` a blank follows each delimiter, and does not belong to the cell.
    `preamble` counts the lines before the header, and `columns` the cells of a row. The delimiter " " stands
    for any number of blanks.
    """

    delimiter: str = ","
    quote: str = '"'
    escapes: bool = False
    spaced: bool = False
    preamble: int = 0
    columns: int = 1

    def rows(self, text: str) -> Iterator[list[str]]:
        """Return the rows of a text, one after the other, without blank lines."""
        for _, row in self.numbered_rows(text):
            yield row

    def numbered_rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Return rows with the number of the line, from 1, in which each begins."""
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=self.delimiter,
            quotechar=self.quote or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            escapechar="\\" if self.escapes else None,
            skipinitialspace=self.spaced,
        )
        before = csv.field_size_limit(sys.maxsize)
        try:
            line = 1
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + 1
        finally:
            csv.field_size_limit(before)


def infer_dialect(text: str, prior: str = "") -> Dialect:
    """Return the dialect of a text from its beginning. `prior` is the delimiter that its name promises."""
    sample = _sample(text)
    declared = re.match(r'"?sep=(.)"?\r?\n', sample, re.IGNORECASE)
    if declared:
        best = _best(sample[declared.end() :], declared[1])
        return replace(best, preamble=best.preamble + 1)

    best = _best(sample, DELIMITERS)
    if best.columns > 1:
        return best
    if prior and _best(sample, prior).columns > 1:
        return _best(sample, prior)
    rare = _best(sample, RARE)
    if rare.columns > 1:
        return rare
    return _blanks(sample) or _colons(sample) or _by_header(sample, prior) or best


def _sample(text: str) -> str:
    """Return the beginning of a text, up to the end of a line."""
    if len(text) <= SAMPLE:
        return text
    head = text[:SAMPLE]
    end = max(head.rfind("\n"), head.rfind("\r"))
    return head[: end + 1] if end > 0 else head


def _best(sample: str, delimiters: str) -> Dialect:
    """Return the dialect with the best score among those with one of these delimiters; else one column."""
    best, best_score = _single_column(sample), LEAST
    for dialect in _candidates(sample, delimiters):
        scored, score = _scored(sample, dialect)
        if score > best_score + 1e-9:
            best, best_score = scored, score
    return best


def _candidates(sample: str, delimiters: str) -> Iterator[Dialect]:
    """Return the dialects of which the sample has all marks, the likelier ones first."""
    for delimiter in delimiters:
        if delimiter not in sample:
            continue
        for quote in ('"', "'", ""):
            if (quote or '"') not in sample and quote != '"':  # double quotes may come behind the sample
                continue
            for escapes in (False, True):
                if escapes and not re.search(r"\\[\\\"'\r\n" + re.escape(delimiter) + "]", sample):
                    continue
                yield Dialect(delimiter, quote, escapes)
                if quote and f"{delimiter} {quote}" in sample:
                    yield Dialect(delimiter, quote, escapes, spaced=True)


def _scored(sample: str, dialect: Dialect) -> tuple[Dialect, float]:
    """Return a dialect with its columns and its preamble, and how well it cuts the sample, 0 to 1."""
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, row in dialect.numbered_rows(sample):
        rows.append(row)
        lines.append(line)
        if len(rows) == ROWS:
            break
    columns = _columns(rows)
    if columns < 2 or _is_prose(rows):
        return dialect, 0.0

    first = _first_row(rows, columns, dialect.delimiter in "\t|")
    first_line = lines[first]
    body = rows[first:]
    if first and not _may_be_preamble(rows, first, sample, dialect):
        first, first_line, body = 0, 1, rows
    if len(body[0]) == 1:
        return dialect, 0.0
    regular = [row for row in body if len(row) == columns]
    consistency = _consistency(body, columns)
    cleanliness = statistics.fmean(_cleanliness(row, dialect) for row in regular)
    score = consistency * cleanliness
    score *= PREFER_NO_PREAMBLE if first and not _is_comment(rows[0]) else 1
    score *= PREFER_NO_ESCAPE if dialect.escapes else 1
    score *= 1.0 if dialect.quote == '"' or '"' not in sample else 0.995
    score *= PREFER_NO_ESCAPE if dialect.spaced else 1
    return replace(dialect, columns=columns, preamble=first_line - 1), score


def _columns(rows: list[list[str]]) -> int:
    """Return the commonest number of cells; that of the first row, if it is as common."""
    if not rows:
        return 0
    counts = Counter(map(len, rows))
    most = max(counts.values())
    likeliest = [length for length, count in counts.items() if count == most]
    return len(rows[0]) if len(rows[0]) in likeliest else max(likeliest)


def _consistency(body: list[list[str]], columns: int) -> float:
    """Return the share of rows with this many cells. A header may have one cell less, or more."""
    regular = sum(len(row) == columns for row in body)
    if len(body) > 2 and len(body[0]) > 1 and abs(len(body[0]) - columns) == 1:
        regular += 1
    return regular / len(body)


def _first_row(rows: list[list[str]], columns: int, is_tabular: bool) -> int:
    """Return the number of the header: the first row with as many cells as most rows, or one cell less."""
    for number, row in enumerate(rows):
        is_comment = _is_comment(row) and any(not _is_comment(other) for other in rows[number + 1 :])
        if is_comment and not (len(row) == columns and _is_header_behind_hash(rows, number, is_tabular)):
            continue
        if len(row) == columns or _lacks_or_adds_one(row, columns):
            return number
    return 0


def _lacks_or_adds_one(row: list[str], columns: int) -> bool:
    """Return whether a header lacks the name of the first column, as in R, or ends in a delimiter."""
    if len(row) == columns + 1 and not row[-1]:
        row = row[:-1]
    elif len(row) != columns - 1:
        return False
    return len(row) > 1 and all(cell.strip() and not looks_typed(cell) for cell in row)


def _is_comment(row: list[str]) -> bool:
    return row[0].lstrip().startswith(("#", "%", "//"))


def _is_header_behind_hash(rows: list[list[str]], number: int, is_tabular: bool) -> bool:
    """Return whether a line such as `# id,name` names the columns.

    That is where what follows looks like data. A remark seldom has tabs, or three commas.
    """
    following = rows[number + 1 : number + 2]
    if not following or _is_comment(following[0]):
        return False
    return is_tabular or len(rows[number]) > 3 or any(map(looks_typed, following[0]))


def _may_be_preamble(rows: list[list[str]], first: int, sample: str, dialect: Dialect) -> bool:
    """Return whether the rows before the header are remarks.

    A single word may be the name of the only column. Prose has a blank behind each comma.
    """
    before, header, body = rows[:first], rows[first], rows[first + 1 :]
    if all(_is_comment(row) for row in before):
        return True
    is_data = any(looks_typed(cell) for cell in header)
    if len(body) < 2 or (len(set(header)) < len(header) and not is_data):
        return False
    if sum(len(row) == len(header) for row in body) < 0.9 * len(body):
        return False
    if all(cell.startswith(" ") for cell in header[1:]):
        return False
    lines = sample.splitlines()
    if _is_cut_otherwise([line for line in lines if line.strip()][: first + 20], dialect):
        return False
    has_blank_line = any(not line.strip(dialect.delimiter + " \t") for line in lines[: first + 1])
    return has_blank_line or not all(NAME.match(row[0]) for row in before if len(row) == 1)


def _is_cut_otherwise(lines: list[str], dialect: Dialect) -> bool:
    """Return whether another delimiter stands in the first line, and at least as often in all others."""
    for delimiter in DELIMITERS:
        count = lines[0].count(delimiter)
        if delimiter != dialect.delimiter and count and all(line.count(delimiter) >= count for line in lines):
            return True
    return False


def _is_prose(rows: list[list[str]]) -> bool:
    """Return whether all delimiters are commas of sentences: with a blank behind, and words around them."""
    for row in rows:
        if any(not cell.startswith(" ") or looks_typed(cell) for cell in row[1:]):
            return False
    return any(len(cell.split()) > 3 or cell.endswith((".", "!", "?")) for cell in rows[0])


def looks_typed(cell: str) -> bool:
    """Return whether a cell is a number, a date or a time: names of columns seldom are."""
    cell = cell.strip()
    return len(cell) <= LONGEST_NUMBER and bool(NUMBER.match(cell) or DATE.match(cell))


def _cleanliness(row: list[str], dialect: Dialect) -> float:
    """Return the share of cells without marks of another dialect."""
    return statistics.fmean(_is_clean(cell, dialect) for cell in row)


def _is_clean(cell: str, dialect: Dialect) -> float:
    if not cell or looks_typed(cell):
        return 1.0
    if QUOTED.match(cell) and len(cell) > 1:
        return 0.2
    if re.search(rf"\\[{dialect.quote or QUOTES}]", cell):
        return 0.2
    stripped = cell.strip()
    if stripped[:1] in QUOTES or (stripped[-1:] in QUOTES and not stripped[-2:-1].isdigit()):
        return 0.5
    for delimiter in DELIMITERS:
        if delimiter != dialect.delimiter and re.search(rf"\S\{delimiter}\S", cell):
            return 0.7 if delimiter == "," else 0.5
    return 0.9 if '""' in cell else 1.0


def _single_column(sample: str) -> Dialect:
    """Return the dialect of a text of one column, whose cells may be quoted. Leading comments are skipped."""
    lines = sample.splitlines()
    preamble = _comments(lines)
    if any(line.startswith(("#", "%")) for line in lines[preamble:]) or preamble == len(lines):
        preamble = 0
    filled = [line for line in lines if line.strip()]
    quoted = any(line.startswith('"') for line in filled)
    return Dialect("\x1f", '"' if quoted else "", preamble=preamble)


def _blanks(sample: str) -> Dialect | None:
    """Return the dialect of columns between blanks, if all rows have as many and one column has numbers.

    Two words a line may be names of persons, and `56 999` may be one number.
    """
    lines = sample.splitlines(keepends=True)
    preamble = _comments(lines)
    text = blanks_to_tabs("".join(lines[preamble:]))
    rows = list(Dialect("\t").rows(text))[:ROWS]
    if len(rows) < 3 or len({len(row) for row in rows[1:]}) > 1:
        return None
    columns = len(rows[1])
    if columns < 2 or columns - len(rows[0]) not in (0, 1):
        return None
    has_numbers = [all(looks_typed(cell) for cell in column) for column in zip(*rows[1:], strict=True)]
    if not any(has_numbers):
        return None
    if columns == 2 and all(len(row[1]) == 3 or ":" in row[1] for row in rows[1:]) and has_numbers[0]:
        return None
    return Dialect(" ", columns=columns, preamble=preamble)


def blanks_to_tabs(text: str) -> str:
    """Write one tab for all blanks between two cells. Blanks in quotes stay."""
    text = re.sub(r"(?m)^[ \t]+|[ \t]+$", "", text)
    return re.sub(r'("[^"\r\n]*(?:""[^"\r\n]*)*")|[ \t]+', lambda match: match[1] or "\t", text)


def _colons(sample: str) -> Dialect | None:
    """Return the dialect of columns between colons, if all rows have equally many, at least three."""
    scored, score = _scored(sample, Dialect(":", '"'))
    rows = list(scored.rows(sample))[:ROWS]
    is_regular = score > 0 and all(len(row) == scored.columns for row in rows)
    has_times = any(DATE.match(line.strip()) for line in sample.splitlines()[1:])
    has_pairs = all(" " in row[0].strip() for row in rows)  # such as 1 5:0.5 7:0.7
    if not is_regular or scored.columns < 3 or len(rows) < 2 or has_times or has_pairs or "://" in sample:
        return None
    return scored


def _by_header(sample: str, prior: str) -> Dialect | None:
    """Return the dialect that the header asks for, where rows do not agree: errors can name them then."""
    lines = sample.splitlines()
    preamble = _comments(lines)
    filled = [line for line in lines[preamble:] if line.strip() and not line.startswith("#")]
    plain = re.sub(r'"[^"]*"', "", filled[0]) if filled else ""
    for delimiter in (prior, *DELIMITERS):
        names = plain.split(delimiter) if delimiter else [plain]
        if len(names) < 2 or any(name.startswith(" ") for name in names[1:]):
            continue
        if all(delimiter in line for line in filled[1:]):
            return Dialect(delimiter, columns=len(names), preamble=preamble)
    return None


def _comments(lines: list[str]) -> int:
    """Return how many of the first lines are comments."""
    count = 0
    while count < len(lines) and lines[count].startswith(("#", "%")):
        count += 1
    return count

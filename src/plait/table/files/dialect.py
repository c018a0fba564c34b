"""The dialect of a delimited text: what stands between cells and around them, and where the table begins.

A dialect is good if it cuts all rows into equally many cells, and leaves no marks of another dialect in them:
`57,5;a` is one cell with a semicolon in it if cut at commas.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

DELIMITERS = ",\t;|"  # the likelier ones first
QUOTES = "\"'"
RARE = "^~\x01"  # only if none of the others fits
SAMPLE = 1 << 17  # characters that a dialect is inferred from
ROWS = 400

# Factors of a score. They decide between dialects that cut a text equally well.
PREFER_NO_PREAMBLE = 0.9
PREFER_NO_ESCAPE = 0.9999
PREFER_A_NAME_FOR_EACH = 0.999  # of the columns; an index may have none
PREFER_DOUBLE_QUOTES = 0.995
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

COMMENTS = ("#", "%")  # how R, MATLAB and ARFF begin a remark
ONE_COLUMN = "\x1f"  # a delimiter that no text has: a row is one cell


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
    # Excel reads and writes such a line, where the delimiter differs from the computer's locale.
    declared = re.match(r'"?sep=(.)"?\r?\n', sample, re.IGNORECASE)
    if declared:
        best = _best(sample[declared.end() :], declared[1])
        return replace(best, preamble=best.preamble + 1)

    best = _best(sample, DELIMITERS)
    if best.columns > 1:
        return best
    if prior:
        promised = _best(sample, prior)
        if promised.columns > 1:
            return promised
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
        escaped = re.search(r"\\[\\\"'\r\n" + re.escape(delimiter) + "]", sample)
        for quote in _possible_quotes(sample):
            is_spaced = bool(quote) and f"{delimiter} {quote}" in sample
            for escapes in (False, True) if escaped else (False,):
                yield Dialect(delimiter, quote, escapes)
                if is_spaced:
                    yield Dialect(delimiter, quote, escapes, spaced=True)


def _possible_quotes(sample: str) -> list[str]:
    """Return the quotes that cells may have. Double ones may come behind the sample only."""
    quotes = ['"']
    if "'" in sample:
        quotes.append("'")
    if '"' in sample:
        quotes.append("")
    return quotes


# --- score -----------------------------------------------------------------------------------------------


def _scored(sample: str, dialect: Dialect) -> tuple[Dialect, float]:
    """Return a dialect with its columns and its preamble, and how well it cuts the sample, 0 to 1."""
    lines, rows = _first_rows(sample, dialect)
    columns = _columns(rows)
    if columns < 2 or _is_prose(rows):
        return dialect, 0.0

    first = _first_row(rows, columns, dialect.delimiter in "\t|")
    preamble = lines[first] - 1
    if first and not _may_be_preamble(rows, first, sample, dialect):
        first, preamble = 0, 0
    body = rows[first:]
    if len(body[0]) == 1:
        return dialect, 0.0

    score = _consistency(body, columns) * _cleanliness(body, columns, dialect)
    if first and not _is_comment(rows[0]):
        score *= PREFER_NO_PREAMBLE
    if len(body[0]) != columns:
        score *= PREFER_A_NAME_FOR_EACH
    return replace(dialect, columns=columns, preamble=preamble), _lowered_if_rare(score, dialect, sample)


def _lowered_if_rare(score: float, dialect: Dialect, sample: str) -> float:
    """Return a score, a little lower for a dialect that few programs write."""
    if dialect.escapes:
        score *= PREFER_NO_ESCAPE
    if dialect.quote != '"' and '"' in sample:
        score *= PREFER_DOUBLE_QUOTES
    if dialect.spaced:
        score *= PREFER_NO_ESCAPE
    return score


def _first_rows(sample: str, dialect: Dialect) -> tuple[list[int], list[list[str]]]:
    """Return the first rows of a sample, and before them the line in which each begins."""
    lines: list[int] = []
    rows: list[list[str]] = []
    for line, row in itertools.islice(dialect.numbered_rows(sample), ROWS):
        lines.append(line)
        rows.append(row)
    return lines, rows


def _columns(rows: list[list[str]]) -> int:
    """Return the commonest number of cells; that of the first row, if it is as common."""
    if not rows:
        return 0
    counts = Counter(map(len, rows))
    highest = max(counts.values())
    if counts[len(rows[0])] == highest:
        return len(rows[0])
    return max(length for length, count in counts.items() if count == highest)


def _consistency(body: list[list[str]], columns: int) -> float:
    """Return the share of rows with this many cells. A header may have one cell less, or more."""
    regular = list(map(len, body)).count(columns)
    if len(body) > 2 and len(body[0]) > 1 and abs(len(body[0]) - columns) == 1:
        regular += 1
    return regular / len(body)


def _cleanliness(body: list[list[str]], columns: int, dialect: Dialect) -> float:
    """Return the mean share of clean cells in rows with this many cells."""
    shares = []
    for row in body:
        if len(row) == columns:
            shares.append(statistics.fmean(_is_clean(cell, dialect) for cell in row))
    return statistics.fmean(shares)


def _is_clean(cell: str, dialect: Dialect) -> float:
    """Return 1 for a cell without marks of another dialect, and less the surer such marks are."""
    if not cell or looks_typed(cell):
        return 1.0
    if _is_quoted_or_escaped(cell, dialect):
        return 0.2
    if _has_quote_at_edge(cell.strip()):
        return 0.5
    foreign = _foreign_delimiter(cell, dialect)
    if foreign:
        # Texts have commas; tabs, semicolons and bars between words are rare in them.
        return 0.7 if foreign == "," else 0.5
    return 0.9 if '""' in cell else 1.0


def _is_quoted_or_escaped(cell: str, dialect: Dialect) -> bool:
    """Return whether a cell still has quotes around it, or a backslash before a quote."""
    if len(cell) > 1 and QUOTED.match(cell):
        return True
    return bool(re.search(rf"\\[{dialect.quote or QUOTES}]", cell))


def _has_quote_at_edge(cell: str) -> bool:
    """Return whether a quote begins or ends a cell. Behind a digit it stands for feet or inches."""
    if cell[:1] in QUOTES:
        return True
    return cell[-1:] in QUOTES and not cell[-2:-1].isdigit()


def _foreign_delimiter(cell: str, dialect: Dialect) -> str:
    """Return a delimiter of another dialect that stands between two characters of a cell; "" if none."""
    for delimiter in DELIMITERS:
        if delimiter != dialect.delimiter and re.search(rf"\S\{delimiter}\S", cell):
            return delimiter
    return ""


def _is_prose(rows: list[list[str]]) -> bool:
    """Return whether all delimiters are commas of sentences: with a blank behind, and words around them."""
    for row in rows:
        if not begin_with_blank(row[1:]) or any(map(looks_typed, row[1:])):
            return False
    return any(map(_ends_or_is_long, rows[0]))


def _ends_or_is_long(cell: str) -> bool:
    """Return whether a cell is longer than a name, or ends as a sentence does."""
    return len(cell.split()) > 3 or cell.endswith((".", "!", "?"))


def begin_with_blank(cells: Sequence[str]) -> bool:
    """Return whether all cells begin with a blank; so do none."""
    return all(cell.startswith(" ") for cell in cells)


def looks_typed(cell: str) -> bool:
    """Return whether a cell is a number, a date or a time: names of columns seldom are."""
    cell = cell.strip()
    return len(cell) <= LONGEST_NUMBER and bool(NUMBER.match(cell) or DATE.match(cell))


# --- what stands above a table ---------------------------------------------------------------------------


def _first_row(rows: list[list[str]], columns: int, is_tabular: bool) -> int:
    """Return the number of the header: the first row with as many cells as most rows, or one cell less."""
    for number, row in enumerate(rows):
        fits = len(row) == columns
        if _is_comment(row) and not all(map(_is_comment, rows[number + 1 :])):
            fits = fits and _is_header_behind_hash(rows, number, is_tabular)
        elif _lacks_or_adds_one(row, columns):
            fits = True
        if fits:
            return number
    return 0


def _lacks_or_adds_one(row: list[str], columns: int) -> bool:
    """Return whether a header lacks the name of the first column, as in R, or ends in a delimiter."""
    if len(row) == columns + 1 and not row[-1]:
        row = row[:-1]
    elif len(row) != columns - 1:
        return False
    return len(row) > 1 and all(map(_may_be_name, row))


def _may_be_name(cell: str) -> bool:
    return bool(cell.strip()) and not looks_typed(cell)


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
    if all(map(_is_comment, before)):
        return True
    if not _are_table(header, body) or begin_with_blank(header[1:]):
        return False

    # `id;text` may stand above texts that all have one comma: that is a header of another dialect.
    lines = sample.splitlines()
    filled = list(filter(str.strip, lines))
    if _is_cut_otherwise(filled[: first + 20], dialect):
        return False
    return _has_blank_line(lines[: first + 1], dialect) or not _are_names(before)


def _are_table(header: list[str], body: list[list[str]]) -> bool:
    """Return whether rows may be a table below remarks: nearly all are as long as their first.

    That one has data, or names of which no two are the same.
    """
    has_repeated_name = len(set(header)) < len(header)
    if has_repeated_name and not any(map(looks_typed, header)):
        return False
    as_long = list(map(len, body)).count(len(header))
    return len(body) >= 2 and as_long >= 0.9 * len(body)


def _is_cut_otherwise(lines: list[str], dialect: Dialect) -> bool:
    """Return whether another delimiter stands in the first line, and at least as often in all others."""
    for delimiter in DELIMITERS:
        counts = [line.count(delimiter) for line in lines]
        if delimiter != dialect.delimiter and 0 < counts[0] == min(counts):
            return True
    return False


def _has_blank_line(lines: list[str], dialect: Dialect) -> bool:
    """Return whether a line is blank. Spreadsheets write all delimiters of an empty row."""
    blanks = dialect.delimiter + " \t"
    return not all(line.strip(blanks) for line in lines)


def _are_names(rows: list[list[str]]) -> bool:
    """Return whether all rows of one cell are single words, as names of a column are; so are none."""
    return all(NAME.match(row[0]) for row in rows if len(row) == 1)


def _comments(lines: list[str]) -> int:
    """Return how many of the first lines are comments."""
    count = 0
    while count < len(lines) and lines[count].startswith(COMMENTS):
        count += 1
    return count


# --- rarer dialects --------------------------------------------------------------------------------------


def _single_column(sample: str) -> Dialect:
    """Return the dialect of a text of one column, whose cells may be quoted. Leading comments are skipped."""
    lines = sample.splitlines()
    preamble = _comments(lines)
    # A text of tweets has hashes everywhere: they are no comments then.
    if preamble == len(lines) or any(line.startswith(COMMENTS) for line in lines[preamble:]):
        preamble = 0
    is_quoted = any(line.startswith('"') for line in lines)
    return Dialect(ONE_COLUMN, '"' if is_quoted else "", preamble=preamble)


def _blanks(sample: str) -> Dialect | None:
    """Return the dialect of columns between blanks, if all rows have as many and one column has numbers."""
    lines = sample.splitlines(keepends=True)
    preamble = _comments(lines)
    text = blanks_to_tabs("".join(lines[preamble:]))
    rows = list(Dialect("\t").rows(text))[:ROWS]
    if len(rows) < 3:
        return None
    header, body = rows[0], rows[1:]
    columns = len(body[0])
    if columns < 2 or len(set(map(len, body))) > 1:
        return None
    if len(header) not in (columns, columns - 1):
        return None
    return Dialect(" ", columns=columns, preamble=preamble) if _has_numbers(body) else None


def _has_numbers(body: list[list[str]]) -> bool:
    """Return whether rows between blanks have a column of numbers, and are no numbers with a blank in them.

    Two words a line may be names of persons. `56 999` may be one number, and `2023-02-05 13:28` one time.
    """
    columns = list(zip(*body, strict=True))
    are_typed = []
    for column in columns:
        are_typed.append(all(map(looks_typed, column)))
    if len(columns) == 2 and are_typed[0]:
        return not all(len(cell) == 3 or ":" in cell for cell in columns[1])
    return any(are_typed)


def blanks_to_tabs(text: str) -> str:
    """Write one tab for all blanks between two cells. Blanks in quotes stay."""
    text = re.sub(r"(?m)^[ \t]+|[ \t]+$", "", text)
    return re.sub(r'("[^"\r\n]*(?:""[^"\r\n]*)*")|[ \t]+', lambda match: match[1] or "\t", text)


def _colons(sample: str) -> Dialect | None:
    """Return the dialect of columns between colons, if all rows have equally many, at least three."""
    scored, score = _scored(sample, Dialect(":", '"'))
    rows = list(scored.rows(sample))[:ROWS]
    if score == 0 or scored.columns < 3 or len(rows) < 2:
        return None
    if set(map(len, rows)) != {scored.columns}:
        return None

    # Times, addresses of the web, and pairs such as `1 5:0.5 7:0.7` have colons within their cells.
    has_times = any(DATE.match(line.strip()) for line in sample.splitlines()[1:])
    has_pairs = all(" " in row[0].strip() for row in rows)
    return None if has_times or has_pairs or "://" in sample else scored


def _by_header(sample: str, prior: str) -> Dialect | None:
    """Return the dialect that the header asks for, where rows do not agree: errors can name them then."""
    lines = sample.splitlines()
    preamble = _comments(lines)
    filled = [line for line in lines[preamble:] if line.strip() and not line.startswith("#")]
    if not filled:
        return None
    header = re.sub(r'"[^"]*"', "", filled[0])
    for delimiter in (prior, *DELIMITERS):
        names = header.split(delimiter) if delimiter else []
        if len(names) > 1 and _all_have(delimiter, names, filled[1:]):
            return Dialect(delimiter, columns=len(names), preamble=preamble)
    return None


def _all_have(delimiter: str, names: list[str], lines: list[str]) -> bool:
    """Return whether a delimiter stands in all lines, and is no comma of a sentence in the header."""
    if any(name.startswith(" ") for name in names[1:]):
        return False
    return all(delimiter in line for line in lines)

"""The encoding of a text file: told by its first bytes, else by UTF-8's rules, else guessed by chardet."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

import numpy as np

from plait.errors import TableError

# A longer mark first: that of UTF-32 begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# What spreadsheets, databases and old systems write. Rarer encodings would win over these by chance.
LIKELY = (
    "cp1252", "mac_roman", "cp1250", "iso8859_2", "cp1251", "koi8_r", "koi8_u", "mac_cyrillic", "cp866",
    "iso8859_5", "gb18030", "big5hkscs", "cp932", "shift_jis_2004", "euc_jis_2004", "cp949", "cp1253",
    "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874", "cp850",
)  # fmt: skip

TYPOGRAPHIC = frozenset("“”‘’‚„–—…•·«»‹›€£¥¢©®™°±²³½¼¾×÷§¶†‡\u00a0")

# Two to four bytes, of which the first says how many follow.
UTF8_CHARACTER = re.compile(rb"[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|\xf0[\x80-\xbf]{3}")

ACCENTED = re.compile("[À-ÖØ-ïñ-öø-ýÿ]")
CAPITAL_INSIDE = re.compile("[a-zß-ÿ][À-Þ]")

WORD = re.compile(r"[^\W\d_]+")
LATIN = re.compile(r"[A-Za-z]")
OTHER_SCRIPT = re.compile(r"[\u0370-\u1cff\u2c80-\uffdc]")

SAMPLE = 1 << 18  # bytes that an encoding is guessed from
FEW_DAMAGED = 0.02  # the share of bytes beyond ASCII that may be wrong in a file that is UTF-8


@dataclass(frozen=True)
class Text:
    """A file's text as UTF-8 without a byte order mark, and what the user should know of its encoding."""

    data: bytes
    notes: tuple[str, ...] = ()


def to_utf8(data: bytes, name: str) -> Text:
    """Return the text of a file, which may be in any encoding.

    Bytes that are no character in a file that is UTF-8 otherwise become U+FFFD, and a note says so. Raises
    `TableError` for what is no text.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _with_mark(data[len(mark) :], encoding, name)
    encoding = _wide_encoding(data)
    if encoding:
        return _converted(data, encoding, name)
    # The encoding of Japanese mail is ASCII, with escapes before and behind each word.
    if b"\x1b$" in data[:SAMPLE] or b"\x1b(J" in data[:SAMPLE]:
        return _converted(data, "iso2022_jp", name)
    if data.isascii():
        return Text(data)
    try:
        data.decode("utf-8")
        return Text(data)
    except UnicodeDecodeError as error:
        if _is_damaged_utf8(data):
            return _repaired(data, name, error.start)
    return _converted(data, _guessed(data), name)


def _with_mark(data: bytes, encoding: str, name: str) -> Text:
    """Return the text behind a byte order mark, which leaves no doubt."""
    if encoding == "utf-8":
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            return _repaired(data, name, error.start)
        return Text(data)
    return Text(_decoded(data, encoding, name).encode())


def _converted(data: bytes, encoding: str, name: str) -> Text:
    """Return text in an encoding that was guessed, and a note that names it."""
    note = f"{name} is not UTF-8; it was read as {encoding}. If letters look wrong, save it as UTF-8"
    return Text(_decoded(data, encoding, name).encode(), (note,))


def _decoded(data: bytes, encoding: str, name: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise TableError(
            f"'{name}' looks like {encoding}, but byte {error.start} does not fit; save it as UTF-8"
        ) from error


def _repaired(data: bytes, name: str, first: int) -> Text:
    """Return UTF-8 with U+FFFD for bytes that are no character, and a note that names the first line."""
    text = data.decode("utf-8", "replace")
    count = text.count("\ufffd") - data.count("\ufffd".encode())
    line = data.count(b"\n", 0, first) + 1
    bytes_were = "byte is not UTF-8 and was" if count == 1 else "bytes are not UTF-8 and were"
    note = f"{name}: {count:,} {bytes_were} read as \ufffd; the first is in line {line}"
    return Text(text.encode(), (note,))


def _wide_encoding(data: bytes) -> str:
    """Return which UTF-16 or UTF-32 a text without a mark is in; "" if in neither.

    Tables have line ends and digits, of which the upper bytes are zero.
    """
    sample = np.frombuffer(data[: SAMPLE & ~3], dtype=np.uint8)
    sample = sample[: len(sample) // 4 * 4]
    if len(sample) < 4 or (sample == 0).mean() < 0.05:
        return ""
    zeros = (sample.reshape(-1, 4) == 0).mean(axis=0)
    if zeros[2] > 0.9 and zeros[3] > 0.9:
        return "utf-32-le"
    if zeros[0] > 0.9 and zeros[1] > 0.9:
        return "utf-32-be"
    even, odd = zeros[0::2].mean(), zeros[1::2].mean()
    if even < 0.02 < odd:
        return "utf-16-le"
    if odd < 0.02 < even:
        return "utf-16-be"
    return ""


def _is_damaged_utf8(data: bytes) -> bool:
    """Return whether nearly all bytes beyond ASCII form characters of UTF-8. Other encodings have few."""
    beyond_ascii = len(re.findall(rb"[\x80-\xff]", data))
    characters = UTF8_CHARACTER.findall(data)
    wrong = beyond_ascii - sum(map(len, characters))
    return beyond_ascii > 50 and wrong <= FEW_DAMAGED * beyond_ascii


def _guessed(data: bytes) -> str:
    """Return the likeliest encoding of a text that is not UTF-8. One that decodes all of it always exists.

    A text in which only quotes, dashes and signs are not ASCII tells a guesser of languages nothing.
    """
    import chardet

    sample = data
    if len(data) > SAMPLE:
        # A name with an accent may come late in a long file of ASCII.
        sample = b"\n".join(line for line in data.splitlines() if not line.isascii())[:SAMPLE]
    if _has_only_signs(sample, "cp1252") or _has_few_accents(sample):
        return "cp1252"
    if _has_only_signs(sample, "mac_roman"):
        return "mac_roman"

    guess = chardet.detect(sample, include_encodings=LIKELY, compat_names=False)
    guessed = str(guess["encoding"] or "cp1252")
    # No word is written in two scripts: the last letter of Zoë is no Cyrillic one.
    if _mixes_scripts(sample.decode(guessed, "replace")):
        guessed = "cp1252"
    # Several encodings may read the same; most files of old systems are in this one.
    for encoding in ("cp1252", guessed):
        try:
            if data.decode(encoding) == data.decode(guessed):
                return encoding
        except UnicodeDecodeError:
            continue
    return "latin-1"


def _has_few_accents(sample: bytes) -> bool:
    """Return whether all that is not ASCII in a text are one or two letters of Western Europe, in words.

    From so little no guesser tells Muñoz from Muńoz.
    """
    if len({byte for byte in sample if byte > 127}) > 2:
        return False
    text = sample.decode("cp1252", "replace")
    return bool(ACCENTED.sub("", text).isascii() and not CAPITAL_INSIDE.search(text))


def _mixes_scripts(text: str) -> bool:
    """Return whether most words with letters of another script than Latin have Latin letters, too."""
    words = [word for word in WORD.findall(text) if OTHER_SCRIPT.search(word)]
    mixed = [word for word in words if LATIN.search(word)]
    return 2 * len(mixed) > len(words)


def _has_only_signs(sample: bytes, encoding: str) -> bool:
    """Return whether all that is not ASCII in a text are typographic signs, if it is in this encoding."""
    beyond_ascii = bytes(byte for byte in set(sample) if byte > 127)
    signs = beyond_ascii.decode(encoding, "replace")
    return TYPOGRAPHIC.issuperset(signs)

"""People reading the prompts of a telephone exchange, English and Italian, 8 kHz, with what they read.
CC-BY-SA-3.0, CC-BY-3.0, GPL-2.

They come as Debian's packages `asterisk-core-sounds-*` and `asterisk-prompt-it-menardi-wav`, fetched
with its package client. One reader for each language, and a second one of the Italian prompts, whose
transcripts are those of the same keys: nearly, but not always, word for word. `split` keeps a prompt's
key on one side in all languages; `reader_split` keeps the second Italian reader for the test.
Recordings of sounds that are not words have no transcript.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pyarrow as pa

from plait.samples.base import side, unpack_debian
from plait.table.write import write

READERS = {"en": "Allison Smith", "it": "Carlo Flora"}


SECOND = ("it", "asterisk-prompt-it-menardi-wav", "it_IT_f_Menardi", "Menardi")


TARGET = "language"


ABOUT = "spoken prompts and what was read"


INPUTS = {"speech": ["speech"], "transcript": ["transcript"]}


OVERRIDES = (
    "split.column=split",
    "columns.reader.role=ignored",
    "columns.reader_split.role=ignored",
    "columns.key.role=id",
    "columns.transcript.modality=text",
)


def fetch(cache: Path) -> Path:
    """The table `prompts.csv` in the cache folder, made on the first call. Paths in it begin in the
    cache folder.

    Raises `TableError` where Debian's package client is missing or its lists are too old to find the
    packages.
    """
    table = cache / "prompts.csv"
    if not table.is_file():
        names = [f"asterisk-core-sounds-{language}{kind}" for language in READERS for kind in ("", "-wav")]
        unpack_debian([*names, SECOND[1]], cache)
        write(pa.Table.from_pylist(build(cache)), table)
    return table


def build(cache: Path) -> list[dict[str, str]]:
    """One row a recording: its prompt's key, language, reader, file, transcript, and both splits."""
    sounds = cache / "usr" / "share" / "asterisk" / "sounds"
    texts = {language: _transcripts(cache, language) for language in READERS}
    folders = [
        (language, reader, path)
        for language, reader in READERS.items()
        for path in sorted(sounds.glob(f"{language}_*"))
        if path.name != SECOND[2]
    ]
    rows = []
    for language, reader, folder in [*folders, (SECOND[0], SECOND[3], sounds / SECOND[2])]:
        for file in sorted(folder.rglob("*.wav")):
            key = str(file.relative_to(folder).with_suffix(""))
            text = texts[language].get(key, "")
            if text and not re.match(r"[\[(<]", text):  # such are sounds: <beep>
                rows.append(
                    {
                        "key": key,
                        "language": language,
                        "reader": reader,
                        "speech": str(file.relative_to(cache)),
                        "transcript": text,
                        "split": side(key),
                        "reader_split": "test" if reader == SECOND[3] else "train",
                    }
                )
    return rows


def _transcripts(cache: Path, language: str) -> dict[str, str]:
    (path,) = (cache / "usr" / "share" / "doc").glob(
        f"asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    )
    found = {}
    for line in gzip.decompress(path.read_bytes()).decode("utf-8-sig").splitlines():
        key, colon, text = line.partition(":")
        if colon and not line.startswith(";"):
            found[key.strip()] = re.sub(r"\s+", " ", text).strip()
    return found

"""Recordings of people who read the prompts of a telephone exchange, with transcripts.

They are English, Spanish, French, Italian and Russian, at 8 kHz. Licenses: CC-BY-SA-3.0, CC-BY-3.0, GPL-2.
They come as Debian's packages `asterisk-core-sounds-*` and `asterisk-prompt-it-menardi-wav`, fetched with its
package client.

There is one reader for each language, and a second reader of the Italian prompts. The second reader's
transcripts are those of the same keys: nearly, but not always, word for word. `split` keeps a prompt's key on
one side in all languages. `reader_split` keeps the second Italian reader for the test. Recordings without
words are left out.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pyarrow as pa

from plait.samples.base import side, unpack_debian
from plait.table.write import write

READERS = {
    "en": "Allison Smith",
    "es": "Allison Smith",
    "fr": "June Wallack",
    "it": "Carlo Flora",
    "ru": "ivrvoice.ru",
}


# the second Italian reader, and where her recordings are
SECOND_READER = "Menardi"
SECOND_PACKAGE = "asterisk-prompt-it-menardi-wav"
SECOND_FOLDER = "it_IT_f_Menardi"


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
    """Return the table `prompts-languages.csv` in the cache folder, made on the first call.

    Paths in it are relative to the cache folder. Raises `TableError` if Debian's package client is missing,
    or its lists are too old to find the packages.
    """
    table = cache / "prompts-languages.csv"
    if table.is_file():
        return table
    packages = []
    for language in READERS:
        packages += [f"asterisk-core-sounds-{language}", f"asterisk-core-sounds-{language}-wav"]
    unpack_debian([*packages, SECOND_PACKAGE], cache)
    write(pa.Table.from_pylist(build(cache)), table)
    return table


def build(cache: Path) -> list[dict[str, str]]:
    """Return the rows of the table, one for each recording.

    A row has the prompt's key, language, reader, file and transcript, and both splits.
    """
    sounds = cache / "usr" / "share" / "asterisk" / "sounds"
    texts = {language: _transcripts(cache, language) for language in READERS}
    rows = []
    for language, reader, folder in _folders(sounds):
        for file in sorted(folder.rglob("*.wav")):
            key = str(file.relative_to(folder).with_suffix(""))
            text = texts[language].get(key, "")
            if not text or re.match(r"[\[(<]", text):  # a text in brackets describes a noise: <beep>
                continue
            rows.append(
                {
                    "key": key,
                    "language": language,
                    "reader": reader,
                    "speech": str(file.relative_to(cache)),
                    "transcript": text,
                    "split": side(key),
                    "reader_split": "test" if reader == SECOND_READER else "train",
                }
            )
    return rows


def _folders(sounds: Path) -> list[tuple[str, str, Path]]:
    """Return language, reader and folder of all recordings; the second Italian reader comes last."""
    folders = []
    for language, reader in READERS.items():
        for path in sorted(sounds.glob(f"{language}_*")):
            if path.name != SECOND_FOLDER:
                folders.append((language, reader, path))
    folders.append(("it", SECOND_READER, sounds / SECOND_FOLDER))
    return folders


def _transcripts(cache: Path, language: str) -> dict[str, str]:
    """Return what each prompt of a language says, by its key."""
    documents = cache / "usr" / "share" / "doc" / f"asterisk-core-sounds-{language}"
    path = documents / f"core-sounds-{language}.txt.gz"
    transcripts = {}
    for line in gzip.decompress(path.read_bytes()).decode("utf-8-sig").splitlines():
        key, colon, text = line.partition(":")
        if colon and not line.startswith(";"):  # a semicolon begins a comment
            transcripts[key.strip()] = re.sub(r"\s+", " ", text).strip()
    return transcripts

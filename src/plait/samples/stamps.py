"""Tux Paint's stamps in nine categories: images with a text, a sound and a spoken description.

They come as Debian's package `tuxpaint-stamps-default` (161 MB, GPL-2), fetched with its package client. The
columns are `picture`, `sentence`, `sound` and `speech`. The sentence is English. The speech describes the
stamp in French, which nearly all stamps have.

The table is as untidy as real ones. Images that exist as SVG only are missing cells, some sentences are
missing, and classes are uneven. Only 96 stamps have a sound, most of them animals: that a stamp has one
already says something. Stamps that share a sentence, and with it the recording, are on one side of the split.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa

from plait.samples.base import side, unpack_debian
from plait.table.write import write

PACKAGE = "tuxpaint-stamps-default"


FOLDER = "usr/share/tuxpaint/stamps"  # in the unpacked package


TARGET = "category"


ABOUT = "Tux Paint's stamps: images, English sentences, sounds and French spoken descriptions"


INPUTS = {"picture": ["picture"], "sentence": ["sentence"], "sound": ["sound"], "speech": ["speech"]}


SPOKEN = "_desc_fr"  # the end of the names of spoken descriptions, in French


MEDIA = ("picture", "sound", "speech")


MIN_ROWS = 30  # categories with fewer rows are left out


OVERRIDES: tuple[str, ...] = ("split.column=split", "split.group=family")


def fetch(cache: Path) -> Path:
    """Return the table `stamps-families.csv` in the cache folder, made on the first call.

    Paths in it are relative to the cache folder. Raises `TableError` if Debian's package client is missing,
    or its lists are too old to find the package.
    """
    table = cache / "stamps-families.csv"
    if table.is_file():
        return table
    files = cache / FOLDER
    if not files.is_dir():
        unpack_debian([PACKAGE], cache)
    rows = build(files)
    for row in rows:
        for column in MEDIA:
            if row[column]:
                row[column] = f"{FOLDER}/{row[column]}"
    write(pa.Table.from_pylist(rows), table)
    return table


def build(files: Path) -> list[dict[str, str]]:
    """Return the rows of the table, one for each stamp of the unpacked folder.

    A row has the stamp's name, image, English sentence, sound, spoken description, drawing style, category,
    family and side of the split, and the number of other languages that have its sentence.
    """
    rows = [_row(stamp, paths, files) for stamp, paths in _stamps(files)]
    family_of = families(rows)

    counts = Counter(row["category"] for row in rows if row["category"] != "symbols")
    frequent = [row for row in rows if counts[row["category"]] >= MIN_ROWS]
    for row in frequent:
        family = family_of[row["stamp"]]
        row["family"] = hashlib.sha1(family.encode()).hexdigest()[:8]
        row["split"] = side(family)
    return frequent


def _stamps(files: Path) -> list[tuple[str, dict[str, Path]]]:
    """Return each stamp's name and files. The files are by kind: .png, .svg, .txt, sound, speech."""
    stamps: dict[str, dict[str, Path]] = {}
    for path in sorted(files.rglob("*")):
        stamp = str(path.relative_to(files).with_suffix(""))
        kind = path.suffix
        if kind in (".ogg", ".wav"):
            kind = "speech" if stamp.endswith(SPOKEN) else "sound"
            stamp = stamp.removesuffix(SPOKEN)
        is_description = "_desc" in stamp  # in another language
        if kind in (".png", ".svg", ".txt", "sound", "speech") and not is_description:
            stamps.setdefault(stamp, {})[kind] = path
    drawn = {stamp: paths for stamp, paths in stamps.items() if ".png" in paths or ".svg" in paths}
    return sorted(drawn.items())


def _row(stamp: str, paths: dict[str, Path], files: Path) -> dict[str, str]:
    """Return a stamp's row, without its family and side."""
    names = {kind: str(path.relative_to(files)) for kind, path in paths.items()}
    sentence, languages = "", 0
    if ".txt" in paths:
        sentence, languages = _sentences(paths[".txt"])
    return {
        "stamp": stamp,
        "picture": names.get(".png", ""),
        "sentence": sentence,
        "sound": names.get("sound", ""),
        "speech": names.get("speech", ""),
        "style": _style(stamp, paths),
        "languages": str(languages),
        "category": stamp.split("/")[0],
    }


def _style(stamp: str, paths: dict[str, Path]) -> str:
    """Return how a stamp is drawn: cartoons say so in their names, and drawings are SVG files."""
    if "cartoon" in stamp.lower():
        return "cartoon"
    return "photo" if ".png" in paths else "drawing"


def _sentences(path: Path) -> tuple[str, int]:
    """Return the English sentence, and the number of other languages.

    The English sentence is the first line without a language code.
    """
    english, languages = "", 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        line = line.strip("\ufeff \r")
        if re.match(r"[a-zA-Z_@]+\.utf8=", line):
            languages += 1
        elif line and not english:
            english = line
    return english, languages


def families(rows: list[dict[str, str]]) -> dict[str, str]:
    """Return each stamp's family, by union-find.

    Stamps with the same sentence are of one family, and stamps whose names differ only in digits.
    """
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        """Return the root of a set, and shorten the path to it."""
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    # nodes are stamps ("s:"), names without digits ("n:") and texts ("t:")
    for row in rows:
        name = "n:" + re.sub(r"[-_ ]*\d+", "", row["stamp"])
        text = name
        if row["sentence"]:
            text = "t:" + re.sub(r"\W+", " ", row["sentence"].lower()).strip()
        parent[root("s:" + row["stamp"])] = root(name)
        parent[root(text)] = root(name)
    return {row["stamp"]: root("s:" + row["stamp"]) for row in rows}

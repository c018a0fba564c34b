"""Tux Paint's stamps: pictures with an English sentence, a sound and a spoken description, in nine
categories. GPL-2.

They come as Debian's package `tuxpaint-stamps-default` (161 MB), fetched with its package client. Real
traps are left in: pictures that exist as SVG only are missing cells, some sentences are missing,
classes are uneven, and stamps that share a sentence, and with it the recording, stay on one side of the
split. Only 96 stamps have a sound, most of them animals: that a stamp has one says something already.
The description is the French one, which nearly all stamps have.
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


TARGET = "category"


ABOUT = "pictures, English sentences, sounds and French spoken descriptions of Tux Paint's stamps"


INPUTS = {"picture": ["picture"], "sentence": ["sentence"], "sound": ["sound"], "speech": ["speech"]}


SPOKEN = "_desc_fr"


MEDIA = ("picture", "sound", "speech")


LEAST = 30  # rows that a category needs to be kept


OVERRIDES: tuple[str, ...] = ("split.column=split", "split.group=family")


def fetch(cache: Path) -> Path:
    """The table `stamps-families.csv` in the cache folder, made on the first call. Paths in it begin in
    the cache folder.

    Raises `TableError` where Debian's package client is missing or its lists are too old to find the
    package.
    """
    table = cache / "stamps-families.csv"
    if not table.is_file():
        files = cache / "usr" / "share" / "tuxpaint" / "stamps"
        if not files.is_dir():
            unpack_debian([PACKAGE], cache)
        rows = build(files)
        rows = [
            {**row, **{c: f"usr/share/tuxpaint/stamps/{row[c]}" for c in MEDIA if row[c]}} for row in rows
        ]
        write(pa.Table.from_pylist(rows), table)
    return table


def build(files: Path) -> list[dict[str, str]]:
    """One row a stamp, from the unpacked folder: its name, picture, English sentence, sound, spoken
    description, drawing style, the number of languages that its sentence has been translated to, its
    category, its family, and the side that it is on.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(files.rglob("*")):
        stem, kind = str(path.relative_to(files).with_suffix("")), path.suffix
        if kind in (".ogg", ".wav"):
            kind = "speech" if stem.endswith(SPOKEN) else "sound"
            stem = stem.removesuffix(SPOKEN)
        if kind in (".png", ".svg", ".txt", "sound", "speech") and "_desc" not in stem:
            found.setdefault(stem, {})[kind] = path
    rows = []
    for stem, parts in sorted((s, p) for s, p in found.items() if {".png", ".svg"} & set(p)):
        sentence, languages = _sentences(parts[".txt"]) if ".txt" in parts else ("", 0)
        rows.append(
            {
                "stamp": stem,
                "picture": str(parts[".png"].relative_to(files)) if ".png" in parts else "",
                "sentence": sentence,
                "sound": str(parts["sound"].relative_to(files)) if "sound" in parts else "",
                "speech": str(parts["speech"].relative_to(files)) if "speech" in parts else "",
                "style": "cartoon"
                if "cartoon" in stem.lower()
                else "photo"
                if ".png" in parts
                else "drawing",
                "languages": str(languages),
                "category": stem.split("/")[0],
            }
        )
    family = families(rows)
    counts = Counter(row["category"] for row in rows if row["category"] != "symbols")
    return [
        {
            **row,
            "family": hashlib.sha1(family[row["stamp"]].encode()).hexdigest()[:8],
            "split": side(family[row["stamp"]]),
        }
        for row in rows
        if counts[row["category"]] >= LEAST
    ]


def _sentences(path: Path) -> tuple[str, int]:
    """The English sentence, which is the first line without a language code, and the number of other
    languages.
    """
    english, others = "", 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        line = line.strip("\ufeff \r")
        if re.match(r"[a-zA-Z_@]+\.utf8=", line):
            others += 1
        elif line and not english:
            english = line
    return english, others


def families(rows: list[dict[str, str]]) -> dict[str, str]:
    """Each stamp's family: stamps with the same sentence, or the same name but for digits (by union-find)."""
    parent: dict[str, str] = {}

    def root(x: str) -> str:
        while parent.setdefault(x, x) != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    for row in rows:
        name = "n:" + re.sub(r"[-_ ]*\d+", "", row["stamp"])
        text = "t:" + re.sub(r"\W+", " ", row["sentence"].lower()).strip() if row["sentence"] else name
        parent[root("s:" + row["stamp"])] = root(name)
        parent[root(text)] = root(name)
    return {row["stamp"]: root("s:" + row["stamp"]) for row in rows}

"""Emoji as four free vendors draw them, with English, French and Chinese names and English tags, in ten
groups. MIT, Apache-2.0, CC-BY-4.0, CC-BY-SA.

Names come from `emojibase-data`; pictures of 64 pixels from Google (Noto), Twitter (Twemoji), OpenMoji
and Microsoft (Fluent), the latter two drawn from SVG. All are packages of npm, fetched with its client.
`split` keeps all pictures of an emoji on one side (a test of emoji never seen); `vendor_split` keeps
OpenMoji's pictures for the test (a test of an artist never seen). Skin tones are left out.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from plait.errors import TableError
from plait.samples.base import side
from plait.table.write import write

PACKAGES = {
    "emojibase-data": "17.0.0",
    "emoji-datasource-google": "16.0.0",
    "emoji-datasource-twitter": "16.0.0",
    "@iconify-json/openmoji": "1.2.29",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
}


TARGET = "group"


ABOUT = "pictures of emoji by four vendors, with English names and tags"


INPUTS = {"picture": ["picture"], "name": ["name"], "tags": ["tags"]}


OVERRIDES = (
    "split.column=split",
    "split.group=emoji",
    "modalities.image.size=64",
    "modalities.image.flip=false",
    "columns.vendor_split.role=ignored",
    "columns.vendor.role=ignored",
    "columns.name.modality=text",
    "columns.tags.modality=text",
    "columns.name_fr.role=ignored",
    "columns.name_zh.role=ignored",
)


LANGUAGES = ("fr", "zh")


SIDE = 64  # pixels


def fetch(cache: Path) -> Path:
    """The table `emoji-names.csv` in the cache folder, with its pictures beside it, made on the first call.

    Raises `TableError` where npm or the package that draws SVG is missing, or a package cannot be fetched.
    """
    table = cache / "emoji-names.csv"
    if not table.is_file():
        folder = cache / "download"
        folder.mkdir(parents=True, exist_ok=True)
        files = {name: _download(name, version, folder) for name, version in PACKAGES.items()}
        write(pa.Table.from_pylist(build(files, cache)), table)
        shutil.rmtree(folder)
    return table


def _download(name: str, version: str, folder: Path) -> Path:
    if not shutil.which("npm"):
        raise TableError("the emoji come through npm, which this machine does not have")
    file = folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not file.is_file():
        done = subprocess.run(
            ["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, capture_output=True, text=True
        )
        if done.returncode or not file.is_file():
            raise TableError(
                f"npm cannot fetch {name}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
            )
    return file


def build(files: dict[str, Path], into: Path) -> list[dict[str, str]]:
    """One row a picture: the emoji's code, vendor, picture, name, tags, group, and both splits.
    Pictures are written as PNG.
    """
    known = _names(files["emojibase-data"])
    rows = []
    for package, path in files.items():
        if package == "emojibase-data":
            continue
        written = set()
        vendor = package.removeprefix("emoji-datasource-").removeprefix("@iconify-json/").split("-")[0]
        (into / vendor).mkdir(parents=True, exist_ok=True)
        for code, picture in sorted((_drawn if package.startswith("@") else _painted)(path)):
            about = known.get(_code(code))
            file = f"{vendor}/{_code(code)}.png"
            if (
                about is None or file in written or picture.getchannel("A").getextrema()[1] == 0
            ):  # unknown, a second one, or blank
                continue
            picture.save(into / file)
            written.add(file)
            rows.append(
                {
                    "emoji": _code(code),
                    "vendor": vendor,
                    "picture": file,
                    **about,
                    "split": side(_code(code)),
                    "vendor_split": "test" if vendor == "openmoji" else "train",
                }
            )
    return rows


def _names(path: Path) -> dict[str, dict[str, str]]:
    """Names, tags and group of each emoji, by its code; regional indicators have no group and are left
    out.
    """
    with tarfile.open(path) as archive:
        groups = {g["order"]: g["key"] for g in _json(archive, "package/en/messages.json")["groups"]}
        found = [e for e in _json(archive, "package/en/data.json") if "group" in e]
        others = {
            lang: {e["hexcode"]: e["label"] for e in _json(archive, f"package/{lang}/data.json")}
            for lang in LANGUAGES
        }
    return {
        _code(e["hexcode"]): {
            "name": e["label"],
            **{f"name_{lang}": names.get(e["hexcode"], "") for lang, names in others.items()},
            "tags": ", ".join(e.get("tags", [])),
            "group": groups[e["group"]],
        }
        for e in found
    }


def _painted(path: Path) -> Iterator[tuple[str, Image.Image]]:
    """Code and picture from a package of PNG files."""
    with tarfile.open(path) as archive:
        for member in archive:
            if re.search(r"/img/\w+/64/[^/]+\.png$", member.name) and (file := archive.extractfile(member)):
                yield Path(member.name).stem, _square(file.read())


def _drawn(path: Path) -> Iterator[tuple[str, Image.Image]]:
    """Code and picture from a package of SVG bodies."""
    try:
        from resvg_py import svg_to_bytes
    except ModuleNotFoundError:
        raise TableError("two of the emoji's vendors are drawn from SVG: pip install resvg-py") from None
    with tarfile.open(path) as archive:
        icons, codes = _json(archive, "package/icons.json"), _json(archive, "package/chars.json")
    for code, name in codes.items():
        icon = icons["icons"].get(name) or icons["icons"].get(
            icons.get("aliases", {}).get(name, {}).get("parent")
        )
        if icon:
            width, height = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
            spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
            head = f'<svg {spaces} viewBox="0 0 {width} {height}"'
            yield (
                code,
                _square(
                    bytes(
                        svg_to_bytes(svg_string=f'{head} width="{SIDE}" height="{SIDE}">{icon["body"]}</svg>')
                    )
                ),
            )


def _json(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    assert file is not None
    return json.load(file)


def _square(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    return picture if picture.size == (SIDE, SIDE) else picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _code(code: str) -> str:
    """Vendors differ in case and in the mark that asks for colours."""
    return code.upper().replace("-FE0F", "")

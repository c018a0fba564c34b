"""Emoji as four free vendors draw them, in ten groups, with names in three languages and English tags.

The languages are English, French and Chinese. Names come from `emojibase-data`. Images of 64 pixels come from
Google (Noto), Twitter (Twemoji), OpenMoji and Microsoft (Fluent). The latter two are drawn from SVG. All are
npm packages, fetched with its client. Licenses: MIT, Apache-2.0, CC-BY-4.0, CC-BY-SA.

`split` keeps all images of an emoji on one side: it tests on new emoji. `vendor_split` keeps OpenMoji's
images for the test: it tests on a new artist. Skin tones are left out.
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
from typing import IO, NotRequired, TypedDict

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


ABOUT = "images of emoji by four vendors, with English names and tags"


INPUTS = {"picture": ["picture"], "name": ["name"], "tags": ["tags"]}


OVERRIDES = (
    "split.column=split",
    "split.group=emoji",
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
    """Return the table `emoji-names.csv` in the cache folder, with its images beside it.

    It is made on the first call. Raises `TableError` if npm or the package that draws SVG is missing, or if a
    package cannot be fetched.
    """
    table = cache / "emoji-names.csv"
    if table.is_file():
        return table
    folder = cache / "download"
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: _download(name, version, folder) for name, version in PACKAGES.items()}
    write(pa.Table.from_pylist(build(files, cache)), table)
    shutil.rmtree(folder)
    return table


def _download(name: str, version: str, folder: Path) -> Path:
    """Fetch a package by npm, unless it has been fetched already. Raises `TableError`."""
    if not shutil.which("npm"):
        raise TableError("the emoji are fetched with npm, which this machine does not have")
    file = folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not file.is_file():
        command = ["npm", "pack", "--silent", f"{name}@{version}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode or not file.is_file():
            messages = done.stderr.strip().splitlines() or ["no reason given"]
            raise TableError(f"npm cannot fetch {name}: {messages[-1]}")
    return file


def build(files: dict[str, Path], folder: Path) -> list[dict[str, str]]:
    """Write the images as PNG into a folder, and return the rows of the table, one for each image.

    A row has the emoji's code, vendor, image, names, tags and group, and both splits.
    """
    descriptions = _descriptions(files["emojibase-data"])
    rows = []
    for package, path in files.items():
        if package == "emojibase-data":
            continue
        vendor = _vendor(package)
        (folder / vendor).mkdir(parents=True, exist_ok=True)
        images = _drawn(path) if package.startswith("@") else _painted(path)
        written = set()
        for vendor_code, image in sorted(images):
            code = _code(vendor_code)
            file = f"{vendor}/{code}.png"
            _, most_opaque = image.getchannel("A").getextrema()
            is_blank = most_opaque == 0
            if code not in descriptions or file in written or is_blank:
                continue
            image.save(folder / file)
            written.add(file)
            rows.append(
                {
                    "emoji": code,
                    "vendor": vendor,
                    "picture": file,
                    **descriptions[code],
                    "split": side(code),
                    "vendor_split": "test" if vendor == "openmoji" else "train",
                }
            )
    return rows


def _vendor(package: str) -> str:
    """Return the vendor that a package is named after, such as openmoji in `@iconify-json/openmoji`."""
    name = package.removeprefix("emoji-datasource-").removeprefix("@iconify-json/")
    return name.split("-")[0]


def _descriptions(path: Path) -> dict[str, dict[str, str]]:
    """Return names, tags and group of each emoji, by its code.

    Regional indicators have no group and are left out.
    """
    with tarfile.open(path) as archive:
        messages = json.load(_opened(archive, "package/en/messages.json"))
        emoji = json.load(_opened(archive, "package/en/data.json"))
        names = {language: _names(archive, language) for language in LANGUAGES}
    groups = {group["order"]: group["key"] for group in messages["groups"]}

    descriptions = {}
    for entry in emoji:
        if "group" not in entry:
            continue
        description = {"name": entry["label"]}
        for language in LANGUAGES:
            description[f"name_{language}"] = names[language].get(entry["hexcode"], "")
        description["tags"] = ", ".join(entry.get("tags", []))
        description["group"] = groups[entry["group"]]
        descriptions[_code(entry["hexcode"])] = description
    return descriptions


def _names(archive: tarfile.TarFile, language: str) -> dict[str, str]:
    """Return the emoji's names in a language, by their codes as the package writes them."""
    entries = json.load(_opened(archive, f"package/{language}/data.json"))
    return {entry["hexcode"]: entry["label"] for entry in entries}


def _painted(path: Path) -> Iterator[tuple[str, Image.Image]]:
    """Yield code and image from a package of PNG files."""
    with tarfile.open(path) as archive:
        for member in archive:
            if not re.search(r"/img/\w+/64/[^/]+\.png$", member.name):
                continue
            file = archive.extractfile(member)
            if file is not None:
                yield Path(member.name).stem, _square(file.read())


def _drawn(path: Path) -> Iterator[tuple[str, Image.Image]]:
    """Yield code and image from a package of SVG bodies."""
    try:
        from resvg_py import svg_to_bytes
    except ModuleNotFoundError:
        raise TableError("the emoji of two vendors are drawn from SVG: pip install resvg-py") from None
    with tarfile.open(path) as archive:
        icons = json.load(_opened(archive, "package/icons.json"))
        names_by_code = json.load(_opened(archive, "package/chars.json"))
    for code, name in names_by_code.items():
        icon = _icon(icons, name)
        if icon:
            png = svg_to_bytes(svg_string=_svg(icons, icon))
            yield code, _square(bytes(png))


class _Icon(TypedDict):
    body: str
    width: NotRequired[int]
    height: NotRequired[int]


class _Icons(TypedDict):
    """The icons of a package by name. An alias has a `parent`. Sizes hold for icons without their own."""

    icons: dict[str, _Icon]
    aliases: NotRequired[dict[str, dict[str, str]]]
    width: NotRequired[int]
    height: NotRequired[int]


def _icon(icons: _Icons, name: str) -> _Icon | None:
    """Return an icon by its name, or by the name that it is an alias of."""
    if icons["icons"].get(name):
        return icons["icons"][name]
    parent = icons.get("aliases", {}).get(name, {}).get("parent")
    return icons["icons"].get(parent) if parent else None


def _svg(icons: _Icons, icon: _Icon) -> str:
    """Return an SVG file of `SIDE` pixels from an icon's body.

    The body has the size of the package's icons, unless the icon states its own.
    """
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    view = f'viewBox="0 0 {width} {height}" width="{SIDE}" height="{SIDE}"'
    return f"<svg {spaces} {view}>{icon['body']}</svg>"


def _opened(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """Open a file of an archive."""
    file = archive.extractfile(name)
    assert file is not None
    return file


def _square(content: bytes) -> Image.Image:
    """Open an image and scale it to `SIDE` pixels a side."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    if image.size == (SIDE, SIDE):
        return image
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _code(code: str) -> str:
    """Return an emoji's code in one spelling.

    Vendors differ in case and in the mark that asks for colours.
    """
    return code.upper().replace("-FE0F", "")

"""A cell may name its file in other ways than the file system does, or hold the file itself."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from urllib.parse import quote

import pandas
import pyarrow as pa
import pytest

import plait
from plait.errors import BadCell
from plait.media.cell import Media, is_file
from plait.modalities.base import modalities
from plait.table.table import Source
from support.files import inspected, photo, saved
from support.media import clip, wav, wave
from support.tables import FAST, make_rows

COUNT = 24


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write images into `input`, below a folder with a space in its name."""
    root = tmp_path / "my data"
    (root / "input").mkdir(parents=True)
    for row in range(COUNT):
        (root / "input" / f"ISIC_{row:07}.png").write_bytes(saved(photo(row), "PNG"))
    return root


FORMS = {
    "spaces": "  input/ISIC_{row:07}.png ",
    "line end": "input/ISIC_{row:07}.png\n",
    "backslashes": "input\\ISIC_{row:07}.png",
    "address": "file://{quoted}/input/ISIC_{row:07}.png",
    "address of this host": "file://localhost{quoted}/input/ISIC_{row:07}.png",
    "no ending": "input/ISIC_{row:07}",
    "absolute": "{root}/input/ISIC_{row:07}.png",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_way_to_name_a_local_file_is_read(form: str, folder: Path) -> None:
    root, quoted = str(folder), quote(str(folder))
    cells = [form.format(row=row, root=root, quoted=quoted) for row in range(COUNT)]
    inspection = inspected(cells, folder)
    assert inspection.schema["cell"].role == "input"
    assert inspection.schema["cell"].modality == "image"
    assert not inspection.problems


def test_names_without_endings_are_images_and_not_ids(folder: Path) -> None:
    cells = [f"ISIC_{row:07}" for row in range(COUNT)]
    inspection = inspected(cells, folder / "input")
    assert inspection.schema["cell"].modality == "image"


def test_words_that_name_files_by_accident_are_no_images(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / f"{name}.png").write_bytes(saved(photo(), "PNG"))
    assert inspected(["cat", "dog"] * 12, tmp_path).schema["cell"].modality == "category"


def test_a_name_without_ending_must_name_one_file(folder: Path) -> None:
    name = "input/ISIC_0000003"
    shutil.copy(folder / f"{name}.png", folder / f"{name}.jpg")
    (folder / f"{name}.txt").touch()
    assert Media(name, folder, suffixes=(".png",)).file.endswith("3.png")
    with pytest.raises(BadCell, match=r"several files \(ISIC_0000003.jpg, ISIC_0000003.png\)"):
        Media(name, folder, suffixes=(".png", ".jpg"))
    assert not is_file(name, folder)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("C:\\photos\\a.png", "a path of Windows on drive C:"),
        ("D:/photos/a.png", "a path of Windows on drive D:"),
        ("file:///C:/photos/a.png", "a path of Windows on drive C:"),
        ("\\\\server\\photos\\a.png", "a path of Windows on another machine"),
        ("file://server/photos/a.png", "a file of another machine"),
        ("https://example.org/a.png", "a URL"),
        ("s3://bucket/a.png", "a URL"),
        ("gone.png ", "no such file"),
    ],
)
def test_paths_of_other_machines_are_named_as_such(cell: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadCell, match=reason):
        Media(cell, tmp_path)


@pytest.mark.parametrize("mark", ["nan", "None", "NULL", "NA", "", "  ", "<NA>", "#N/A"])
def test_marks_among_paths_are_missing_cells(mark: str, folder: Path) -> None:
    cells = [mark if row % 4 == 0 else f"input/ISIC_{row:07}.png" for row in range(COUNT)]
    inspection = inspected(cells, folder)
    assert inspection.schema["cell"].modality == "image"
    assert not inspection.problems


def test_marks_among_paths_do_not_end_a_fit(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, 48)
    for row in rows[::4]:
        row["photo"] = "nan"
    model = plait.fit(rows, "label", root=tmp_path, out=tmp_path / "run", overrides=FAST, quiet=True)
    answers = model.predict([{**rows[1], "photo": "None"}, rows[1]], root=tmp_path)
    assert answers["problem"].to_pylist() == [None, None]


def test_categories_of_pandas_may_be_paths(folder: Path) -> None:
    names = [f"input/ISIC_{row % 12:07}.png" for row in range(COUNT)]
    cells = pa.chunked_array([pa.array(pandas.Categorical(names))])
    image = modalities.find("image")
    match = image.matches(cells, Source("cell", folder))
    assert match is not None
    assert match.score == 1.0
    loaded = image(modalities.configure("image", {})).load(cells, Source("cell", folder))
    assert loaded.present.all()


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


FILES = {
    "image": lambda row: saved(photo(row), ("PNG", "JPEG", "WEBP", "TIFF")[row % 4]),
    "audio": lambda row: wav(wave(0.2, seed=row), kind=("WAV", "FLAC", "OGG")[row % 3]),
    "video": lambda row: clip(4),
}
WRITTEN = {
    "data URI": lambda content: f"data:image/png;base64,{as_base64(content)}",
    "data URI without type": lambda content: f"data:;base64,{as_base64(content)}",
    "base64": as_base64,
    "base64 in lines": lambda content: base64.encodebytes(content).decode(),
    "base64 for addresses": lambda content: base64.urlsafe_b64encode(content).decode().rstrip("="),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("written", WRITTEN)
def test_files_in_text_form_are_read(kind: str, written: str, tmp_path: Path) -> None:
    cells = [WRITTEN[written](FILES[kind](row)) for row in range(8)]
    inspection = inspected(cells, tmp_path)
    assert inspection.schema["cell"].modality == kind
    assert not inspection.problems


def test_one_cell_may_hold_its_file_among_paths(folder: Path) -> None:
    cells = [f"input/ISIC_{row:07}.png" for row in range(COUNT)]
    content = saved(photo(99), "PNG")
    cells[3], cells[4], cells[5] = WRITTEN["data URI"](content), as_base64(content), as_base64(content)[:-9]
    inspection = inspected(cells, folder)
    assert inspection.schema["cell"].modality == "image"
    assert [problem.row for problem in inspection.problems] == [5]
    assert Media(cells[3], folder).data == content
    assert Media(f"data:image/svg+xml,{quote('<svg/>')}", folder).data == b"<svg/>"
    with pytest.raises(BadCell, match="base64 that is broken"):
        Media("data:image/png;base64,$$$", folder)

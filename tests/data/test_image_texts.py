"""The text in images as a column of its own, which the recipe asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plait
from plait.console import Screen
from plait.data.image_texts import with_image_texts
from plait.errors import BadCellsError, RecipeError, TrainingError
from plait.media import ocr
from plait.runs.deadline import Deadline
from plait.table.read import read

ASKED = ["training.epochs=30", "training.precision=fp32", "modalities.image.size=16"]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what an engine was called with that reads `dark`, `bright words`, or nothing in white images."""
    calls: list[int] = []

    class Lines:
        def __init__(self, txts: tuple[str, ...] | None) -> None:
            self.txts = txts

    def engine() -> Any:
        def read(pixels: np.ndarray) -> Lines:
            calls.append(int(pixels.mean()))
            if pixels.min() == 255:
                return Lines(None)
            return Lines(("dark",) if pixels.mean() < 128 else ("bright", "words"))

        return read

    monkeypatch.setattr(ocr, "_reader", engine)
    monkeypatch.setattr(ocr, "check_installed", lambda column: None)
    monkeypatch.setattr(ocr.ImageText, "identity", f"the reader of {tmp_path}")
    return calls


def rows(folder: Path, count: int = 24) -> list[dict[str, Any]]:
    """Images that are dark, bright or white in turn; the label says whether one is dark."""
    made = []
    for row in range(count):
        grey = (20, 200, 255)[row % 3]
        pixels = np.full((12, 20, 3), grey, np.uint8)
        pixels[0, 0] = max(grey - row, 0) if grey < 255 else 255  # each file differs
        Image.fromarray(pixels).save(folder / f"{row}.png")
        made.append({"photo": str(folder / f"{row}.png"), "label": "yes" if grey == 20 else "no"})
    return made


def fit(data: object, **arguments: Any) -> plait.Model:
    return plait.fit(data, "label", quiet=True, overrides=ASKED, **arguments)


def test_the_text_in_images_is_an_input(tmp_path: Path, reader: list[int]) -> None:
    data = rows(tmp_path)
    model = fit(data, columns={"photo": "ignored", "photo.text": "text"}, out=tmp_path / "run")
    answers = model.predict([{"photo": data[0]["photo"]}, {"photo": data[1]["photo"]}])
    assert answers["label"].to_pylist() == ["yes", "no"]

    loaded = plait.load(tmp_path / "run")
    assert loaded.predict([{"photo": data[0]["photo"]}])["label"].to_pylist() == ["yes"]
    assert loaded.predict([{"photo.text": "dark"}])["label"].to_pylist() == ["yes"], "given as a text"


def test_an_image_without_text_is_an_empty_cell(tmp_path: Path, reader: list[int]) -> None:
    data = rows(tmp_path)
    model = fit(data, columns={"photo.text": "text"}, out=tmp_path / "run")
    assert model.schema["photo.text"].modality == "text"
    assert model.predict([{"photo": data[2]["photo"]}]).num_rows == 1
    assert model.predict([{"photo": None}]).num_rows == 1
    assert model.predict([]).num_rows == 0


def test_each_image_is_read_once(tmp_path: Path, reader: list[int]) -> None:
    data = rows(tmp_path)
    columns = {"photo": "ignored", "photo.text": "text"}
    fit(data, columns=columns, out=tmp_path / "first")
    read = len(reader)
    fit(data, columns=columns, out=tmp_path / "second")
    assert read
    assert len(reader) == read, "the cache has their texts"


def test_a_broken_image_is_a_problem_of_its_text(tmp_path: Path, reader: list[int]) -> None:
    data = rows(tmp_path, 60)
    Path(data[0]["photo"]).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    fit(data, columns={"photo": "ignored", "photo.text": "text"}, out=tmp_path / "run")
    problems = (tmp_path / "run" / "problems.csv").read_text()
    assert "photo.text" in problems


def test_an_engine_that_cannot_be_loaded_leaves_nothing(
    tmp_path: Path, reader: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run reads the images, which are as good as before."""

    def broken() -> Any:
        raise ImportError("onnxruntime is not installed")

    data = rows(tmp_path)
    columns = {"photo": "ignored", "photo.text": "text"}
    with monkeypatch.context() as patch:
        patch.setattr(ocr, "_reader", broken)
        with pytest.raises(BadCellsError, match="RapidOCR could not be loaded: onnxruntime is not installed"):
            fit(data, columns=columns, out=tmp_path / "first")
    fit(data, columns=columns, out=tmp_path / "second")
    assert len(reader) == len(data)


def test_a_limit_ends_the_reading(tmp_path: Path, reader: list[int]) -> None:
    table = read(rows(tmp_path))
    over = Deadline(ends=1.0)
    with pytest.raises(TrainingError, match="the time limit was over while the text in images was read"):
        with_image_texts(table, ["photo.text"], Screen(quiet=True), over)


def test_text_of_what_is_no_image_is_refused(tmp_path: Path) -> None:
    data = [{"price": float(row), "label": "ab"[row % 2]} for row in range(20)]
    with pytest.raises(RecipeError, match=r"expected images in 'price' to read text from, it is number"):
        plait.fit(data, "label", columns={"price.text": "text"}, out=tmp_path / "run")


def test_without_the_reader_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"needs RapidOCR: pip install 'plait\[ocr\]'"):
        ocr.check_installed("photo.text")

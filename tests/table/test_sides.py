"""Tables that are given apart: each keeps its folder, its name, its rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import plait
from plait.table.sides import Sources, read_sides

FAST = ["training.epochs=1", "training.batch_size=8", "modalities.image.size=32", "encoders.image=cnn"]


def make_table(folder: Path, rows: int, brightness: int, name: str) -> Path:
    """Write a table beside an own folder of images, whose names are those of every other table."""
    (folder / "img").mkdir(parents=True)
    path = folder / name
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "size", "label"])
        for row in range(rows):
            pixels = np.full((16, 16, 3), brightness + row, np.uint8)
            Image.fromarray(pixels).save(folder / "img" / f"{row}.png")
            writer.writerow([f"img/{row}.png", row, "ab"[row % 2]])
    return path


def test_every_table_has_its_own_folder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = make_table(tmp_path / "one", 24, 10, "train.csv")
    test = make_table(tmp_path / "two", 6, 200, "test.csv")
    (tmp_path / "two" / "img" / "3.png").write_bytes(b"no image at all")
    model = plait.fit(train, "label", test=test, out=tmp_path / "run", overrides=FAST)
    screen = capsys.readouterr().err
    assert "train.csv (24 rows) and test.csv (6 rows)" in screen
    assert "plait_split" not in screen
    assert model.record["rows"]["test"] == 6

    problems = (tmp_path / "run" / "problems.csv").read_text().splitlines()
    assert len(problems) == 2
    assert problems[1].startswith("3,photo,")
    assert problems[1].endswith(",test.csv")


@pytest.mark.parametrize(
    ("train", "other"),
    [
        (["00501", "10115"], [90001, 10115]),
        ([True, False], ["unknown", "True"]),
        ([0, 1], ["0", "1"]),
        ([0.5, 1.5], ["n/a", "2.5"]),
    ],
)
def test_columns_typed_apart_are_read_together(train: list[Any], other: list[Any]) -> None:
    table = read_sides(Sources(pa.table({"x": train}), test=pa.table({"x": other})))
    assert len(table) == 4
    assert table.data.column("x").null_count == 0


def test_a_column_that_one_table_lacks_is_missing_there() -> None:
    table = read_sides(Sources(pa.table({"x": [1, 2], "y": ["a", "b"]}), test=pa.table({"x": [3]})))
    assert table.data.column("y").to_pylist() == ["a", "b", None]

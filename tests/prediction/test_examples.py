"""A few rows that are kept beside a model: what they hold, and what they leave out."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from plait.errors import ArtifactError
from plait.prediction import examples
from plait.runs import files
from plait.table.table import Table
from support.files import photo, saved


def table_of(folder: Path, photos: list[object], **columns: list[object]) -> Table:
    (folder / "run").mkdir()
    (folder / "a.png").write_bytes(saved(photo(), "PNG"))
    return Table(pa.table({"photo": photos, **columns}), folder, "t")


def test_cells_come_back_as_json_and_files(tmp_path: Path) -> None:
    days = [datetime.date(2024, 2, 29), None]
    table = table_of(tmp_path, ["a.png", None], day=days, price=[1.5, 2.0], tags=[["x"], ["y", "z"]])
    examples.save(tmp_path / "run", table, [1, 0], ["photo", "day", "price", "tags"], ["photo"])
    second, first = examples.load(tmp_path / "run")
    assert second.values == {"price": 2.0, "tags": ["y", "z"]}
    assert first.values == {"day": "2024-02-29", "price": 1.5, "tags": ["x"]}
    (path,) = first.files["photo"]
    assert path.suffix == ".png"
    assert path.read_bytes() == (tmp_path / "a.png").read_bytes()


def test_files_that_are_broken_or_large_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + bytes(1000))
    monkeypatch.setattr(examples, "MAX_FILE", 500)
    table = table_of(tmp_path, ["large.png", "nowhere.png", "a.png"])
    examples.save(tmp_path / "run", table, [0, 1], ["photo"], ["photo"])
    assert [example.files["photo"] for example in examples.load(tmp_path / "run")] == [[], []]


def test_a_model_without_examples_has_none(tmp_path: Path) -> None:
    assert examples.load(tmp_path) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "0-0-0.png/../x", "a.png", "0-0-0"])
def test_only_names_of_examples_are_opened(tmp_path: Path, name: str) -> None:
    files.write_checked(tmp_path / examples.FILE, {"rows": [{"values": {}, "files": {"photo": [name]}}]})
    with pytest.raises(ArtifactError, match="is damaged"):
        examples.load(tmp_path)

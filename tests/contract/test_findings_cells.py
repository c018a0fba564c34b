"""What frames, data sets and files put into cells is read as what it is, or refused by name, by `inspect`."""

from __future__ import annotations

import base64
import io
import json
import pathlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

import plait
from plait.data.inspect import Inspection
from plait.errors import TableError
from support.media import wav, wave

ROWS = 24
LABELS = ["ab"[row % 2] for row in range(ROWS)]
COLOURS = ["red", "green", "blue"]
TINY = ["training.epochs=1", "training.precision=fp32"]
random = np.random.default_rng(0)
numbers = random.normal(size=(ROWS, 3)).astype(np.float32)
pixels = random.integers(0, 256, (ROWS, 8, 10, 3), dtype=np.uint8)


def image_file(row: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[row]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images and recordings, 0.png to 23.wav."""
    folder = tmp_path_factory.mktemp("media")
    for row in range(ROWS):
        (folder / f"{row}.png").write_bytes(image_file(row))
        (folder / f"{row}.wav").write_bytes(wav(wave(0.1, seed=row)))
        (folder / f"ISIC_{row:07d}.jpg").write_bytes(image_file(row))
    return folder


def objects(cells: list[Any]) -> pd.Series:
    """Return a column of pandas that leaves Python's objects as they are."""
    return pd.Series(cells, dtype=object)


def names(ending: str) -> list[str]:
    return [f"{row}.{ending}" for row in range(ROWS)]


def sentences() -> list[str]:
    return [f"this sentence speaks of thing number {row} in {COLOURS[row % 3]}" for row in range(ROWS)]


def encoded(head: str = "") -> list[str]:
    return [head + base64.b64encode(image_file(row)).decode() for row in range(ROWS)]


# the cells of a column, and what it is
CELLS: dict[str, tuple[Callable[[], Any], str]] = {
    "paths of pathlib": (lambda: objects(list(map(pathlib.Path, names("png")))), "image"),
    "images of Pillow": (lambda: objects(list(map(Image.fromarray, pixels))), "image"),
    "pixels": (lambda: objects(list(pixels)), "image"),
    "tensors of pixels": (lambda: objects(list(torch.from_numpy(pixels).permute(0, 3, 1, 2))), "image"),
    "open files": (lambda: objects([io.BytesIO(image_file(row)) for row in range(ROWS)]), "image"),
    "vectors": (lambda: objects(list(numbers)), "vector"),
    "tensors": (lambda: objects(list(torch.from_numpy(numbers))), "vector"),
    "numbers and a mark": (lambda: objects([5, "n/a", *range(3, 25)]), "number"),
    "fractions and a mark": (lambda: objects([0.5, "?", *numbers[2:, 0].tolist()]), "number"),
    "numbers and their texts": (lambda: objects(["1", 1, *range(2, 13), *map(str, range(2, 13))]), "number"),
    "categories of polars": (lambda: pl.Series(COLOURS * 8, dtype=pl.Categorical), "category"),
    "a sparse column": (lambda: pd.Series([0, 1] * 12, dtype="Sparse[int]"), "number"),
    "ranges cut from numbers": (lambda: pd.Series(pd.cut(range(ROWS), 3)), "category"),
    "durations": (lambda: pd.Series(pd.to_timedelta(np.arange(ROWS) ** 2, unit="s")), "number"),
    "run ends": (lambda: pa.RunEndEncodedArray.from_arrays([8, 16, 24], COLOURS), "category"),
    "lists of paths of polars": (lambda: pl.Series([[name, name] for name in names("png")]), "image"),
    "categorical paths": (lambda: pd.Series(names("png"), dtype="category"), "image"),
    "categorical sentences": (lambda: pd.Series(sentences(), dtype="category"), "text"),
    "paths with a rate": (lambda: [{"path": name, "sampling_rate": 8000} for name in names("wav")], "audio"),
    "waves with a rate": (lambda: [{"array": wave(0.1), "sampling_rate": 16_000.0}] * ROWS, "audio"),
    "lists of words": (lambda: pa.array([["a", "b"], ["c"]] * 12, pa.list_(pa.string_view())), "text"),
    "NumPy's print": (lambda: [str(vector) for vector in numbers], "vector"),
    "NumPy's repr": (lambda: list(map(repr, numbers)), "vector"),
    "tensors in text form": (lambda: list(map(str, torch.from_numpy(numbers))), "vector"),
    "scalars in text form": (lambda: [str(list(vector)) for vector in numbers], "vector"),
    "lists in text form": (lambda: [str(vector.tolist()) for vector in numbers], "vector"),
    "paths in text form": (lambda: [str([name, name]) for name in names("png")], "image"),
    "paths with semicolons": (lambda: [f"{name};{name}" for name in names("png")], "image"),
    "base64": (lambda: encoded(), "image"),
    "data addresses": (lambda: encoded("data:image/png;base64,"), "image"),
    "names without endings": (lambda: [f"ISIC_{row:07d}" for row in range(ROWS)], "image"),
    "names with a space behind": (lambda: [f"{name} " for name in names("png")], "image"),
    "marks among paths": (lambda: ["nan", "None", "NULL", *names("png")[3:]], "image"),
}  # fmt: skip


def inspected(cells: Any, folder: Path) -> Inspection:
    """Inspect a column `cell` in a table of the library that it is from."""
    if isinstance(cells, pd.Series):
        table: Any = pd.DataFrame({"cell": cells, "label": LABELS})
    elif isinstance(cells, pl.Series):
        table = pl.DataFrame({"cell": cells, "label": LABELS})
    elif isinstance(cells, pa.Array):
        table = pa.table({"cell": cells, "label": LABELS})
    else:
        table = [{"cell": cell, "label": label} for cell, label in zip(cells, LABELS, strict=True)]
    return plait.inspect(table, "label", root=folder)


@pytest.mark.parametrize("name", CELLS)
def test_a_column_is_what_its_cells_are(name: str, folder: Path) -> None:
    make, modality = CELLS[name]
    inspection = inspected(make(), folder)
    assert inspection.schema["cell"].modality == modality
    assert not inspection.problems


FEATURES = {
    "vector": (datasets.Array2D((2, 3), "float32"), lambda row: [[row, 1, 2], [3, 4, 5]]),
    "image": (datasets.Array3D((8, 10, 3), "uint8"), lambda row: pixels[row].tolist()),
    "audio": (
        {"path": datasets.Value("string"), "sampling_rate": datasets.Value("int32")},
        lambda row: {"path": f"{row}.wav", "sampling_rate": 16_000},
    ),
}


@pytest.mark.parametrize("modality", FEATURES)
def test_features_of_hugging_face_are_columns(modality: str, folder: Path) -> None:
    feature, make = FEATURES[modality]
    features = datasets.Features({"cell": feature, "label": datasets.Value("string")})
    rows = {"cell": list(map(make, range(ROWS))), "label": LABELS}
    inspection = plait.inspect(datasets.Dataset.from_dict(rows, features=features), "label", root=folder)
    assert inspection.schema["cell"].modality == modality


@pytest.mark.parametrize(
    "make",
    [
        lambda row: [COLOURS[row % 3], "large"],
        lambda row: str([COLOURS[row % 3], "large"]),
        lambda row: json.dumps([COLOURS[row % 3]]),
        lambda row: str(np.array([COLOURS[row % 3], "large"])),
    ],
)
def test_lists_of_labels_are_several_labels_a_row(make: Callable[[int], Any]) -> None:
    rows = [{"x": row * 1.5, "label": make(row)} for row in range(ROWS)]
    assert plait.inspect(rows, "label").tasks["label"][0] == "multilabel"


def test_lists_of_classes_are_several_labels_a_row() -> None:
    lists = datasets.Sequence(datasets.ClassLabel(names=COLOURS))
    rows = {"x": list(range(ROWS)), "label": [[row % 3, (row + 1) % 3] for row in range(ROWS)]}
    features = datasets.Features({"x": datasets.Value("float32"), "label": lists})
    inspection = plait.inspect(datasets.Dataset.from_dict(rows, features=features), "label")
    assert inspection.tasks["label"][0] == "multilabel"


UNREAD: dict[str, tuple[Any, str]] = {
    "waves of several lengths": ([numbers[0, : 1 + row % 3] for row in range(ROWS)], "'sampling_rate'"),
    "long vectors as NumPy prints them": ([str(np.arange(2000) * 0.1)] * ROWS, "without their middle"),
    "bytes of no file": ([b"ab"] * ROWS, "no images"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_a_column_that_nothing_reads_is_a_warning(name: str, folder: Path) -> None:
    cells, remedy = UNREAD[name]
    inspection = inspected(cells, folder)
    assert inspection.schema["cell"].role == "ignored"
    [warning] = inspection.warnings
    assert re.match("column 'cell' is left out: no (modality reads cells of type|cell can be read)", warning)
    assert remedy in warning


def test_a_fit_warns_of_a_column_that_nothing_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"x": numbers[:, 0], "waves": [[1.0] * row for row in range(ROWS)], "label": LABELS}
    plait.fit(pa.table(rows), "label", overrides=TINY, out=tmp_path / "run")
    assert "warning: column 'waves' is left out: no modality reads" in capsys.readouterr().err


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "halves of characters": (lambda: objects(["hi \ud83d there"] * ROWS), "half of a surrogate pair"),
    "halves beside bytes": (lambda: objects(["\ud83d", b"x"] * 12), "column 'cell', row 0: .*surrogate"),
    "halves beside numbers": (lambda: objects([1, "\ud83d"] * 12), "column 'cell', row 1: .*surrogate"),
    "halves in paths": (lambda: objects([{"path": "\ud83d"}] * ROWS), "column 'cell', row 0: .*surrogate"),
    "halves in lists": (lambda: objects([["a"], ["b", "\ud83d"]] * 12), "column 'cell', row 1: .*surrogate"),
    "intervals": (lambda: pd.Series(pd.interval_range(0, ROWS)), "type Interval; convert it to text"),
    "objects": (lambda: pl.Series([{"a": 1}] * ROWS), "type struct with a; make each a column"),
    "floats for pixels": (lambda: objects(list(pixels / 255)), "give an image as uint8"),
    "complex waves": (lambda: [{"array": numbers[0] * 1j, "sampling_rate": 1}] * ROWS, "audio as numbers"),
    "cubes for waves": (lambda: [{"array": pixels[0], "sampling_rate": 1}] * ROWS, "shape 8x10x3"),
    "a rate of zero": (lambda: [{"array": numbers[0], "sampling_rate": 0}] * ROWS, "came 0"),
    "a rate in words": (lambda: [{"array": numbers[0], "sampling_rate": "fast"}] * ROWS, "came 'fast'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_cell_is_refused_by_name(name: str, folder: Path) -> None:
    make, message = REFUSED[name]
    with pytest.raises(TableError, match=message):
        inspected(make(), folder)


# --- indices ---------------------------------------------------------------------------------------------


def as_parquet(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_parquet(path)
    return path


def as_csv(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path)
    return path


def as_csv_twice(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path)
    pd.read_csv(path).to_csv(path)
    return path


INDEXED: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "frame": lambda frame, path: frame,
    "arrow": lambda frame, path: pa.Table.from_pandas(frame),
    "dataset": lambda frame, path: datasets.Dataset.from_pandas(frame),
    "parquet": as_parquet,
    "csv": as_csv,
    "csv of a csv": as_csv_twice,
}


@pytest.mark.parametrize("name", INDEXED)
def test_an_index_without_a_name_is_no_input(name: str, tmp_path: Path) -> None:
    """Frames of one class each, put together, count from 0 again: their index tells the class."""
    frames = []
    for number, label in enumerate("ab"):
        frames.append(pd.DataFrame({"x": numbers[: 8 + 4 * number, 0], "label": label}))
    source = INDEXED[name](pd.concat(frames), tmp_path / "table")
    if isinstance(source, Path):
        source = source.rename(source.with_suffix(".parquet" if name == "parquet" else ".csv"))
    assert plait.inspect(source, "label").schema.of("input") == ["x"]


# --- rows ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> plait.Model:
    rows = pd.DataFrame({"x": numbers[:, 0], "label": LABELS})
    return plait.fit(rows, "label", overrides=TINY, out=tmp_path_factory.mktemp("run") / "run", quiet=True)


@pytest.mark.parametrize(
    ("rows", "count"),
    [({}, 1), ([{}], 1), ([{}] * 5, 5), ([], 0), (pd.DataFrame(index=range(2)), 2), ([{}, {"x": 1}], 2)],
)
def test_every_dict_is_a_row_even_an_empty_one(model: plait.Model, rows: Any, count: int) -> None:
    expected = model.predict({"x": 1.0})
    for keep in (False, True):
        answers = model.predict(rows, keep=keep)
        assert answers.num_rows == count
        assert answers.column_names[-4:] == expected.column_names


@pytest.fixture(scope="module")
def seer(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> plait.Model:
    """Return a model of images that were given by their paths."""
    rows = pa.table({"x": names("png"), "label": LABELS})
    options = [
        *TINY,
        "modalities.image.size=16",
        "columns.x.encoder={name: cnn, channels: [4, 8], pool: mean}",
    ]
    out = tmp_path_factory.mktemp("seer") / "run"
    return plait.fit(rows, "label", root=folder, overrides=options, out=out, quiet=True)


FORMS: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "bytes": lambda path: path.read_bytes(),
    "open file": lambda path: io.BytesIO(path.read_bytes()),
    "image": Image.open,
    "pixels": lambda path: np.asarray(Image.open(path)),
    "tensor": lambda path: torch.from_numpy(np.asarray(Image.open(path)).transpose(2, 0, 1).copy()),
    "base64": lambda path: base64.b64encode(path.read_bytes()).decode(),
    "data address": lambda path: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(),
    "address": lambda path: path.as_uri(),
    "dict": lambda path: {"bytes": path.read_bytes(), "path": None},
}


@pytest.mark.parametrize("name", FORMS)
def test_an_image_may_come_in_any_form_later(name: str, seer: plait.Model, folder: Path) -> None:
    path = folder / "3.png"
    [expected] = seer.predict({"x": str(path)}).to_pylist()
    form = FORMS[name](path)
    assert seer.predict({"x": form}).to_pylist() == [expected]
    in_frame = seer.predict(pd.DataFrame({"x": objects([form, str(path)])}))
    first, second = in_frame["label_probability_a"].to_pylist()
    assert first == second


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"columns": ["x", "y"], "data": [[1, 2], -3]}', "row 1: expected an array of 2 cells, came int"),
        ('{"columns": ["x"], "data": [{"x": 1}]}', "row 0: expected an array of 1 cells, came dict"),
        ('[["x", "y"], [1, 2], null]', "row 1: expected an array of 2 cells, came NoneType"),
        ('{"columns": ["x\\ud83d"], "data": [[1]]}', "the name of column 0: .*surrogate"),
    ],
)
def test_arrays_of_json_that_are_no_rows_are_named(
    model: plait.Model, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(TableError, match=message):
        model.predict(tmp_path / "table.json")


def test_columns_of_json_may_be_named_by_numbers(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text(pd.DataFrame([[1, "a"], [2, "b"]]).to_json(orient="split"))
    inspection = plait.inspect(tmp_path / "table.json", "1")
    assert [column.name for column in inspection.schema] == ["0", "1"]
    assert inspection.schema.rows == 2

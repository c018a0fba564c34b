from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from plait.errors import TableError
from plait.table.read import read
from support.tables import typed_cells

DATA = {"name": ["é", "b", None], "n": [1, 2, 3], "x": [0.5, None, 2.0]}


def write(folder: Path, kind: str) -> Path:
    path, table = folder / f"t.{kind}", pa.table(DATA)
    if kind in ("csv", "tsv"):
        sep = "," if kind == "csv" else "\t"
        path.write_text(
            "\n".join(
                sep.join("" if v is None else str(v) for v in row)
                for row in [DATA, *zip(*DATA.values(), strict=True)]
            )
        )
    elif kind == "jsonl":
        import json

        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    elif kind == "parquet":
        pa.parquet.write_table(table, path)
    elif kind == "feather":
        pa.feather.write_feather(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "feather", "arrow"])
def test_files(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    assert typed_cells(path) == DATA
    assert read(path).root == tmp_path


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame, pl.DataFrame, lambda d: pa.table(d).to_pylist()])
def test_objects(make: Any) -> None:
    assert read(make(DATA)).data.to_pydict() == DATA


def test_one_row_and_hugging_face_datasets() -> None:
    import datasets

    assert read({"photo": "a.png", "title": None}).data.to_pylist() == [{"photo": "a.png", "title": None}]
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    assert read(data).data.to_pydict() == {"text": ["a", "b"], "label": ["yes", "no"]}
    with pytest.raises(TableError, match=r"one split.*dataset\['train'\]"):
        read(datasets.DatasetDict({"train": data}))


def test_csv_keeps_codes_and_knows_types(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        '\ufeffcode,n,x,flag,note,empty\n007,1,1.5,true,NA,\n012,NA,2,false,"a, ""b""",\n', encoding="utf-8"
    )
    assert typed_cells(path) == {
        "code": ["007", "012"],
        "n": [1, None],
        "x": [1.5, 2.0],
        "flag": [True, False],
        "note": ["NA", 'a, "b"'],
        "empty": [None, None],
    }


def test_columns_without_a_name_get_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('"",x, \n1,2,3\n')
    assert typed_cells(path) == {"Unnamed: 0": [1], "x": [2], "Unnamed: 2": [3]}


def test_marks_are_missing_beside_numbers_and_words_beside_words(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,z\n" + "\n".join(f"{i},{i}" for i in range(40)) + "\n?,-\n.,no\n1,yes\n2,perhaps\n")
    cells = typed_cells(path)
    assert cells["x"][-4:] == [None, None, 1, 2]
    assert cells["z"][-4:] == ["-", "no", "yes", "perhaps"]
    path.write_text("grade,n,flag\n?,NA,true\n?,,-\n")
    assert typed_cells(path) == {"grade": ["?", "?"], "n": [None, None], "flag": [True, None]}


def test_csv_of_a_spreadsheet_with_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('"price, net";n;code;note\n1,5;3;007;a, b\n-2;NA;015;3,4\n;4;1;x\n', encoding="utf-8")
    assert typed_cells(path) == {
        "price, net": [1.5, -2.0, None],
        "n": [3, None, 4],
        "code": ["007", "015", "1"],
        "note": ["a, b", "3,4", "x"],
    }
    path.write_text("a\tb\n1,5\tx\n")
    assert typed_cells(path) == {"a": [1.5], "b": ["x"]}
    path.write_text("text\nyes; and no\n")
    assert typed_cells(path) == {"text": ["yes; and no"]}


def test_folder_of_class_folders(tmp_path: Path) -> None:
    for side in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / side / label).mkdir(parents=True)
            (tmp_path / side / label / "1.png").write_bytes(b"x")
    assert read(tmp_path / "train").data.to_pydict() == {
        "image": ["cat/1.png", "dog/1.png"],
        "label": ["cat", "dog"],
    }
    assert read(tmp_path).data["split"].to_pylist() == ["test", "test", "train", "train"]
    assert not read(tmp_path).notes


def test_files_beside_class_folders_are_named(tmp_path: Path) -> None:
    for name in ("cat/1.png", "3.png", "4.png", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    table = read(tmp_path)
    assert table.data["image"].to_pylist() == ["cat/1.png"]
    (note,) = table.notes
    assert note.endswith("2 files lie beside the class folders, and are left out: 3.png, 4.png")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "no file '.*gone.csv': did you mean 'gone.tsv'"),
        ("t.pkl", b"x", "cannot tell what 't.pkl' is by its ending; plait reads .csv.*unpickling runs code"),
        ("t.csv", b"", "is an empty file"),
        ("t.parquet", b"not parquet", "cannot be read as PARQUET"),
        ("t.csv", b"a,b\n1,2,3\n", r"cannot be read as CSV: row 0 \(line 2\) has 3 cells, expected 2"),
        ("t.csv", b"a,a\n1,2\n", "more than one column named 'a'"),
    ],
)
def test_unreadable_files_say_what_to_do(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    (tmp_path / "gone.tsv").write_text("a\n1\n")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=message):
        read(tmp_path / name)


def test_objects_that_are_no_table() -> None:
    with pytest.raises(TableError, match=r"expected a path, a pandas or polars frame.*got int"):
        read(3)
    with pytest.raises(TableError, match="a dict is one row"):
        read({"a": [1, 2], "b": [3, 4]})
    with pytest.raises(TableError, match="root 'nowhere' is no folder"):
        read([{"a": 1}], root="nowhere")
    with pytest.raises(TableError, match=r"has no column 'lable': did you mean 'label'\?"):
        read([{"label": 1}]).column("lable")

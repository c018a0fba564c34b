"""Texts and labels of any table, and columns that are given the wrong modality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

import plait
from plait.cli.main import run
from plait.errors import TableError

ROWS = 60
X = np.random.default_rng(0).normal(size=ROWS).tolist()
FAST = ["training.epochs=1"]


def table(labels: object = None, **columns: Any) -> pa.Table:
    return pa.table({"x": X, **columns, "label": ["a", "b"] * 30 if labels is None else labels})


@pytest.mark.parametrize(
    "text",
    [
        "a" * 300 + "/" + "b" * 500,
        "é" * 200 + "/" + "é" * 200,
        "in\0put",
        "../../" * 60,
        "C:\\no\\such\\place",
        "//server/share",
        "~root/x",
        "   ",
        "a\nb/" + "c" * 400,
        "words " * 100_000,
    ],
    ids=["long name", "bytes", "NUL", "dots", "drive", "share", "home", "spaces", "lines", "long"],
)
def test_any_text_may_be_in_any_cell(text: str) -> None:
    cells = [text + (str(row) if text.strip() else "") for row in range(6)]
    rows = [
        {"x": cell, "note": f"{cell} and {row} words", "label": "ab"[row % 2]}
        for row, cell in enumerate(cells)
    ]
    inspection = plait.inspect(rows, "label")
    assert not inspection.problems
    assert inspection.schema["note"].role in ("input", "id")


@pytest.mark.parametrize("name", ["in\0put", "a/b/" * 100, "\x1b[31m", "n" * 5000])
def test_any_text_may_name_a_column(name: str) -> None:
    columns = {name: X, "label": ["a", "b"] * 30}
    for source in (
        pa.table(columns),
        pd.DataFrame(columns),
        pl.DataFrame(columns),
        [{name: 1.5, "label": "a"}] * 2,
    ):
        assert name in [column.name for column in plait.inspect(source, "label").schema]


def test_half_a_character_is_refused_by_row() -> None:
    rows = [{"x": "fine", "label": 0}, {"x": "hi \ud83d there", "label": 1}]
    with pytest.raises(TableError, match=r"column 'x', row 1: the text holds .* half of a surrogate pair"):
        plait.inspect(rows, "label")


def test_texts_of_a_page_are_not_called_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = np.array(["the", "old", "house", "by", "a", "river", "with", "green", "doors"])
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 79)) for _ in range(ROWS)]
    plait.fit(table(note=texts), "label", out=tmp_path / "run", overrides=FAST)
    assert "longer than" not in capsys.readouterr().err


TAGS = [["red", "big"], ["blue"], [], ["new york", None], None, ["green", "small"]] * 10


@pytest.mark.parametrize(
    "cells",
    [pa.array(TAGS), pa.array([str(tags or []) for tags in TAGS])],
    ids=["lists", "lists in text form"],
)
def test_lists_of_words_are_learned_from_as_text(cells: pa.Array, tmp_path: Path) -> None:
    inspection = plait.inspect(table(tags=cells), "label")
    assert inspection.schema["tags"].modality == "text"
    assert "lists of words, 6 different" in inspection.schema["tags"].reason
    model = plait.fit(table(tags=cells), "label", out=tmp_path / "run", overrides=FAST, quiet=True)
    in_lists = model.predict(table(tags=pa.array(TAGS)))
    in_texts = model.predict(table(tags=pa.array([str(tags or []) for tags in TAGS])))
    for name in ("label_probability_a", "problem"):
        assert in_lists[name].to_pylist() == in_texts[name].to_pylist()


@pytest.mark.parametrize("modality", ["category", "number", "datetime"])
def test_lists_are_no_single_values(modality: str) -> None:
    inspection = plait.inspect(table(tags=pa.array(TAGS)), "label", columns={"tags": modality})
    shown = "\n".join(inspection.warnings)
    assert "column 'tags'" in shown
    assert "cannot be read" in shown or f"which {modality} cannot read" in shown


@pytest.mark.parametrize("modality", ["image", "audio", "video", "number", "datetime", "vector"])
def test_inspection_says_that_words_are_no_such_cells(modality: str) -> None:
    texts = [f"some words about thing {row}" for row in range(ROWS)]
    inspection = plait.inspect(table(note=texts), "label", columns={"note": modality})
    (warning,) = inspection.warnings
    if modality == "vector":
        assert "column 'note' has cells of type string, which vector cannot read" in warning
    else:
        assert "column 'note': 60 of 60 cells cannot be read: more than 5%" in warning
        assert "--column note=text" in warning


@pytest.mark.parametrize("modality", ["text", "category", "video"])
def test_inspection_says_what_a_column_of_images_looks_like(modality: str, tmp_path: Path) -> None:
    for row in range(ROWS):
        Image.new("RGB", (4, 4), (row, 0, 0)).save(tmp_path / f"{row}.png")
    names = [f"{row}.png" for row in range(ROWS)]
    inspection = plait.inspect(table(photo=names), "label", root=tmp_path, columns={"photo": modality})
    assert inspection.schema["photo"].modality == modality
    assert "set in the recipe, but its cells look like image" in inspection.schema["photo"].reason


@pytest.mark.parametrize(("odd", "shown"), [(1e30, "1e+30"), (-1e19, "-1e+19"), (-9999.0, "-9999")])
def test_a_label_far_beyond_all_others_is_named(
    odd: float, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [*X[:-1], odd]
    expected = f"target 'label': row 59 has {shown}, over 1,000 times as far from the median as usual"
    (warning,) = plait.inspect(table(labels), "label").warnings
    assert expected in warning
    pd.DataFrame({"x": X, "label": labels}).to_csv(tmp_path / "t.csv", index=False)
    assert run(["inspect", str(tmp_path / "t.csv"), "--target", "label"]) == 0
    assert f"row 59 has {shown}" in capsys.readouterr().out
    plait.fit(table(labels), "label", out=tmp_path / "run", overrides=FAST, evaluate=False)
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    "labels",
    [np.exp(3 * np.array(X)), [0.0] * 50 + [1, 2, 3, 4, 5, 900, 2, 3, 4, 5], [*[3.0] * 57, 1, 2, 10_000]],
    ids=["incomes", "mostly zero", "few"],
)
def test_skewed_labels_are_not_odd(labels: Any) -> None:
    assert not plait.inspect(table(labels), "label", columns={}).warnings


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (pa.array([*range(ROWS - 1), 10**19], pa.uint64()), "regression"),
        (pa.array(np.array(X, np.float16)), "regression"),
        (pa.array([None, *np.array(X[1:], np.float16)], pa.float16()), "regression"),
        (pa.array(pd.Categorical(["a", "b", None] * 20)), "classification"),
        (pa.array(pd.Categorical([1, 2, None] * 20)), "classification"),
        (pa.array([["a", None], ["a", "b"], []] * 20), "multilabel"),
        (pa.array([[None], ["a", "b"], ["b", ""]] * 20), "multilabel"),
    ],
    ids=[
        "1e19",
        "float16",
        "float16 with null",
        "categorical",
        "whole categorical",
        "null in list",
        "null alone",
    ],
)
def test_labels_of_every_type_are_learned(labels: pa.Array, task: str, tmp_path: Path) -> None:
    model = plait.fit(
        table(labels), "label", out=tmp_path / "run", overrides=FAST, evaluate=False, quiet=True
    )
    assert model.plan.tasks["label"].name == task
    answers = model.predict(table()).column_names
    classes = {
        "classification": ("a", "b") if "label_probability_a" in answers else (1, 2),
        "multilabel": "ab",
    }
    assert answers == ["label", *(f"label_probability_{c}" for c in classes.get(task, ())), "problem"]

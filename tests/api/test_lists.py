"""Several images in one cell: any number of them, in any order, some of them bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import plait
from plait.nn.batch import Values
from support.tables import FAST, make_rows


@pytest.fixture
def lists(tmp_path: Path) -> list[dict[str, Any]]:
    rows = make_rows(tmp_path, 48)
    return [
        {"photos": [rows[(i + 3 * k) % 48]["photo"] for k in range(i % 4)], "label": row["label"]}
        for i, row in enumerate(rows)
    ]


def test_values_take_the_items_of_their_rows() -> None:
    values = Values(torch.arange(6), count_B=torch.tensor([2, 0, 3, 1]))
    selected = values.take(torch.tensor([2, 1, 0, 2]))
    assert selected.x.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert selected.count_B is not None
    assert selected.count_B.tolist() == [3, 0, 2, 3]


def test_rows_with_several_images_train_and_predict(tmp_path: Path, lists: list[dict[str, Any]]) -> None:
    options = [
        "training.epochs=40",
        "training.precision=fp32",
        "modalities.image.size=16",
        "columns.photos.encoder={name: cnn, channels: [4, 8], pool: mean}",
        "training.learning_rate=0.01",
    ]
    lists[7]["photos"] = ["gone.png", *lists[7]["photos"]]
    model = plait.fit(lists, "label", root=tmp_path, out=tmp_path / "run", overrides=options, quiet=True)
    assert model.schema["photos"].modality == "image"
    assert model.schema["photos"].missing == 0
    answers = model.predict(lists, root=tmp_path)
    is_correct = []
    for answer, row in zip(answers["label"].to_pylist(), lists, strict=True):
        if row["photos"]:
            is_correct.append(answer == row["label"])
    assert np.mean(is_correct) > 0.9
    assert [i for i, problem in enumerate(answers["problem"].to_pylist()) if problem] == [7]

    reversed_rows = [{**row, "photos": row["photos"][::-1]} for row in lists]
    expected = answers["label_probability_red"].to_numpy()
    actual = model.predict(reversed_rows, root=tmp_path)["label_probability_red"].to_numpy()
    assert np.allclose(actual, expected, atol=1e-5)


def test_a_row_by_itself_is_answered_as_among_others(tmp_path: Path, lists: list[dict[str, Any]]) -> None:
    model = plait.fit(
        lists,
        "label",
        root=tmp_path,
        out=tmp_path / "run",
        overrides=[o for o in FAST if "photo" not in o],
        quiet=True,
    )
    among_others = model.predict(lists, root=tmp_path)["label_probability_red"].to_numpy()
    for i in (4, 5, 7):
        single_row = pa.Table.from_pylist([lists[i]])
        by_itself = model.predict(single_row, root=tmp_path)["label_probability_red"].to_numpy()
        assert by_itself == pytest.approx(among_others[i : i + 1], abs=1e-4)

"""A row without any cell is answered by the baseline, whatever members say about it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import plait
from support.tables import FAST, make_rows, write_csv

MEMBERS = "ensemble={members: {linear: linear, trees: trees}, folds: 3}"


def test_a_row_without_cells_gets_the_class_frequencies(tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    for row in rows[:36]:
        row["label"] = "red"
    table = write_csv(tmp_path / "train.csv", rows)
    model = plait.fit(table, "label", out=tmp_path / "run", overrides=[*FAST, MEMBERS], quiet=True)
    share = model.record["priors"]["label"]  # logarithms

    loaded = plait.load(tmp_path / "run", quiet=True)
    filled = {"photo": str(tmp_path / rows[0]["photo"]), "price": 1.0}
    for row in ({}, {"text": None}, dict.fromkeys(["photo", "text", "price", "shop"])):
        answer, beside = loaded.predict([row, filled]).to_pylist()
        classes = [name.removeprefix("label_probability_") for name in answer if "probability" in name]
        assert classes == loaded.network.tasks["label"].classes  # type: ignore[attr-defined]
        for name, expected in zip(classes, share, strict=True):
            assert answer[f"label_probability_{name}"] == pytest.approx(math.exp(expected), abs=0.01)
        (alone,) = loaded.predict(filled).to_pylist()
        assert beside["label"] == alone["label"]

"""Answers whose columns would have one name are refused before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import plait
from plait.errors import RecipeError

ROWS = [{"x": float(i % 7), "label": "ab"[i % 2]} for i in range(20)]


def fit(rows: list[dict[str, Any]], target: Any, out: Path, **options: Any) -> None:
    plait.fit(rows, target, out=out, quiet=True, **options)


@pytest.mark.parametrize(
    ("column", "cells", "arguments", "message"),
    [
        (
            "label_probability_a",
            [i / 3 for i in range(20)],
            {"target": ["label", "label_probability_a"]},
            "two columns 'label_probability_a': of the answers of 'label', and of the answers of "
            "'label_probability_a'",
        ),
        (
            "label_probability_b",
            [f"r{i}" for i in range(20)],
            {"columns": {"label_probability_b": "id"}},
            "two columns 'label_probability_b': of the id column 'label_probability_b', and of the answers "
            "of 'label'; rename one of them",
        ),
        (
            "problem",
            [f"r{i}" for i in range(20)],
            {"columns": {"problem": "id"}},
            "two columns 'problem': of the problems of a row, and of the id column 'problem'",
        ),
    ],
)
def test_two_columns_of_one_name_are_refused(
    column: str, cells: list[Any], arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    rows = [{**row, column: cell} for row, cell in zip(ROWS, cells, strict=True)]
    with pytest.raises(RecipeError) as caught:
        fit(rows, arguments.pop("target", "label"), tmp_path / "run", **arguments)
    assert message in str(caught.value)
    assert not list((tmp_path / "run").glob("*.safetensors"))

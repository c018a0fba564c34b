"""The pages of a run: names of columns and targets are shown as they are, whatever they hold."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plait
from plait.evaluation.report import escape_markdown, write
from plait.prediction import artifact

TARGET = r"$\frac$"
COLUMN = "*<b>x</b>\x1b[2J`"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of a table whose columns have names that Markdown, HTML or formulas would read."""
    rng = np.random.default_rng(0)
    rows = [{COLUMN: rng.normal(), "some_price": rng.normal(), TARGET: "ab"[i % 2]} for i in range(24)]
    folder = tmp_path_factory.mktemp("named") / "run"
    return plait.fit(rows, TARGET, out=folder, overrides=["training.epochs=1"], quiet=True)


def test_the_card_escapes_markdown(named: Any) -> None:
    card = (named.folder / "README.md").read_text(encoding="utf-8")
    assert r"\*\<b\>x\</b\>\\x1b\[2J\` (number)" in card
    assert r"\$\\frac\$" in card
    assert "some_price (number)" in card, "an underscore within a word is no mark"


def test_a_target_that_is_no_formula_is_drawn(named: Any) -> None:
    report = (named.folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" in report
    assert "<b>x</b>" not in report


def test_a_chinese_target_is_drawn_without_a_warning(tmp_path: Path) -> None:
    rows = [{"x": float(i), "人口": float(i)} for i in range(24)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plait.fit(rows, "人口", out=tmp_path / "run", overrides=["training.epochs=1"], quiet=True)
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    drawn = report[report.index("<svg") : report.index("</svg>")]
    assert "人口" in re.sub(r"<!--.*?-->", "", drawn)


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("# title", r"\# title"),
        ("- item", r"\- item"),
        ("1. item", r"\1. item"),
        ("two\nlines", "two lines"),
        ("_private_ balanced_accuracy", r"\_private\_ balanced_accuracy"),
    ],
)
def test_marks_of_markdown_are_escaped(text: str, markdown: str) -> None:
    assert escape_markdown(text) == markdown


def test_both_pages_count_the_same_parameters_again_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rows = [{"x": rng.normal(), "w": rng.normal(), "y": "ab"[i % 2]} for i in range(24)]
    plait.fit(rows, "y", out=tmp_path / "run", overrides=["training.epochs=1"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "trained parameters" in line]
    parameters = next(part for part in line.split("; ") if "trained parameters" in part)
    write(tmp_path / "run", artifact.load(tmp_path / "run"))
    for page in ("README.md", "report.html"):
        assert parameters in (tmp_path / "run" / page).read_text(encoding="utf-8")

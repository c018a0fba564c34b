"""A metric is an entry in a task's `metrics`: it then appears wherever metrics do."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import plait
from plait.tasks.aligning.ranking import RankRows
from plait.tasks.alignment import Alignment
from plait.tasks.classification import Classification
from plait.tasks.predicting.metrics import ClassRows, accuracy
from support.tables import FAST, make_rows


def error_rate(rows: ClassRows) -> float:
    return 1 - accuracy(rows)


def worst_rank(rows: RankRows) -> float:
    return float(rows.rank_BD.max())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model whose tasks, a classification and an alignment, have one metric more."""
    folder = tmp_path_factory.mktemp("metric")
    rows, overrides = make_rows(folder, 36), [*FAST, "training.epochs=1", "columns.text.modality=text"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Classification.metrics, "error_rate", error_rate)
        patch.setitem(Alignment.metrics, "worst_rank", worst_rank)
        yield plait.fit(
            rows,
            "label",
            align=["photo", "text"],
            root=folder,
            out=folder / "run",
            overrides=overrides,
            quiet=True,
        )


def test_it_is_in_the_history(trained: plait.Model) -> None:
    with (trained.folder / "log.csv").open() as file:
        (epoch,) = csv.DictReader(file)
    assert float(epoch["valid_label_error_rate"]) == pytest.approx(1 - float(epoch["valid_label_accuracy"]))
    assert any(name.endswith("worst_rank") for name in epoch)


def test_it_is_evaluated_with_an_interval_and_a_baseline(trained: plait.Model) -> None:
    target = trained.record["evaluation"]["validation"]["targets"]["label"]
    score, baseline = target["metrics"]["error_rate"], target["baseline"]
    assert score["value"] == pytest.approx(1 - target["metrics"]["accuracy"]["value"])
    assert score["low"] <= score["value"] <= score["high"]
    assert baseline["error_rate"] == pytest.approx(1 - baseline["accuracy"])


def test_it_is_evaluated_in_each_direction(trained: plait.Model) -> None:
    (alignment,) = trained.record["evaluation"]["validation"]["alignments"].values()
    for direction in alignment["directions"]:
        rank, low, high = direction["metrics"]["worst_rank"]
        assert low <= rank == high


@pytest.mark.parametrize("metric", ["error_rate", "worst_rank"])
@pytest.mark.parametrize("page", ["report.html", "README.md"])
def test_it_is_in_the_report_and_the_card(trained: plait.Model, page: str, metric: str) -> None:
    assert metric in (trained.folder / page).read_text(encoding="utf-8")


def test_it_is_on_the_screen(
    trained: plait.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.evaluate(make_rows(tmp_path, 12), tmp_path).show()
    printed = capsys.readouterr().out
    assert "error_rate" in printed
    assert "worst_rank" in printed

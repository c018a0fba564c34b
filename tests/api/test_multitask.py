"""Several targets in one model: what each reads and weighs, missing labels, and single-target models."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plait
from plait.api import fit
from plait.balancing.base import Share, balancings
from plait.data.plan_training import plan_training
from plait.errors import Interrupted, RecipeError
from plait.nn.batch import Batch
from plait.recipe import sections
from plait.tasks.transcription import Transcription
from plait.training.loop import Callback, Training
from plait.training.validation import normalised_score
from support.answers import assert_same_answers
from support.components import variants
from support.tables import FAST, make_rows, write_csv
from support.training import StopAtStep

BOTH = [
    *FAST,
    "tasks.seen={name: classification, column: label, inputs: [photo]}",
    "tasks.told={name: classification, column: label, inputs: [text]}",
]
BALANCED = [(name, options) for name, options in variants(balancings) if name != "equal"]


@pytest.fixture
def several(tmp_path: Path) -> list[dict[str, Any]]:
    """A label, a number whose unit is large, and labels in half of the rows only."""
    rows = make_rows(tmp_path, 60)
    for i, row in enumerate(rows):
        row["cents"] = 10_000.0 * (row["price"] + 1)
        row["half"] = row["label"] if i % 2 else None
    return rows


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> tuple[plait.Model, Path]:
    folder = tmp_path_factory.mktemp("apart")
    table = write_csv(folder / "t.csv", make_rows(folder, 90))
    overrides = [o for o in BOTH if "epochs" not in o] + [
        "training.epochs=15",
        "training.learning_rate=0.003",
    ]
    return plait.fit(table, out=folder / "run", overrides=overrides, quiet=True), folder


def test_each_target_is_answered_from_its_own_inputs(apart: tuple[plait.Model, Path]) -> None:
    model, folder = apart
    rows = make_rows(folder, 12, seed=4)
    answers = model.predict(rows, folder)
    assert {"seen", "told"} <= set(answers.column_names)
    assert answers["seen"].to_pylist() == [row["label"] for row in rows]
    swapped = [{**row, "text": rows[(i + 1) % 12]["text"], "price": 99.0} for i, row in enumerate(rows)]
    answers_swapped = model.predict(swapped, folder)
    assert answers_swapped["seen_probability_red"].equals(answers["seen_probability_red"]), (
        "the text has no part in it, and the price neither"
    )
    assert not answers_swapped["told_probability_red"].equals(answers["told_probability_red"])
    evaluation = model.evaluate(rows, folder)
    assert set(evaluation.targets) == {"seen", "told"}
    assert evaluation.targets["seen"].subsets == [], "of a target with one input there are no subsets"
    assert_same_answers(plait.load(model.folder, quiet=True).predict(rows, folder), answers)


def test_targets_without_labels_in_the_table_are_named(
    several: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*FAST, "training.epochs=1"]
    model = plait.fit(
        several, ["label", "cents", "half"], root=tmp_path, out=tmp_path / "run", overrides=options
    )
    capsys.readouterr()
    without = [{**row, "half": None} for row in several]
    for row in without:
        del row["cents"]
    assert list(model.evaluate(without, tmp_path).targets) == ["label"]
    assert "not scored, because the table has no labels: cents, half" in capsys.readouterr().err


def test_a_target_would_not_read_its_own_answers(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    overrides = [
        *FAST,
        "tasks.again={name: classification, column: shop}",
        "columns.shop={role: input, modality: category}",
    ]
    with pytest.raises(
        RecipeError,
        match=r"'again' would read its own answers in 'shop': name its inputs, as in tasks\.again\.inputs",
    ):
        plait.fit(rows, "label", root=tmp_path, out=tmp_path / "x", overrides=overrides, quiet=True)
    fine = [
        *overrides[:-2],
        "tasks.again={name: classification, column: shop, inputs: [text]}",
        overrides[-1],
    ]
    model = plait.fit(rows, "label", root=tmp_path, out=tmp_path / "run", overrides=fine, quiet=True)
    assert "shop" in model.inputs
    assert model.targets == ["label", "again"]


def test_wrong_names_get_the_nearest_one(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    for override, message in {
        "tasks.label={name: classification, inputs: [foto]}": "no input column 'foto': did you mean 'photo'",
        "tasks.label={name: classification, column: lable}": "no column 'lable': did you mean 'label'",
        "balancing=famos": "no component 'famos' in balancing: did you mean 'famo'",
        "training.best_by=lable": "no target 'lable' to choose the best epoch by: did you mean 'label'",
    }.items():
        with pytest.raises(plait.PlaitError, match=message):
            plait.fit(
                rows, "label", root=tmp_path, out=tmp_path / "x", overrides=[*FAST, override], quiet=True
            )


class KeepShares(Callback):
    """Keep what the losses are weighed by."""

    shares: Mapping[str, Share]

    def before_step(self, training: Training, batch: Batch) -> None:
        self.shares = training.step.shares


def test_losses_are_in_units_of_the_baseline_and_weighed(
    several: list[dict[str, Any]], tmp_path: Path
) -> None:
    keep = KeepShares()
    overrides = [*FAST, "tasks.half={name: classification, weight: 3}"]
    plait.fit(
        several,
        ["label", "cents", "half"],
        root=tmp_path,
        out=tmp_path / "run",
        overrides=overrides,
        callbacks=[keep],
        quiet=True,
    )
    shares = keep.shares
    assert shares["label"].scale == pytest.approx(np.log(3), rel=0.02), "three classes, alike"
    assert shares["cents"].scale == pytest.approx(1.0, rel=1e-3), (
        "the variance of what is standardised, whatever its unit"
    )
    assert shares["cents"].squared
    assert (shares["half"].weight, shares["label"].weight) == (3.0, 1.0)


def test_the_best_epoch_has_the_best_mean_normalised_score(
    several: list[dict[str, Any]], tmp_path: Path
) -> None:
    overrides = [
        *FAST,
        "training.epochs=6",
        "training.learning_rate=0.01",
        "tasks.half={name: classification, weight: 3}",
    ]
    model = plait.fit(
        several,
        ["label", "cents", "half"],
        root=tmp_path,
        out=tmp_path / "run",
        overrides=overrides,
        quiet=True,
    )
    with (model.folder / "log.csv").open() as file:
        log = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    smooth = [
        np.mean([row["valid_normalised_score"] for row in log[max(0, i - 4) : i + 1]]) for i in range(6)
    ]
    best = model.record["best_epoch"]
    assert smooth[best - 1] > max(smooth) - 1e-4, "the log is rounded, and two epochs may tie"
    last = log[-1]
    evaluations = model.record["evaluation"]["validation"]["targets"]
    baseline = {target: evaluation["baseline"] for target, evaluation in evaluations.items()}
    scores = [
        (last["valid_label_accuracy"] - baseline["label"]["accuracy"]) / (1 - baseline["label"]["accuracy"]),
        1 - last["valid_cents_rmse"] / baseline["cents"]["rmse"],
        3 * (last["valid_half_accuracy"] - baseline["half"]["accuracy"]) / (1 - baseline["half"]["accuracy"]),
    ]
    assert last["valid_normalised_score"] == pytest.approx(sum(scores) / 5, abs=1e-5)


def test_best_by_names_the_target_that_counts(several: list[dict[str, Any]], tmp_path: Path) -> None:
    overrides = [*FAST, "training.epochs=6", "training.learning_rate=0.01", "training.best_by=cents"]
    model = plait.fit(
        several, ["label", "cents"], root=tmp_path, out=tmp_path / "run", overrides=overrides, quiet=True
    )
    with (model.folder / "log.csv").open() as file:
        errors = [float(row["valid_cents_rmse"]) for row in csv.DictReader(file)]
    smooth = [np.mean(errors[max(0, i - 4) : i + 1]) for i in range(6)]
    assert smooth[model.record["best_epoch"] - 1] < min(smooth) * 1.0001, "the log is rounded"


def test_normalised_score_is_0_at_baseline_1_if_perfect() -> None:
    assert normalised_score(0.9, 0.8, True) == pytest.approx(0.5)
    assert normalised_score(0.5, 2.0, False) == pytest.approx(0.75)
    assert normalised_score(3.0, 2.0, False) == pytest.approx(-0.5)
    assert normalised_score(1.0, 1.0, True) == 1.0


@pytest.mark.parametrize(("name", "options"), BALANCED)
def test_every_way_of_balancing_trains_and_goes_on_after_a_stop(
    name: str, options: dict[str, Any], several: list[dict[str, Any]], tmp_path: Path
) -> None:
    table = write_csv(tmp_path / "t.csv", [{**row, "half": row["half"] or ""} for row in several])
    overrides = [
        *FAST,
        f"balancing={json.dumps({'name': name, **options})}",
        "training.epochs=4",
        "training.batch_size=8",
        "columns.price.role=ignored",
    ]
    targets = ["label", "cents", "half"]
    uninterrupted = plait.fit(table, targets, out=tmp_path / "uninterrupted", overrides=overrides, quiet=True)
    stop = [StopAtStep(9)]
    with pytest.raises(Interrupted):
        plait.fit(table, targets, out=tmp_path / "resumed", overrides=overrides, callbacks=stop, quiet=True)
    fit.resume(tmp_path / "resumed", quiet=True)
    assert (tmp_path / "uninterrupted" / "weights.safetensors").read_bytes() == (
        tmp_path / "resumed" / "weights.safetensors"
    ).read_bytes()
    plain = plait.fit(
        table,
        targets,
        out=tmp_path / "plain",
        overrides=[*FAST, *overrides[len(FAST) + 1 :]],
        quiet=True,
    )
    differ = [
        not torch.equal(a, b)
        for a, b in zip(
            uninterrupted.network.model.parameters(), plain.network.model.parameters(), strict=True
        )
    ]
    assert any(differ), "it is not what equal does"


def test_single_target_models_are_shown_beside(several: list[dict[str, Any]], tmp_path: Path) -> None:
    model = plait.fit(
        several,
        ["label", "cents"],
        root=tmp_path,
        out=tmp_path / "run",
        overrides=[*FAST, "singles=true"],
        quiet=True,
    )
    singles = model.record["singles"]
    assert set(singles) == {"label", "cents"}
    assert singles["label"]["test"] is None
    only = plait.fit(
        several,
        "cents",
        root=tmp_path,
        out=tmp_path / "only",
        overrides=[*FAST, "columns.label.role=ignored"],
        quiet=True,
    )
    expected = only.record["evaluation"]["validation"]["targets"]["cents"]["metrics"]["rmse"]["value"]
    assert singles["cents"]["validation"]["value"] == pytest.approx(expected, rel=0.35), (
        "as if the other target were not there"
    )
    page = (model.folder / "report.html").read_text()
    assert "one for each" in page
    assert f"{singles['cents']['validation']['value']:.3f}" in page


def test_tasks_that_do_not_fuse_refuse_what_needs_a_fused_vector(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    for override, message in {"quality=good": "ensemble", "training.mixup=0.2": "mixup"}.items():
        with pytest.raises(RecipeError, match=message):
            plait.fit(
                rows,
                "text",
                root=tmp_path,
                out=tmp_path / "x",
                overrides=[*FAST, "tasks.text=generation", override],
                quiet=True,
            )


def test_only_tasks_that_need_more_steps_get_more() -> None:
    recipe = sections.TrainingRecipe()
    plain, speech = plan_training(recipe, 400), plan_training(recipe, 400, [Transcription])
    assert (plain.batch_size, plain.epochs) == (32, 42)
    assert (speech.batch_size, speech.epochs) == (16, 100)


def test_targets_with_labels_elsewhere_go_on_after_a_stop(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", make_rows(tmp_path, 48))
    options = [
        *BOTH,
        "tasks.words={name: generation, column: text, inputs: [photo]}",
        "tasks.told.inputs=[price]",
        "training.batch_size=8",
    ]
    plait.fit(table, out=tmp_path / "uninterrupted", overrides=options, quiet=True)
    with pytest.raises(Interrupted):
        plait.fit(table, out=tmp_path / "resumed", overrides=options, callbacks=[StopAtStep(7)], quiet=True)
    model = fit.resume(tmp_path / "resumed", quiet=True)
    assert model.targets == ["seen", "told", "words"]
    assert (tmp_path / "uninterrupted" / "weights.safetensors").read_bytes() == (
        tmp_path / "resumed" / "weights.safetensors"
    ).read_bytes()

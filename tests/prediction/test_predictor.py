"""What `predict` answers: the decoded output of `forward`, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import plait
from plait.prediction.predictor import BATCH
from plait.table.read import read
from plait.tasks.base_prediction import LateFusion, Prediction

OPTIONS = ["training.epochs=3", "training.precision=fp32", "encoders.text=bag"]
WORDS = ("cherry", "leaf", "sky")
TARGETS = ("label", "tags", "value")


def make_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of two blocks, a text and two plain columns, in which many cells are missing.

    Each block says something about each target. Every thirtieth row has no cell at all.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        kind = number % 3
        has_text = number % 4 != 1 and number % 30 != 0
        has_price = number % 5 != 2 and number % 30 != 0
        has_shop = number % 6 != 2 and number % 30 != 0
        text_kind = kind if rng.random() < 0.7 else int(rng.integers(3))
        rows.append(
            {
                "text": f"a {WORDS[text_kind]} near {rng.integers(100)}" if has_text else None,
                "price": float(rng.normal(kind, 1.0)) if has_price else None,
                "shop": ("north", "south")[int(rng.integers(2))] if has_shop else None,
                "label": WORDS[kind],
                "tags": [word for word in ("cheap", WORDS[kind]) if rng.random() < 0.8],
                "value": float(rng.normal(kind, 0.3)),
            }
        )
    return rows


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> plait.Model:
    """A classification, a multilabel task and a regression, each of two blocks."""
    rows = pa.Table.from_pylist(make_rows(240, seed=0))
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    return plait.fit(
        rows, TARGETS, columns={"text": "text"}, overrides=OPTIONS, out=folder, quiet=True, evaluate=False
    )


def task_of(model: plait.Model, target: str) -> Prediction:
    task = model.network.model.task(target)
    assert isinstance(task, Prediction)
    return task


def decoded_forward(model: plait.Model, table: pa.Table, target: str) -> dict[str, pa.Array]:
    """The columns of answers that the output of `forward` on the prepared rows means."""
    rows = model.network.prepare(read(table), targets=False)
    (batch,) = rows.in_order(len(rows))
    task = task_of(model, target)
    with torch.inference_mode():
        output = model.network.model(batch)[target]
    return task.answers(task.decode(output, thorough=True))


@pytest.mark.parametrize("target", ["label", "tags"])
def test_the_models_of_these_tests_are_calibrated(calibrated: plait.Model, target: str) -> None:
    task = task_of(calibrated, target)
    late_fusion = task.late_fusion
    assert isinstance(late_fusion, LateFusion)
    assert 0 < float(late_fusion.mixture_weight) < 1
    assert late_fusion.inverse_temperature_P.all()
    assert float(task.temperature) != 1


def test_the_predictors_tasks_are_trained(calibrated: plait.Model) -> None:
    task = calibrated.network.tasks["label"]
    assert task is calibrated.network.model.task("label")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("absent", [[], ["text"], ["price"], ["price", "shop"]])
def test_predict_is_the_decoded_output_of_forward(
    calibrated: plait.Model, target: str, absent: list[str]
) -> None:
    table = pa.Table.from_pylist(make_rows(60, seed=1)).drop_columns(absent)
    answers = calibrated.predict(table)
    expected = decoded_forward(calibrated, table, target)
    assert expected
    for suffix, column in expected.items():
        name = f"{target}_{suffix}" if suffix else target
        answer = answers[name].to_pylist()
        if pa.types.is_floating(column.type):
            assert answer == pytest.approx(column.to_pylist())
        else:
            assert answer == column.to_pylist()


@pytest.mark.parametrize("absent", [[], ["text"]])
def test_predict_calls_forward_once_for_each_batch(calibrated: plait.Model, absent: list[str]) -> None:
    rows_of_calls = []
    hook = calibrated.network.model.register_forward_hook(
        lambda module, arguments, output: rows_of_calls.append(len(output["label"]))
    )
    calibrated.predict(pa.Table.from_pylist(make_rows(BATCH + 6, seed=1)).drop_columns(absent))
    hook.remove()
    assert rows_of_calls == [BATCH, 6]


@pytest.mark.parametrize("target", ["label", "tags"])
def test_late_fusion_has_a_part_in_what_is_compared(calibrated: plait.Model, target: str) -> None:
    """Without it, the answers of rows with two blocks are others, and those of other rows are the same."""
    table = pa.Table.from_pylist(make_rows(60, seed=1))
    answers = decoded_forward(calibrated, table, target)
    late_fusion = task_of(calibrated, target).late_fusion
    assert late_fusion is not None

    mixture_weight = late_fusion.mixture_weight.clone()
    late_fusion.mixture_weight.fill_(0.0)
    unmixed = decoded_forward(calibrated, table, target)
    late_fusion.mixture_weight.copy_(mixture_weight)

    has_text = np.array([text is not None for text in table["text"].to_pylist()])
    has_price = np.array([price is not None for price in table["price"].to_pylist()])
    has_shop = np.array([shop is not None for shop in table["shop"].to_pylist()])
    has_both = has_text & (has_price | has_shop)
    for suffix, column in answers.items():
        if not suffix.startswith("probability_"):
            continue
        changes = np.abs(column.to_numpy() - unmixed[suffix].to_numpy())
        assert (changes[has_both] > 1e-6).any()
        assert (changes[~has_both] < 1e-6).all()

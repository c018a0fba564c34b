"""`fit` and `tune` under a time limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import plait
from plait.encoders.pretrained import Pretrained
from plait.errors import RecipeError, TrainingError
from plait.nn.batch import Values
from plait.runs import deadline
from plait.runs.folder import CHECKPOINT
from plait.training import pace
from plait.training.loop import Callback, Training
from support import tiny_models


def rows(count: int = 60) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    made = []
    for row in range(count):
        made.append({"x": float(rng.normal(row % 2, 0.4)), "z": float(rng.normal()), "label": "ab"[row % 2]})
    return made


class Clock:
    """Stands in for the module `time`: each look at it takes a hundredth of a second, on any machine."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.01
        return self.now

    def process_time(self) -> float:
        """Return the same time: the processor works for nobody else."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deadline, "time", clock)
    monkeypatch.setattr(pace, "time", clock)
    return clock


def test_a_generous_limit_changes_nothing(tmp_path: Path) -> None:
    overrides = ["training.epochs=3", "training.patience=0"]
    free = plait.fit(rows(), "label", overrides=overrides, out=tmp_path / "free", quiet=True)
    limited = plait.fit(
        rows(), "label", overrides=overrides, out=tmp_path / "limited", quiet=True, time_limit="1h"
    )
    assert limited.record["history"] == free.record["history"]
    assert limited.predict(rows(5)).equals(free.predict(rows(5)))


def test_a_limit_leaves_fewer_epochs_and_says_so(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["training.epochs=100000", "training.patience=0"]
    model = plait.fit(rows(), "label", overrides=overrides, out=tmp_path / "run", time_limit=10)
    assert 1 <= model.record["epochs"] < 100_000
    assert "time limit: " in capsys.readouterr().err
    assert model.predict(rows(3)).num_rows == 3


def test_members_without_time_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def over(self: deadline.Deadline) -> bool:
        """Return True from the moment at which the network has been trained."""
        return self.is_set and (tmp_path / "run" / CHECKPOINT).is_file()

    monkeypatch.setattr(deadline.Deadline, "is_over", property(over))
    model = plait.fit(
        rows(),
        "label",
        quality="fast",
        overrides=["training.epochs=2"],
        out=tmp_path / "run",
        time_limit="1h",
    )
    assert "members" not in model.record
    assert "no time is left for members" in capsys.readouterr().err


def test_a_member_that_cannot_end_in_time_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A linear model says so before it begins, and the trees after it have its time."""
    monkeypatch.setattr("plait.members.linear.space_seconds", lambda xs: 1e9)
    overrides = ["training.epochs=2"]
    model = plait.fit(
        rows(), "label", quality="fast", overrides=overrides, out=tmp_path / "run", time_limit="1h"
    )
    assert set(model.record["members"]["label"]) == {"network", "trees"}
    assert "time limit: no time is left for linear" in capsys.readouterr().err


def test_a_member_whose_embeddings_take_too_long_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others have the rest of the time."""
    folder = tiny_models.bert(tmp_path / "bert")
    slow: list[bool] = []
    embed = Pretrained.embed

    def slowly(self: Pretrained, values: Values) -> Values:
        slow.append(True)
        return embed(self, values)

    def over(self: deadline.Deadline) -> bool:
        """Return True once after each batch of embeddings."""
        return self.is_set and bool(slow) and slow.pop()

    monkeypatch.setattr(Pretrained, "embed", slowly)
    monkeypatch.setattr(deadline.Deadline, "is_over", property(over))
    texts = [{**row, "text": f"a word and {row['label']}"} for row in rows()]
    vectors = f"{{name: network, encoders: {{text: {{name: pretrained, model: {folder}, mode: frozen}}}}}}"
    model = plait.fit(
        texts,
        "label",
        columns={"text": "text"},
        overrides=[
            "training.epochs=2",
            "pretrained=off",
            f"ensemble.members={{vectors: {vectors}, line: linear}}",
        ],
        out=tmp_path / "run",
        time_limit="1h",
    )
    assert set(model.record["members"]["label"]) == {"network", "line"}
    assert "time limit: no time is left to prepare cells for vectors" in capsys.readouterr().err
    assert model.predict(texts[:3]).num_rows == 3


def test_models_of_single_targets_end_with_the_limit(clock: Clock, tmp_path: Path) -> None:
    many = [{**row, "z label": "cd"[row["z"] > 0]} for row in rows()]
    overrides = ["training.epochs=100000", "training.patience=0", "singles=true"]
    model = plait.fit(
        many, ["label", "z label"], overrides=overrides, out=tmp_path / "run", quiet=True, time_limit=10
    )
    assert 1 <= model.record["epochs"] < 100_000
    assert set(model.record["singles"]) == {"label", "z label"}


def test_a_loss_is_the_mean_of_the_steps_that_there_were(tmp_path: Path) -> None:
    """The time ends after the first of ten steps."""
    losses: list[float] = []

    class Over(Callback):
        def after_step(self, training: Training, loss: Tensor) -> None:
            losses.append(float(loss))
            training.deadline = deadline.Deadline(ends=1.0)

    overrides = ["quality=network", "training.epochs=1", "training.batch_size=6", "split.valid=0"]
    model = plait.fit(
        rows(), "label", overrides=overrides, out=tmp_path / "run", quiet=True, callbacks=[Over()]
    )
    assert len(losses) == 1
    assert model.record["history"][0]["loss"] == pytest.approx(losses[0])


def test_a_network_is_refitted_only_if_time_is_left_for_members(tmp_path: Path) -> None:
    overrides = ["training.epochs=2", "training.refit=on"]
    model = plait.fit(rows(), "label", overrides=overrides, out=tmp_path / "run", quiet=True, time_limit="1h")
    assert model.record["refit"] == 60


def test_a_limit_that_ends_before_training_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the time limit was over while .*, before anything was trained"):
        plait.fit(rows(), "label", out=tmp_path / "run", quiet=True, time_limit=1)


def test_a_limit_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="time limit 'soon': expected a second or more"):
        plait.fit(rows(), "label", out=tmp_path / "run", quiet=True, time_limit="soon")


def test_trials_end_with_their_part_of_the_limit(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    overrides = ["training.epochs=2"]
    model = plait.tune(
        rows(), "label", overrides=overrides, trials=10_000, out=tmp_path / "run", time_limit=4
    )
    assert "of 10,000 trials" in capsys.readouterr().err
    assert model.predict(rows(3)).num_rows == 3

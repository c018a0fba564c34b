"""A model that would answer NaN is not saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import plait
from plait.errors import TrainingError
from plait.training.checkpoint import Progress
from plait.training.finite import check_model
from plait.training.loop import Callback

ROWS = [{"x": float(i), "y": "ab"[i % 2]} for i in range(20)]


class BreakLastStep(Callback):
    """Break the weights after the last step, whose loss is measured before."""

    def after_step(self, training: Any, loss: torch.Tensor) -> None:
        with torch.no_grad():
            next(training.model.parameters()).fill_(math.inf)


def test_weights_that_are_not_finite_are_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    check_model(model, {"loss": 1.0, "valid_y_roc_auc": math.nan}, 0.1)
    model[1].running_var.fill_(math.nan)  # type: ignore[operator,union-attr]
    with pytest.raises(TrainingError, match=r"'1.running_var' .* not finite; .*learning_rate=0.01"):
        check_model(model, {}, 0.1)


@pytest.mark.parametrize(("name", "side"), [("loss", "training"), ("valid_loss", "validation")])
@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_losses_that_are_not_finite_are_named(name: str, side: str, loss: float) -> None:
    with pytest.raises(TrainingError, match=f"the {side} loss of the trained model is {loss}; try a smaller"):
        check_model(nn.Linear(1, 1), {name: loss}, 0.1)


def test_scores_are_those_of_the_epoch_that_is_kept() -> None:
    history = [{"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0}]
    progress = Progress(epoch=3, best_epoch=2, history=history)
    assert (progress.scores(best=True), progress.scores(best=False)) == (history[1], history[2])
    assert Progress().scores(best=True) == {}


def test_a_model_that_breaks_in_its_last_step_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not finite; try a smaller learning rate"):
        plait.fit(
            ROWS,
            "y",
            overrides=["training.epochs=1", "training.batch_size=16"],
            callbacks=[BreakLastStep()],
            out=tmp_path / "run",
            quiet=True,
        )
    assert not (tmp_path / "run" / "weights.safetensors").exists()

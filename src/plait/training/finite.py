"""End a training whose loss is not finite, and refuse a trained model that would answer NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from plait.errors import TrainingError

LOSSES = ("loss", "valid_loss")  # of an epoch; metrics may be NaN, such as an AUC of one class


def check_loss(loss: float, epoch: int, rate: float) -> None:
    """Raise `TrainingError` for a training loss that is not finite. `rate` is the learning rate."""
    if not math.isfinite(loss):
        raise TrainingError(f"the training loss is no longer finite in epoch {epoch}; {_remedy(rate)}")


def check_model(model: nn.Module, scores: Mapping[str, float], rate: float) -> None:
    """Raise `TrainingError` if weights of the model, or the losses of its epoch, are not finite.

    The loss of a step is taken before its weights change, so the last step of a training may break a model
    without a sign. `rate` is the learning rate that it was trained with.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise TrainingError(f"the weights '{name}' of the trained model are not finite; {_remedy(rate)}")
    for name in LOSSES:
        loss = scores.get(name, 0.0)
        if not math.isfinite(loss):
            side = "validation" if name.startswith("valid") else "training"
            raise TrainingError(f"the {side} loss of the trained model is {loss}; {_remedy(rate)}")


def _remedy(rate: float) -> str:
    return f"try a smaller learning rate: --set training.learning_rate={rate / 10:g}"

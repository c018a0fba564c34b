"""Count how often the host waits for the GPU in a step, and train on the CPU where there is a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from plait.nn.batch import Batch
from plait.training.loop import Callback, Training

WAITS = "called a synchronizing CUDA operation"


@contextmanager
def without_gpu() -> Iterator[None]:
    """Let plait see no GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@contextmanager
def exact_products() -> Iterator[None]:
    """Compute products and convolutions in all digits of fp32, not in tf32, and always in the same way."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic = False, False, True
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic = before


@dataclass
class Losses(Callback):
    """Keep the loss of every step."""

    losses: list[Tensor] = field(default_factory=list)

    def after_step(self, training: Training, loss: Tensor) -> None:
        self.losses.append(loss)

    def numbers(self) -> list[float]:
        return [float(loss) for loss in self.losses]


@dataclass
class CountWaits(Callback):
    """Count the operations of each step that wait for the GPU. The first step also sets up libraries.

    `steps` has the places in the code that waited, for each step.
    """

    steps: list[list[str]] = field(default_factory=list)
    catching: Any = None
    caught: list[warnings.WarningMessage] = field(default_factory=list)

    def before_step(self, training: Training, batch: Batch) -> None:
        self.catching = warnings.catch_warnings(record=True)
        self.caught = self.catching.__enter__()
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")

    def after_step(self, training: Training, loss: Tensor) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self.catching.__exit__(None, None, None)
        waits = [f"{w.filename}:{w.lineno}" for w in self.caught if WAITS in str(w.message)]
        self.steps.append(waits)

"""Callbacks that watch a training, or stop it in its middle."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from plait.nn.batch import Batch
from plait.training.loop import Callback, Training
from plait.training.objective import Weights


@dataclass
class StopAtStep(Callback):
    """Stop a training at this step, as Ctrl-C would. `steps` counts the steps that began."""

    number: int
    steps: int = 0

    def before_step(self, training: Training, batch: Batch) -> None:
        self.steps += 1
        training.stop = self.steps == self.number


@dataclass
class RecordWeights(Callback):
    """Keep the weights of the losses in each step, and the units that targets are weighed in."""

    weights: list[Weights] = field(default_factory=list)
    factors: list[dict[str, float]] = field(default_factory=list)

    def before_step(self, training: Training, batch: Batch) -> None:
        self.weights.append(training.step.weights)
        self.factors.append(training.step.factors)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a run."""
    return load_file(folder / "weights.safetensors")


def same(first: Path, second: Path) -> bool:
    """Whether two runs ended with equal weights."""
    first_weights, second_weights = weights(first), weights(second)
    if first_weights.keys() != second_weights.keys():
        return False
    return all(torch.equal(first_weights[name], second_weights[name]) for name in first_weights)

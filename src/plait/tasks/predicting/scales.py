"""The scales on which numbers are learned: as they are, or the logarithm of their mean. B rows."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from plait.table.json import JSON

MAX_LOG = 30.0  # of an output: its exponential is finite in float32
BEYOND = float(np.log(2))  # how far an answer may exceed all training rows, as a logarithm
TINY = 1e-9  # the mean of labels that are all 0 has a logarithm with it
POWER = 1.5  # of Tweedie's variance: between Poisson's (1) and the gamma distribution's (2)


class Scale(ABC):
    """How numbers become targets, and outputs become answers in the target's own unit."""

    @abstractmethod
    def target(self, y_B: np.ndarray) -> np.ndarray:
        """Return numbers in the form that losses compare outputs with, in float64."""

    @abstractmethod
    def label(self, target_B: np.ndarray) -> np.ndarray:
        """Invert `target`."""

    @abstractmethod
    def answer(self, output_B: np.ndarray) -> np.ndarray:
        """Return the answers that outputs mean, in the target's own unit and in float64."""

    @abstractmethod
    def loss(self, output_B: Tensor, target_B: Tensor) -> Tensor:
        """Return the loss of each row, (B,)."""

    @abstractmethod
    def baseline(self, target_B: Tensor) -> Tensor:
        """Return the output whose answer is the mean of these labels."""

    @abstractmethod
    def mix(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """Return the output whose answer is the weighted mean of answers, from outputs (models, B)."""

    @abstractmethod
    def as_target(self, output_B: Tensor) -> Tensor:
        """Return answers in the form of targets."""

    @abstractmethod
    def booster(self) -> JSON:
        """Return LightGBM's objective."""


class Standard(Scale):
    """Numbers with a mean of 0 and a standard deviation of 1 over the training rows.

    The loss is the squared error, or with `delta` Huber's loss, which is linear beyond it.
    """

    def __init__(self, mean: float, std: float, delta: float | None) -> None:
        self.mean = mean
        self.std = std
        self.delta = delta

    def target(self, y_B: np.ndarray) -> np.ndarray:
        """Return standardised numbers."""
        return (y_B - self.mean) / self.std

    def label(self, target_B: np.ndarray) -> np.ndarray:
        """Return standardised numbers in the target's own unit."""
        return target_B.astype(np.float64) * self.std + self.mean

    def answer(self, output_B: np.ndarray) -> np.ndarray:
        """Return standardised numbers in the target's own unit."""
        return self.label(output_B)

    def loss(self, output_B: Tensor, target_B: Tensor) -> Tensor:
        """Return squared errors or Huber losses, in squared standard deviations."""
        target_B = target_B.to(output_B.dtype)  # torch 2.11 has no gradient of two types
        if self.delta is not None:
            return F.huber_loss(output_B, target_B, reduction="none", delta=self.delta)
        return F.mse_loss(output_B, target_B, reduction="none")

    def baseline(self, target_B: Tensor) -> Tensor:
        """Return the mean."""
        return target_B.float().mean()

    def mix(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted mean."""
        weighted = outputs * weights[:, None]
        return weighted.sum(0)

    def as_target(self, output_B: Tensor) -> Tensor:
        """Return the outputs, which have this form."""
        return output_B

    def booster(self) -> JSON:
        """Return the objective of the loss."""
        if self.delta is not None:
            return {"objective": "huber", "alpha": self.delta}
        return {"objective": "regression"}


class Log(Scale):
    """Outputs are the logarithm of the mean that is answered, in units of the training rows' mean.

    The loss is Tweedie's deviance: its variance grows with the mean to the power of 1.5, and it allows zeros
    (Jorgensen 1987, "Exponential dispersion models"). The mean has the least expected deviance, so answers
    are unbiased. The exponential of a mean of logarithms would be too small (Duan 1983).

    `largest` is the largest number of the training rows. No answer is more than twice that.
    """

    def __init__(self, mean: float, largest: float) -> None:
        self.mean = mean
        self.max_output = float(np.log(largest / mean)) + BEYOND

    def target(self, y_B: np.ndarray) -> np.ndarray:
        """Return numbers in units of the training rows' mean."""
        return y_B / self.mean

    def label(self, target_B: np.ndarray) -> np.ndarray:
        """Return numbers in the target's own unit."""
        return target_B.astype(np.float64) * self.mean

    def answer(self, output_B: np.ndarray) -> np.ndarray:
        """Return exponentials in the target's own unit."""
        bounded_B = np.clip(output_B.astype(np.float64), -MAX_LOG, self.max_output)
        return np.exp(bounded_B) * self.mean

    def loss(self, output_B: Tensor, target_B: Tensor) -> Tensor:
        """Return deviances: 4 (sqrt(y) - sqrt(m))^2 / sqrt(m) for a label y and an answer m."""
        root_B = (output_B.clamp(-MAX_LOG, MAX_LOG) / 2).exp()
        label_root_B = target_B.clamp(min=0).sqrt()
        return 4 * (label_root_B - root_B) ** 2 / root_B

    def baseline(self, target_B: Tensor) -> Tensor:
        """Return the logarithm of the mean."""
        return target_B.float().mean().clamp(min=TINY).log()

    def mix(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """Return the logarithm of the weighted mean of answers."""
        answers = self.as_target(outputs) * weights[:, None]
        return answers.sum(0).log()

    def as_target(self, output_B: Tensor) -> Tensor:
        """Return exponentials."""
        return output_B.clamp(-MAX_LOG, self.max_output).exp()

    def booster(self) -> JSON:
        """Return the objective whose raw scores are the outputs."""
        return {"objective": "tweedie", "tweedie_variance_power": POWER}


def mean_offset(scale: Log, output_B: Tensor, target_B: Tensor) -> float:
    """Return what makes the mean of the answers that of the labels, if it is added to outputs.

    These rows were not trained on. Their offset is the logarithm of a ratio of means, whose standard error
    comes from the residuals. It counts as far as it is larger than chance explains, as the positive part
    of James and Stein's estimator does (1961), so a few rows do not move answers.
    """
    answer_B = scale.as_target(output_B).double()
    label_B = target_B.double().clamp(min=0)
    total = float(label_B.sum())
    if total <= 0:
        return 0.0

    offset = float(np.log(total / float(answer_B.sum())))
    residual_B = label_B - answer_B * np.exp(offset)
    error = float((residual_B**2).sum().sqrt()) / total
    if abs(offset) <= error:
        return 0.0
    return offset * (1 - (error / offset) ** 2)

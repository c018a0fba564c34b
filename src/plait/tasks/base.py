"""What a task is. B rows, D fused width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from plait.modalities.base import Match
from plait.nn.batch import Tokens
from plait.recipe.registry import Options
from plait.recipe.sections import LEAST_STEPS, UNAUGMENTED, Between, Choices
from plait.table.problems import Problem
from plait.table.table import Source


class TaskOptions(Options):
    """What every task can be told: the `inputs` that it reads, all if left out; the `column` that its
    labels are in, that of its own name if left out, so that several tasks may have the same labels; and
    the `weight` of its loss beside those of others.
    """

    inputs: tuple[str, ...] = Field((), description="columns that it reads; all if empty")
    column: str = Field("", description="where its labels are; in the column of its own name if empty")
    weight: float = Field(1.0, gt=0, description="of its loss beside those of other targets")


class Task(nn.Module, ABC):
    """One target: its state, head, loss and metrics, and the way back from outputs to words.

    `score` names the metric that chooses the best epoch, and `higher` says whether more of it is
    better. `logits`: outputs are logits, which a temperature can calibrate; the head divides its own by
    the buffer `temperature`, 1 until then. `squared`: the loss is a squared error.

    `guesses`, a buffer that training sets: no training row had none of its inputs, so that a row like
    that may get the guess (see `blind`).

    A task that `fuses` answers from the fused vector of its inputs and from nothing else, so that it
    can also answer from one column's, from mixed rows, and in an ensemble; one that does not reads its
    inputs' tokens. One that `compares` rows with each other has no target column and needs no label;
    every other has the column of its own name.

    `modalities`: what columns it reads when no `inputs` are named, all if empty. For its inputs, where
    the recipe does not say otherwise, `encoders` has an encoder by modality, and `cells` options of the
    modality. `steps`: how many a training needs at least; `unaugmented`: the share of its epochs, at
    the end, that sees cells as they are. `tunes`: what `plait tune` tries of its options.
    """

    options: ClassVar[type[TaskOptions]]
    score: str
    higher: bool
    logits: ClassVar[bool]
    squared: ClassVar[bool] = False
    fuses: ClassVar[bool] = True
    compares: ClassVar[bool] = False
    modalities: ClassVar[tuple[str, ...]] = ()
    encoders: ClassVar[dict[str, Any]] = {}
    steps: ClassVar[int] = LEAST_STEPS
    unaugmented: ClassVar[float] = UNAUGMENTED
    from_files: ClassVar[bool] = (
        False  # whether its labels are files, of which more than a few bad ones are an error
    )
    cells: ClassVar[dict[str, dict[str, Any]]] = {}
    tunes: ClassVar[dict[str, Between | Choices]] = {}
    inputs: tuple[str, ...] = ()  # as in its options, and what `reads` says: whoever makes it sets both
    label_columns: list[str]
    temperature: Tensor
    guesses: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("guesses", torch.tensor(False))

    def read(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Those of a model's columns that it reads, in their order there."""
        return tuple(c for c in columns if not self.inputs or c in self.inputs)

    @classmethod
    @abstractmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        """Whether a target with these cells, nulls left out, is predicted by this task."""

    @classmethod
    def reads(cls, config: Any, name: str) -> list[str]:
        """The columns of the table that the task `name` finds its target in: one, or of a task that
        compares rows several, and its `cells` below are then structs of these.
        """
        return [config.column or name]

    @classmethod
    def encoder_for(cls, config: Any, modality: str) -> dict[str, Any] | None:
        """The encoder of its inputs of a modality, where the recipe does not say; None for the
        modality's own.
        """
        return cls.encoders.get(modality)

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, cells: pa.ChunkedArray, name: str) -> Task:
        """The task for the target `name`, fitted on its training rows. Raises `TrainingError` when they
        cannot be learned from.
        """

    @abstractmethod
    def build_head(self, fused: int, encoded: dict[str, int]) -> None:
        """Makes the head, once the widths of the fused vector and of each column's tokens are known."""

    @abstractmethod
    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        """The target as a tensor, True where there is a label, and labels that cannot be used. They may
        have to be read from files.
        """

    @abstractmethod
    def forward(self, fused_BD: Tensor, encoded: dict[str, Tokens]) -> Tensor:
        """The output: logits, or the scaled value."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """The mean loss over the labelled rows; zero when there are none."""

    def load_pretrained(self) -> None:
        """Loads weights that training begins from, once the head is built."""
        return

    @property
    def calibrates(self) -> bool:
        """Whether something is left to validation rows."""
        return self.logits or self.compares

    def calibrate(self, output: Tensor, target: Tensor) -> None:
        """Sets, once trained, what is left to validation rows: the temperature."""
        self.temperature.fill_(fit_temperature(self, output, target))

    def guess(self, target: Tensor) -> float:
        """The loss of the best guess that sees no input, on these labels: what losses of different
        kinds are measured in.
        """
        prior = self.prior(target)
        return float(
            self.loss(
                prior.expand(len(target), *prior.shape), target, torch.ones(len(target), dtype=torch.bool)
            )
        )

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        """What is kept of a batch's output once nothing more is learned from it, and what `answers` and
        `measure` are given: (B, ...), and zeros mean nothing where lengths differ (see `joined`).
        `thorough`: as good as it gets, not as fast.
        """
        return output

    def pseudo(self, output: Tensor, sure: float) -> tuple[Tensor, Tensor]:
        """Answers in the form of targets, and True where the output gives them this probability. Of a
        task that fuses.
        """
        raise NotImplementedError

    @abstractmethod
    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """The answer under the key "", and more about it under suffixes such as "probability_cat"."""

    @abstractmethod
    def measure(self, output: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """Metrics over labelled rows, by name."""

    def measured(
        self, output: np.ndarray, target: np.ndarray, all_metrics: bool = True
    ) -> Callable[[np.ndarray], dict[str, float]]:
        """`measure` for some of these rows, by their numbers, for those who ask often: `all_metrics`,
        or what is quickly found, `score` among it.
        """
        return lambda rows: self.measure(output[rows], target[rows])

    @abstractmethod
    def prior(self, target: Tensor) -> Tensor:
        """The output, for one row and as `decode` leaves it, of the best guess that sees no input, from
        the training targets.
        """

    def blind(self) -> Tensor | None:
        """The output of a row that has none of the inputs, where no training row was like that
        (`guesses`) or had an empty cell of the columns that are there: the best guess from all their
        labels. None: whatever the head makes of nothing. Of a task that fuses.
        """
        return None

    def blend(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """One output from those of several models, (models, B, ...), with weights that add up to one:
        that of the mean of their answers, which for classes is the mean of probabilities. Of a task
        that fuses.
        """
        raise NotImplementedError

    def boosting(self, target: Tensor) -> list[tuple[dict[str, Any], Tensor]]:
        """What gradient-boosted trees are to learn: for each booster LightGBM's parameters and its own
        target. Their raw scores side by side are the output. Empty where trees cannot learn it. Of a
        task that fuses.
        """
        raise NotImplementedError

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that `fit` learned, as JSON."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: Any, state: dict[str, Any]) -> Task:
        """The inverse of `state`; the head is still to be built."""


def joined(parts: list[Tensor]) -> Tensor:
    """What was kept of several batches as one; texts and spectra of different lengths are padded with
    zeros.
    """
    if parts[0].ndim > 1:
        longest = max(part.shape[1] for part in parts)
        behind = (0, 0) * (parts[0].ndim - 2)
        parts = [F.pad(part, (*behind, 0, longest - part.shape[1])) for part in parts]
    return torch.cat(parts)


def masked_mean(loss_B: Tensor, labelled_B: Tensor) -> Tensor:
    """The mean of the labelled rows' losses, zero (with zero gradients) when there are none."""
    weight_B = labelled_B.to(loss_B.dtype)
    return (loss_B * weight_B).sum() / weight_B.sum().clamp(min=1)


def mean_of_softmax(outputs: Tensor, weights: Tensor) -> Tensor:
    """The log of the mean of the models' probabilities, from logits (models, B, classes)."""
    return (outputs.log_softmax(-1) + weights.clamp(min=1e-12).log()[:, None, None]).logsumexp(0)


def mean_of_sigmoid(outputs: Tensor, weights: Tensor) -> Tensor:
    """The logit of the mean of the models' probabilities, from logits (models, B, labels)."""
    share = weights.clamp(min=1e-12).log()[:, None, None]
    return (F.logsigmoid(outputs) + share).logsumexp(0) - (F.logsigmoid(-outputs) + share).logsumexp(0)


COOLEST, HOTTEST = (
    0.5,
    20.0,
)  # temperatures; few rows that are all answered right would else be taken for certainty


CALIBRATING = 20  # labelled rows that a temperature needs


def fit_temperature(task: Task, output: Tensor, target: Tensor) -> float:
    """The temperature by which logits are to be divided for the least loss on rows that were not
    trained on (Guo et al. 2017, "On calibration of modern neural networks"). 1 for outputs that are no
    logits, and for fewer than 20 rows.
    """
    if not task.logits or len(target) < CALIBRATING:
        return 1.0
    from scipy.optimize import minimize_scalar  # takes longer to import than a small model to predict

    everywhere = torch.ones(len(target), dtype=torch.bool)

    def loss(log_temperature: float) -> float:
        return float(task.loss(output / float(np.exp(log_temperature)), target, everywhere))

    found = minimize_scalar(loss, bounds=(np.log(COOLEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0

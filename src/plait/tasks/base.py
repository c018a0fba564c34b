"""What a task is. Three bases build on it: `Prediction`, `Writing` and `Comparison`. B rows, D width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from plait.modalities.base import Match
from plait.nn.batch import Encoded, Fused
from plait.recipe.registry import Component, Options, Registry
from plait.recipe.sections import LEAST_STEPS, UNAUGMENTED, Between, Choices
from plait.table.conventions.base import Convention
from plait.table.json import JSON
from plait.table.problems import Problem
from plait.table.table import Source
from plait.tasks.base_metrics import Metric, ScoredRows

MAIN = "\0main"  # the name of a task's own loss; its other losses have the names of blocks

# From an output, and the rows that count for it (all if None), to the mean loss over labelled rows.
LossOf: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]


class TaskOptions(Options):
    """Options of every task."""

    inputs: tuple[str, ...] = Field((), description="columns that it reads; all if empty")
    column: str = Field("", description="where its labels are; in the column of its own name if empty")
    weight: float = Field(1.0, gt=0, description="of its loss beside those of other targets")


@dataclass(frozen=True)
class Widths:
    """The widths that a head is built for: of the fused vector, and of each column's tokens.

    `blocks` are those of a prediction's columns. With `late_fusion`, unimodal heads of all blocks take part.
    """

    fused: int
    columns: dict[str, int]
    blocks: list[str] = field(default_factory=list)
    late_fusion: bool = False


@dataclass
class Outputs:
    """A task's outputs for some rows: its own, and those of the unimodal heads, for calibration.

    `present[b]` is True where the row has a cell of block b.
    """

    output: Tensor
    blocks: dict[str, Tensor] = field(default_factory=dict)
    present: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def joined(cls, of_batches: Sequence[Outputs]) -> Outputs:
        """Join the outputs of several batches."""
        first = of_batches[0]
        blocks, present = {}, {}
        for block in first.blocks:
            blocks[block] = torch.cat([outputs.blocks[block] for outputs in of_batches])
        for block in first.present:
            present[block] = torch.cat([outputs.present[block] for outputs in of_batches])
        return cls(torch.cat([outputs.output for outputs in of_batches]), blocks, present)

    def take(self, rows: Tensor) -> Outputs:
        """Return the outputs of some rows."""
        return self.map(lambda tensor: tensor[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> Outputs:
        """Return the same with every tensor changed."""
        blocks = {block: change(output) for block, output in self.blocks.items()}
        present = {block: change(present_B) for block, present_B in self.present.items()}
        return Outputs(change(self.output), blocks, present)


class Task(nn.Module, Component, ABC):
    """One target: its state, head, loss and metrics, and the way back from outputs to answers.

    `metrics` has functions of the rows that `score_rows` returns, by name. `score` names the main one,
    which chooses the best epoch; `higher` says whether more of it is better. `squared` says that the loss
    is a squared error, `may_stratify` that labels are classes, which can be dealt to the sides of a split
    in equal shares. `from_files` says that labels are files, of which more than a few bad ones are an
    error. `sorts_by_length` asks for batches of rows of about the same length, for less padding. A task
    without a target (`has_target`) compares the rows' own columns.

    `modalities` are those of the columns that it reads when no `inputs` are named; all if empty. For
    its inputs, where the recipe does not say otherwise, `encoders` has an encoder by modality, and
    `cells` has options of the modality. `steps` is the least number of training steps, `unaugmented`
    the share of the epochs, at the end, that sees cells as they are. `tunes` has what `plait tune`
    tries of its options.
    """

    options: ClassVar[type[TaskOptions]]
    metrics: dict[str, Metric]
    score: str
    higher: bool
    squared: ClassVar[bool] = False
    may_stratify: ClassVar[bool] = False
    has_target: ClassVar[bool] = True
    conventions: ClassVar[tuple[type[Convention], ...]] = ()
    from_files: ClassVar[bool] = False
    sorts_by_length: ClassVar[bool] = False
    modalities: ClassVar[tuple[str, ...]] = ()
    encoders: ClassVar[dict[str, JSON]] = {}
    cells: ClassVar[dict[str, JSON]] = {}
    steps: ClassVar[int] = LEAST_STEPS
    unaugmented: ClassVar[float] = UNAUGMENTED
    tunes: ClassVar[dict[str, Between | Choices]] = {}

    # As in its options, and what `reads` says. `connect` sets both.
    inputs: tuple[str, ...] = ()
    label_columns: list[str]

    # ---------------------------------------------------------------- what it reads

    @classmethod
    @abstractmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        """Return how well a target with these cells (without nulls) suits this task; None if it does not."""

    @classmethod
    def reads(cls, config: Any, name: str) -> list[str]:
        """Return the columns of the table that hold the target of the task `name`."""
        return [config.column or name]

    @classmethod
    def encoder_for(cls, config: Any, modality: str) -> JSON | None:
        """Return the encoder of its inputs of a modality, where the recipe does not say; None for the
        usual one.
        """
        return cls.encoders.get(modality)

    def connect(self, config: Any, name: str) -> None:
        """Say which columns it reads, as its options have them. Whoever makes a task calls this."""
        self.inputs, self.label_columns = config.inputs, self.reads(config, name)

    def read(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Return those of a model's columns that it reads, in their order there."""
        return tuple(column for column in columns if not self.inputs or column in self.inputs)

    # ---------------------------------------------------------------- its state

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, cells: pa.ChunkedArray, name: str) -> Task:
        """Return the task for the target `name`, fitted on its training rows.

        Raises `TrainingError` when they cannot be learned from.
        """

    @abstractmethod
    def state(self) -> JSON:
        """Return all that `fit` learned, as JSON."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: Any, state: JSON) -> Task:
        """Restore a task from its `state`; the head is still to be built."""

    @abstractmethod
    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        """Return the target as a tensor, True where there is a label, and labels that cannot be used.

        Labels may have to be read from files.
        """

    # ---------------------------------------------------------------- its head

    @abstractmethod
    def build(self, widths: Widths) -> None:
        """Make the head."""

    def load_pretrained(self) -> None:
        """Load weights that training starts from, once the head is built."""
        return

    @abstractmethod
    def answer(self, fused: Fused | None, encoded: Encoded) -> Tensor:
        """Return the output of some rows, as prediction has it."""

    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        """Return what is kept of a batch's output: what `answers` and `score_rows` take, (B, ...).

        Zeros mean nothing where lengths differ (see `joined`). `thorough` asks for the best answer, not
        the fastest.
        """
        return output

    # ---------------------------------------------------------------- training

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean loss over the labelled rows; zero when there are none."""

    @abstractmethod
    def losses(self, fused: Fused | None, encoded: Encoded, loss_of: LossOf) -> dict[str, Tensor]:
        """Return all losses that training adds up, by name; `MAIN` is among them."""

    def loss_weights(self, blocks: Iterable[str], unimodal_weight: float, left: float) -> dict[str, float]:
        """Return the weights of its losses when a share of `left` of the training is still to come."""
        return {}

    def sees_hidden_cells(self, columns: list[str]) -> bool:
        """Return whether training hides cells of these columns, a model's, from this task."""
        return True

    def outputs(self, fused: Fused | None, encoded: Encoded) -> Outputs | None:
        """Return what `calibrate` needs of some rows; None where nothing is left to calibrate."""
        return None

    def calibrate(self, outputs: Outputs, target: Tensor) -> None:
        """Set, once trained, what validation rows decide. The `outputs` are those of labelled rows."""
        return

    # ---------------------------------------------------------------- answers and metrics

    @abstractmethod
    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """Return the answer under the key "", and more about it under suffixes such as "probability_cat"."""

    @abstractmethod
    def score_rows(self, output: np.ndarray, target: np.ndarray) -> ScoredRows:
        """Return what `metrics` need of labelled rows. The output is as `decode` has it."""

    def measure(self, output: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """Return all metrics over labelled rows, by name."""
        rows = self.score_rows(output, target)
        return {name: metric(rows) for name, metric in self.metrics.items()}

    def measure_score(self, output: np.ndarray, target: np.ndarray) -> float:
        """Return the main metric over labelled rows."""
        return self.metrics[self.score](self.score_rows(output, target))

    @abstractmethod
    def baseline(self, target: Tensor) -> Tensor:
        """Return the output, for one row and as `decode` has it, of the best answer without inputs."""

    def baseline_loss(self, target: Tensor) -> float:
        """Return the loss of the baseline on these labels: the unit that losses of different kinds are
        compared in.
        """
        baseline = self.baseline(target)
        everywhere_B = torch.ones(len(target), dtype=torch.bool)
        return float(self.loss(baseline.expand(len(target), *baseline.shape), target, everywhere_B))


tasks = Registry[Task]("tasks")


def joined(outputs: list[Tensor]) -> Tensor:
    """Join what was kept of several batches. Texts and spectra of different lengths are padded with zeros."""
    if outputs[0].ndim > 1:
        longest = max(output.shape[1] for output in outputs)
        later_dimensions = (0, 0) * (outputs[0].ndim - 2)
        outputs = [F.pad(x, (*later_dimensions, 0, longest - x.shape[1])) for x in outputs]
    return torch.cat(outputs)


def masked_mean(loss_B: Tensor, labelled_B: Tensor) -> Tensor:
    """Return the mean of the labelled rows' losses: zero, with zero gradients, when there are none."""
    weight_B = labelled_B.to(loss_B.dtype)
    return (loss_B * weight_B).sum() / weight_B.sum().clamp(min=1)

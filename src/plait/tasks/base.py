"""What a task is. Three bases build on it: `Prediction`, `Writing` and `Comparison`. B rows, D width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from plait.modalities.base import Match
from plait.nn.batch import Encoded, Fused
from plait.recipe.bounds import MAX_WEIGHT
from plait.recipe.registry import Component, Options, Registry, hook
from plait.recipe.sections import LEAST_STEPS, UNAUGMENTED, Between, Choices
from plait.table.conventions.base import Convention
from plait.table.json import JSON
from plait.table.problems import Problem
from plait.table.table import Source
from plait.tasks.base_metrics import Metric, ScoredRows

# The name of a task's main loss. Its other losses have the names of blocks, and no column has this name.
MAIN = "\0main"


class TaskOptions(Options):
    """Options of every task."""

    inputs: tuple[str, ...] = Field((), description="columns that it reads; all if empty")
    column: str = Field("", description="where its labels are; in the column of its own name if empty")
    weight: float = Field(1.0, gt=0, le=MAX_WEIGHT, description="of its loss beside those of other targets")


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
        output = torch.cat([batch.output for batch in of_batches])

        # All batches have the same blocks.
        first = of_batches[0]
        blocks = {}
        for block in first.blocks:
            blocks[block] = torch.cat([batch.blocks[block] for batch in of_batches])
        present = {}
        for block in first.present:
            present[block] = torch.cat([batch.present[block] for batch in of_batches])
        return cls(output, blocks, present)

    def take(self, rows: Tensor) -> Outputs:
        """Return the outputs of some rows."""
        return self.map(lambda tensor: tensor[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> Outputs:
        """Return the outputs with every tensor changed."""
        output = change(self.output)
        blocks = {block: change(output) for block, output in self.blocks.items()}
        present = {block: change(present_B) for block, present_B in self.present.items()}
        return Outputs(output, blocks, present)


class Task(nn.Module, Component, ABC):
    """One target: its state, head, loss and metrics, and the way back from outputs to answers."""

    options: ClassVar[type[TaskOptions]]

    # Functions of the rows that `score_rows` returns, by name. `score` names the main one, which chooses the
    # best epoch. `higher` says whether more of it is better.
    metrics: dict[str, Metric]
    score: str
    higher: bool

    # Whether the loss is a squared error.
    squared: ClassVar[bool] = False

    # Whether `loss` leaves out labelled rows, by their outputs. Then `learnable` says which.
    leaves_rows_out: ClassVar[bool] = False

    # Whether labels are classes, which can be dealt to the sides of a split in equal shares.
    may_stratify: ClassVar[bool] = False

    # Whether it is answered from the fused vector of its inputs and from nothing else. Then its rows can be
    # mixed, rows without a label can be learned from, and members of an ensemble can answer together.
    fuses: ClassVar[bool] = False

    # Whether it writes an answer step by step: then batches are small.
    writes: ClassVar[bool] = False

    # A task without a target compares the rows' own columns.
    has_target: ClassVar[bool] = True

    # The conventions that labels may have, the usual one first; any if empty.
    conventions: ClassVar[tuple[type[Convention], ...]] = ()

    # Whether labels are files. More than a few bad files are an error, and not only problems.
    from_files: ClassVar[bool] = False

    # Whether to put rows of about the same length into a batch, for less padding.
    sorts_by_length: ClassVar[bool] = False

    # The modalities of the columns that it reads when no `inputs` are named; all if empty.
    modalities: ClassVar[tuple[str, ...]] = ()

    # For its inputs, where the recipe does not say otherwise: encoders, and options of cells, by modality.
    encoders: ClassVar[dict[str, JSON]] = {}
    cells: ClassVar[dict[str, JSON]] = {}

    # The least number of training steps, and the share of epochs, at the end, without augmentation.
    steps: ClassVar[int] = LEAST_STEPS
    unaugmented: ClassVar[float] = UNAUGMENTED

    # The epochs without a better score after which training stops, where the recipe says auto; 0: never.
    patience: ClassVar[int] = 0

    # What `plait tune` tries of its options.
    tunes: ClassVar[dict[str, Between | Choices]] = {}

    # The options' `inputs`, and what `reads` returns. `connect` sets both.
    inputs: tuple[str, ...] = ()
    label_columns: list[str]

    # ---------------------------------------------------------------- what it reads

    @classmethod
    @abstractmethod
    def matches(cls, cells: pa.ChunkedArray) -> Match | None:
        """Return how well a target with these cells (without nulls) suits this task; None if it does not."""

    @classmethod
    @hook
    def reads(cls, config: Any, name: str) -> list[str]:
        """Return the columns of the table that hold the target of the task `name`."""
        return [config.column or name]

    @classmethod
    @hook
    def encoder_for(cls, config: Any, modality: str) -> JSON | None:
        """Return the encoder of inputs of a modality, where the recipe names none.

        None stands for the usual encoder of the modality.
        """
        return cls.encoders.get(modality)

    @classmethod
    @hook
    def odd(cls, cells: pa.ChunkedArray) -> dict[int, str]:
        """Return the rows whose label is most likely a mistake, and what is odd about each."""
        return {}

    @classmethod
    @hook
    def fill_in(
        cls, config: TaskOptions, cells: pa.ChunkedArray, numbers: Callable[[], np.ndarray]
    ) -> tuple[JSON, str]:
        """Return the options that say `auto`, as training rows decide them, and why; nothing if none does.

        `cells` are the labels of the labelled training rows. `numbers` computes what plain columns and texts
        say of these rows, (rows, numbers), NaN where a number is missing.
        """
        return {}, ""

    def connect(self, config: Any, name: str) -> None:
        """Set which columns it reads, by its options. Call this on every new task."""
        self.inputs = config.inputs
        self.label_columns = self.reads(config, name)

    def read(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Return the columns that it reads, of a model's columns and in their order."""
        if not self.inputs:
            return tuple(columns)
        return tuple(column for column in columns if column in self.inputs)

    # ---------------------------------------------------------------- its state

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, cells: pa.ChunkedArray, name: str) -> Task:
        """Return the task for the target `name`, fitted on its training rows.

        Raises `TrainingError` when they cannot be learned from.
        """

    @abstractmethod
    def state(self) -> JSON:
        """Return everything that `fit` learned, as JSON."""

    @classmethod
    @abstractmethod
    def from_state(cls, config: Any, state: JSON) -> Task:
        """Restore a task from its `state`; the head is still to be built."""

    @abstractmethod
    def encode(self, cells: pa.ChunkedArray, source: Source) -> tuple[Tensor, Tensor, list[Problem]]:
        """Return the target (B, ...), True where a row has a label (B,), and labels that cannot be used.

        Labels may be read from files, relative to the folder of `source`.
        """

    # ---------------------------------------------------------------- its head

    @abstractmethod
    def build(self, widths: Widths) -> None:
        """Make the head."""

    @hook
    def load_pretrained(self) -> None:
        """Load the weights that training starts from. Called once the head is built."""
        return

    @abstractmethod
    def answer(self, fused: Fused | None, encoded: Encoded) -> Tensor:
        """Return the output of some rows, in the form that prediction decodes."""

    @hook
    def decode(self, output: Tensor, thorough: bool = False) -> Tensor:
        """Decode a batch's output into what `answers` and `score_rows` take, (B, ...).

        Where lengths differ, rows are padded with zeros (see `joined`). `thorough` asks for the best answer,
        and not for the fastest.
        """
        return output

    # ---------------------------------------------------------------- training

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the mean loss over the labelled rows; zero if there are none."""

    @hook
    def learnable(self, output: Tensor, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the rows that `loss` is a mean over, (B,): all labelled ones, unless `leaves_rows_out`."""
        return labelled_B

    @abstractmethod
    def trained_outputs(self, fused: Fused | None, encoded: Encoded) -> dict[str, Tensor]:
        """Return the outputs whose losses training adds up, by the loss's name. `MAIN` is among them."""

    @hook
    def loss_weights(self, blocks: Iterable[str], unimodal_weight: float, left: float) -> dict[str, float]:
        """Return the weights of its losses. A share of `left` of the training, 0 to 1, is still to come."""
        return {}

    @hook
    def sees_hidden_cells(self, columns: list[str]) -> bool:
        """Return whether training may hide cells of a model's columns from this task.

        It may not if the task reads one of several columns: that would only take rows away.
        """
        return len(columns) == 1 or len(self.read(columns)) > 1

    @hook
    def outputs(self, fused: Fused | None, encoded: Encoded) -> Outputs | None:
        """Return what `calibrate` needs of some rows; None if there is nothing to calibrate."""
        return None

    @hook
    def calibrate(self, outputs: Outputs, target: Tensor) -> None:
        """Set what validation rows decide, once the model is trained. All rows of `outputs` are labelled."""
        return

    # ---------------------------------------------------------------- answers and metrics

    @abstractmethod
    def answers(self, output: Tensor) -> dict[str, pa.Array]:
        """Return the answer under the key "", and more about it under suffixes such as "probability_cat"."""

    @abstractmethod
    def score_rows(self, output: np.ndarray, target: np.ndarray) -> ScoredRows:
        """Return what `metrics` need of labelled rows. The output is what `decode` returned."""

    @hook
    def scorable(self, target: Tensor, labelled_B: Tensor) -> Tensor:
        """Return the rows that are scored, (B,): labelled ones, unless others count as wrong."""
        return labelled_B

    def measure(self, output: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """Return all metrics over labelled rows, by name."""
        rows = self.score_rows(output, target)
        return {name: metric(rows) for name, metric in self.metrics.items()}

    def measure_score(self, output: np.ndarray, target: np.ndarray) -> float:
        """Return the main metric over labelled rows."""
        metric = self.metrics[self.score]
        return metric(self.score_rows(output, target))

    @abstractmethod
    def baseline(self, target: Tensor) -> Tensor:
        """Return the decoded output, for one row, of the best answer without inputs."""

    @hook
    def baseline_loss(self, target: Tensor) -> float:
        """Return the loss of the baseline on these labels.

        Losses of different tasks are compared in this unit.
        """
        baseline = self.baseline(target)
        output = baseline.expand(len(target), *baseline.shape)
        everywhere_B = torch.ones(len(target), dtype=torch.bool)
        return float(self.loss(output, target, everywhere_B))


tasks = Registry[Task]("tasks")


def joined(outputs: list[Tensor]) -> Tensor:
    """Join the decoded outputs of several batches. Texts and spectra are padded with zeros to one length."""
    dimensions = outputs[0].ndim
    if dimensions == 1:
        return torch.cat(outputs)

    # `F.pad` takes a pair for each dimension, the last one first. Only the second one is padded.
    no_padding = (0, 0) * (dimensions - 2)
    longest = max(output.shape[1] for output in outputs)
    padded = []
    for output in outputs:
        missing = longest - output.shape[1]
        padded.append(F.pad(output, (*no_padding, 0, missing)))
    return torch.cat(padded)


def masked_mean(loss_B: Tensor, labelled_B: Tensor) -> Tensor:
    """Return the mean of the labelled rows' losses: zero, with zero gradients, if there are none."""
    weight_B = labelled_B.to(loss_B.dtype)
    total = (loss_B * weight_B).sum()
    return total / weight_B.sum().clamp(min=1)

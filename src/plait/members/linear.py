"""A linear model on features: strong on few rows, fitted to its optimum in a moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from plait.data.features import FeatureBlock
from plait.members.base import Examples, Fit, Lesson, Member, choosing_folds, hidden, mean_loss
from plait.members.base_linear import multiply, solve, space_of, space_seconds
from plait.nn.summaries import Matrix
from plait.prediction.view import View
from plait.recipe.registry import Options
from plait.runs import files
from plait.runs.deadline import Deadline, OutOfTime
from plait.table.json import read_as
from plait.tasks.base_prediction import Prediction

MAX_STRENGTH = 1e9  # of the penalty: a larger one leaves no weight, and its products overflow


def _are_strengths(strengths: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0 <= strength <= MAX_STRENGTH for strength in strengths):
        raise ValueError(f"expected numbers from 0 to {MAX_STRENGTH:g}")
    return strengths


Strengths: TypeAlias = Annotated[tuple[float, ...], AfterValidator(_are_strengths)]


class Config(Options):
    """Weights W that minimise the mean loss + strength / 2 * |W|^2.

    Of `strengths` the one with the least loss on held-out rows counts. `ngrams` adds bags of n-grams of
    all texts to their vectors.
    """

    strengths: Strengths = Field(
        (1e-06, 1e-05, 3e-05, 0.0001, 0.0003, 0.001, 0.01),
        min_length=1,
        description="of the penalty on weights; the one with the least loss on held-out rows counts",
    )
    ngrams: bool = Field(False, description="add bags of n-grams of all texts to the features")


class Linear(Member):
    """output = b + sum over inputs of x W, for every task whose loss can be differentiated.

    It is solved by L-BFGS (Liu & Nocedal 1989).
    """

    options = Config

    def __init__(
        self, weights: dict[str, Tensor], biases: dict[str, Tensor], absent: list[str], ngrams: bool
    ) -> None:
        """Take a weight and a bias for each target.

        `absent` names the columns that some training row lacks. The model learns what a missing cell says.
        """
        self.weights = weights
        self.biases = biases
        self.absent = absent
        self.ngrams = ngrams

    @classmethod
    def fit(cls, config: Config, lessons: Sequence[Lesson], advance: Callable[[], None]) -> list[Fit]:
        """Fit linear models of every target; held-out rows decide the strength of regularisation.

        Raises `OutOfTime` where not all lessons can be learned before the deadline.
        """
        served = []
        out_of_fold = []
        paths = []
        for number, lesson in enumerate(lessons):
            if number and lesson.deadline.is_over:
                raise OutOfTime
            in_time = lesson.deadline.part(1 / (len(lessons) - number))
            lesson = replace(lesson, deadline=in_time)
            blocks = lesson.train.blocks()
            absent = _absent(_used_blocks(blocks, config.ngrams))
            served.append(cls({}, {}, absent, config.ngrams))
            out_of_fold.append(cls({}, {}, absent, config.ngrams))
            paths.append(served[-1]._paths(config, lesson, blocks))
            advance()

        for target in lessons[0].tasks:
            of_target = [by_target[target] for by_target in paths]
            *choices, choice_of_all = _choices(of_target)
            for fold, path in enumerate(of_target):
                served[fold]._take(target, path, choice_of_all)
                out_of_fold[fold]._take(target, path, choices[fold])
        return [Fit(*members) for members in zip(served, out_of_fold, strict=True)]

    def _paths(self, config: Config, lesson: Lesson, blocks: list[FeatureBlock]) -> dict[str, _Path]:
        """Fit a model for each strength, for each target. `blocks` are those of the training rows."""
        xs = self._matrices(blocks)
        held_xs = self._matrices(lesson.held_out.blocks())
        paths = {}
        for target, task in lesson.tasks.items():
            train = _Rows.of(lesson, target, lesson.train, xs)
            held_out = _Rows.of(lesson, target, lesson.held_out, held_xs)
            paths[target] = _path(task, train, held_out, config.strengths, lesson.deadline)
        return paths

    def _take(self, target: str, path: _Path, choice: int) -> None:
        """Take the weight and the bias of one strength."""
        self.weights[target] = path.weights[choice]
        self.biases[target] = path.biases[choice]

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return the outputs of each target, for each subset of the columns."""
        outputs = []
        for subset in subsets:
            xs = self._matrices(hidden(examples.blocks(), subset))
            by_target = {}
            for target, weight in self.weights.items():
                by_target[target] = _output(xs, weight.numpy(), self.biases[target])
            outputs.append(by_target)
        return outputs

    def _matrices(self, blocks: list[FeatureBlock]) -> list[Matrix]:
        """Return a matrix (rows, numbers) for each input, and one that says which inputs are missing."""
        blocks = _used_blocks(blocks, self.ngrams)
        matrices = [block.x for block in blocks]
        present = {block.column: block.present for block in blocks}
        missing = np.zeros((len(blocks[0].present), 0))
        if self.absent:
            missing = np.stack([~present[column] for column in self.absent], 1)
        matrices.append(missing.astype(np.float32))
        return matrices

    def save(self, folder: Path) -> None:
        """Write weights and biases, and the inputs that training rows lack."""
        tensors = {}
        for target, weight in self.weights.items():
            tensors[f"{target}/weight"] = weight
            tensors[f"{target}/bias"] = self.biases[target]
        metadata = {"absent": json.dumps(self.absent)}
        files.write_tensors(folder / "linear.safetensors", tensors, metadata)

    @classmethod
    def load(cls, config: Config, folder: Path, view: View | None) -> Linear:
        """Invert `save`. Raises `ArtifactError` unless the file holds linear models."""
        path = folder / "linear.safetensors"
        tensors, metadata = files.read_tensors(path)
        return files.load_part(
            f"'{path}'", lambda: cls._from_tensors(tensors, metadata["absent"], config.ngrams)
        )

    @classmethod
    def _from_tensors(cls, tensors: dict[str, Tensor], text: str, ngrams: bool) -> Linear:
        """Invert `save`. Raises `ValueError` for what cannot be linear models."""
        absent = read_as(list[str], json.loads(text))
        weights = {}
        biases = {}
        for name, tensor in tensors.items():
            if name.endswith("/weight"):
                weights[name.removesuffix("/weight")] = tensor
            elif name.endswith("/bias"):
                biases[name.removesuffix("/bias")] = tensor
        if not weights or set(weights) != set(biases):
            raise ValueError("a weight has no bias, or a bias no weight")
        for target, weight in weights.items():
            _check(weight, biases[target])
        return cls(weights, biases, absent, ngrams)


component = Linear


@dataclass(frozen=True)
class _Path:
    """The models of one target for each strength, from strong to weak, and their losses on held-out rows."""

    weights: list[Tensor]
    biases: list[Tensor]
    losses: list[float]
    held_out_rows: int


@dataclass(frozen=True)
class _Rows:
    """Rows with a label of one target: matrices (rows, numbers), and the labels."""

    xs: list[Matrix]
    y: Tensor

    @classmethod
    def of(cls, lesson: Lesson, target: str, side: Examples, xs: list[Matrix]) -> _Rows:
        """Take the rows of a side that have a label. `xs` are the matrices of all its rows."""
        rows, y = lesson.labelled(target, side)
        return cls([x[rows] for x in xs], y)


def _check(weight: Tensor, bias: Tensor) -> None:
    """Raise `ValueError` unless weight and bias are those of one linear model."""
    if weight.ndim != 2 or bias.ndim > 1 or bias.numel() != weight.shape[1]:
        raise ValueError(
            f"a weight of shape {tuple(weight.shape)} does not go with a bias of {tuple(bias.shape)}"
        )
    for tensor in (weight, bias):
        if tensor.dtype != torch.float32 or not tensor.isfinite().all():
            raise ValueError("a weight or a bias is no finite number in float32")


def _used_blocks(blocks: list[FeatureBlock], ngrams: bool) -> list[FeatureBlock]:
    """Leave out the n-grams of columns that have another block, unless `ngrams`."""
    if ngrams:
        return blocks
    columns = {block.column for block in blocks if not block.counts_words}
    used = []
    for block in blocks:
        if not block.counts_words or block.column not in columns:
            used.append(block)
    return used


def _absent(blocks: list[FeatureBlock]) -> list[str]:
    """Return the columns that some row lacks."""
    absent: list[str] = []
    for block in blocks:
        if not block.present.all() and block.column not in absent:
            absent.append(block.column)
    return absent


def _choices(paths: list[_Path]) -> list[int]:
    """Return the number of the best strength for each fold, by the other folds, and then by all.

    The strongest one counts where these folds have no labelled row.
    """
    losses = np.array([path.losses for path in paths])
    rows = np.array([path.held_out_rows for path in paths])
    choices = []
    for folds in choosing_folds(len(paths)):
        mean_losses = mean_loss(losses, rows, folds)
        choices.append(int(np.argmin(mean_losses)))
    return choices


def _path(
    task: Prediction, train: _Rows, held_out: _Rows, strengths: Sequence[float], deadline: Deadline
) -> _Path:
    """Fit a model for each strength.

    Strengths go from strong to weak, and each starts from the optimum of the one before. From the deadline on
    it is the one before, with a loss that no fold chooses. Raises `OutOfTime` where not even the first one
    ends before it.
    """
    if not deadline.fits(space_seconds(train.xs)):
        raise OutOfTime
    space = space_of(train.xs)
    baseline = task.baseline(train.y)
    weight = torch.zeros(space.width, baseline.numel(), dtype=torch.float64)
    bias = baseline.double()

    path = _Path([], [], [], len(held_out.y))
    everywhere = torch.ones(len(held_out.y), dtype=torch.bool)
    for strength in sorted(strengths, reverse=True):
        is_in_time = not deadline.is_over
        if is_in_time or not path.weights:
            weight, bias = solve(space, task, train.y, strength, weight, bias, deadline)
        path.weights.append(space.weights(weight).float())
        path.biases.append(bias.float())
        loss = float("nan")
        if len(held_out.y) and (is_in_time or not path.losses):
            output = _output(held_out.xs, path.weights[-1].numpy(), bias)
            loss = float(task.loss(output, held_out.y, everywhere))
        path.losses.append(loss)
    return path


def _output(xs: list[Matrix], weight: np.ndarray, bias: Tensor) -> Tensor:
    """Return x W + b in float32, (rows, outputs), or (rows,) for a task of one number."""
    output = torch.from_numpy(multiply(xs, weight)).float()
    if not bias.ndim:
        output = output[:, 0]
    return output + bias.float()

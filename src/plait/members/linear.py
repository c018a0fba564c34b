"""A linear model on features: strong on few rows, fitted to its optimum in a moment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from plait.data.features import Block
from plait.data.plan import Plan
from plait.members.base import Examples, Lesson, Member, View, hidden
from plait.members.base_linear import Space, multiply, solve
from plait.nn.device import Settings
from plait.nn.summaries import Matrix
from plait.recipe.registry import Options
from plait.tasks.base_prediction import Prediction


class Config(Options):
    """Weights W that minimise the mean loss + strength / 2 * |W|^2.

    Of `strengths` the one with the least loss on the held-out rows counts. `ngrams` adds bags of n-grams of
    all texts to their vectors.
    """

    strengths: tuple[float, ...] = Field((1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2), min_length=1)
    ngrams: bool = False


class Linear(Member):
    """output = b + sum over inputs of x W, for every task whose loss can be differentiated.

    It is solved by L-BFGS (Liu & Nocedal 1989).
    """

    options = Config

    def __init__(
        self, weights: dict[str, Tensor], biases: dict[str, Tensor], absent: list[str], ngrams: bool
    ) -> None:
        self.weights, self.biases, self.absent, self.ngrams = weights, biases, absent, ngrams

    @classmethod
    def encoders(cls, config: Config) -> None:
        """Return None: it learns from features."""

    @classmethod
    def light(cls, config: Config) -> bool:
        """Return False: there is no view to leave columns out of."""
        return False

    @classmethod
    def fit(cls, config: Config, lesson: Lesson) -> Linear:
        """Fit a linear model of every target; held-out rows decide the strength of regularisation."""
        blocks = _used_blocks(lesson.train.blocks, config.ngrams)
        absent = list(dict.fromkeys(block.column for block in blocks if not block.present.all()))
        member = cls({}, {}, absent, config.ngrams)
        xs, held_xs = member._matrices(lesson.train.blocks), member._matrices(lesson.valid.blocks)
        for target, task in lesson.tasks.items():
            rows, y = lesson.labelled(target, lesson.train)
            held_rows, held_y = lesson.labelled(target, lesson.valid)
            target_xs = [x[rows] for x in xs]
            target_held_xs = [x[held_rows] for x in held_xs]
            weight, bias = _path(target_xs, task, y, config.strengths, target_held_xs, held_y)
            member.weights[target], member.biases[target] = weight, bias
        return member

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return the outputs of each target, for each subset of the columns."""
        outputs = []
        for subset in subsets:
            xs = self._matrices(hidden(examples.blocks, subset))
            by_target = {}
            for target, weight in self.weights.items():
                by_target[target] = _output(xs, weight.numpy(), self.biases[target])
            outputs.append(by_target)
        return outputs

    def _matrices(self, blocks: list[Block]) -> list[Matrix]:
        """Return a matrix (rows, numbers) for each input, and one that says which inputs are missing."""
        blocks = _used_blocks(blocks, self.ngrams)
        present = {block.column: block.present for block in blocks}
        missing = np.zeros((len(blocks[0].present), 0))
        if self.absent:
            missing = np.stack([~present[column] for column in self.absent], 1)
        return [*(block.x for block in blocks), missing.astype(np.float32)]

    def save(self, folder: Path) -> None:
        """Write weights and biases, and the inputs that training rows lack."""
        tensors = {f"{target}/weight": weight for target, weight in self.weights.items()}
        tensors |= {f"{target}/bias": bias for target, bias in self.biases.items()}
        save_file(tensors, folder / "linear.safetensors", {"absent": json.dumps(self.absent)})

    @classmethod
    def load(cls, config: Config, folder: Path, plan: Plan, settings: Settings, view: View) -> Linear:
        """Invert `save`."""
        tensors = load_file(folder / "linear.safetensors")
        with safe_open(folder / "linear.safetensors", "pt") as opened:
            absent = json.loads((opened.metadata() or {})["absent"])
        weights, biases = {}, {}
        for name, tensor in tensors.items():
            if name.endswith("/weight"):
                weights[name.removesuffix("/weight")] = tensor
            elif name.endswith("/bias"):
                biases[name.removesuffix("/bias")] = tensor
        return cls(weights, biases, absent, config.ngrams)


component = Linear


def _used_blocks(blocks: list[Block], ngrams: bool) -> list[Block]:
    """Leave out the n-grams of columns that have another block, unless `ngrams`."""
    if ngrams:
        return blocks
    columns = {block.column for block in blocks if block.view != "ngrams"}
    return [block for block in blocks if block.view != "ngrams" or block.column not in columns]


def _path(
    xs: list[Matrix],
    task: Prediction,
    y: Tensor,
    strengths: Sequence[float],
    held: list[Matrix],
    held_y: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the weights (numbers, outputs) and the bias of the best strength.

    Strengths go from strong to weak, and each starts from the optimum of the one before.
    """
    prior = task.baseline(y)
    space = Space(xs)
    weight, bias = torch.zeros(space.width, prior.numel(), dtype=torch.float64), prior.double()
    best: tuple[float, Tensor, Tensor] = (float("inf"), torch.zeros(0), bias)
    everywhere = torch.ones(len(held_y), dtype=torch.bool)
    for strength in sorted(strengths, reverse=True):
        weight, bias = solve(space, task, y, strength, weight, bias)
        full_weight = space.weights(weight)
        loss = -strength  # without held-out rows the strongest one counts
        if len(held_y):
            output = _output(held, full_weight.numpy(), bias)
            loss = float(task.loss(output, held_y, everywhere))
        if loss < best[0]:
            best = (loss, full_weight, bias)
    return best[1].float(), best[2].float()


def _output(xs: list[Matrix], weight: np.ndarray, bias: Tensor) -> Tensor:
    output = torch.from_numpy(multiply(xs, weight)).float()
    return (output if bias.ndim else output[:, 0]) + bias.float()

"""A linear model on features: strong on few rows, fitted to its optimum in a moment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor

from plait.data.features import Block
from plait.members.base import Examples, Lesson, Member, hidden
from plait.nn.summaries import Matrix
from plait.recipe.registry import Options
from plait.tasks.base_prediction import Prediction

MOST_ROWS = 4000  # above which a matrix of rows by rows is no longer small


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
    def load(cls, config: Config, folder: Path, *_: Any) -> Linear:
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


class Space:
    """The space in which weights are searched.

    The best W is a weighted sum of training rows (Kimeldorf & Wahba 1971). With fewer rows than numbers in
    each, only such sums are searched: there are as many unknowns as rows, and the minimum is the same.
    """

    def __init__(self, xs: list[Matrix]) -> None:
        self._xs = xs
        rows, width = xs[0].shape[0], sum(x.shape[1] for x in xs)
        self._back: np.ndarray | None = None
        if rows < min(width, MOST_ROWS):
            gram = np.zeros((rows, rows))
            for x in xs:
                products = (x @ x.T).todense() if sparse.issparse(x) else x @ x.T
                gram = gram + np.asarray(products, dtype=np.float64)
            value, vector = np.linalg.eigh(gram)
            positive = value > value[-1] * 1e-9
            self._back = vector[:, positive] / np.sqrt(value[positive])
            self.x: Tensor | None = torch.from_numpy(vector[:, positive] * np.sqrt(value[positive]))
        else:
            dense = not any(sparse.issparse(x) for x in xs)
            self.x = torch.from_numpy(np.concatenate(xs, 1)) if dense else None
        self.width = int(self.x.shape[1]) if self.x is not None else width

    def product(self, weight: Tensor) -> Tensor:
        """Return X W, in float64."""
        if self.x is not None:
            return (self.x @ weight.to(self.x.dtype)).double()
        return torch.from_numpy(_product(self._xs, weight.numpy()))

    def slope(self, slope: Tensor) -> Tensor:
        """Return the gradient of W: X^T times the gradient at the output."""
        if self.x is not None:
            return (self.x.T @ slope.to(self.x.dtype)).double()
        narrow = slope.float().numpy()  # of another precision than x, NumPy would convert x in every step
        return torch.from_numpy(np.concatenate([x.T @ narrow for x in self._xs])).double()

    def weights(self, weight: Tensor) -> Tensor:
        """Return the weights of the numbers (numbers, outputs) for weights in this space."""
        if self._back is None:
            return weight
        row_weights = self._back @ weight.numpy()
        return torch.from_numpy(np.concatenate([x.T @ row_weights for x in self._xs]))


def solve(
    space: Space, task: Prediction, y: Tensor, strength: float, weight: Tensor, bias: Tensor, steps: int = 200
) -> tuple[Tensor, Tensor]:
    """Minimise the task's mean loss + strength / 2 * |W|^2 over W and b, from initial values."""
    weight, bias = weight.clone(), bias.clone()
    everywhere = torch.ones(len(y), dtype=torch.bool)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=steps,
        tolerance_grad=1e-6,
        tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        """Set the gradients of W and b, and return the loss."""
        w, b = weight.detach(), bias.detach()
        product = space.product(w)
        output = ((product if bias.ndim else product[:, 0]) + b).requires_grad_()
        loss = task.loss(output, y, everywhere)
        (slope,) = torch.autograd.grad(loss, output)
        weight.grad = space.slope(slope.reshape(len(slope), -1)) + strength * w
        bias.grad = slope.sum(0)
        return loss.detach() + strength / 2 * (w**2).sum()

    with torch.no_grad():
        weight.requires_grad_()
        bias.requires_grad_()
        optimizer.step(torch.enable_grad()(closure))
    return weight.detach(), bias.detach()


def _product(xs: list[Matrix], weight: np.ndarray) -> np.ndarray:
    total = np.zeros((xs[0].shape[0], weight.shape[1]))
    first = 0
    for x in xs:
        x_weight = weight[first : first + x.shape[1]]
        total += x @ x_weight.astype(np.float32)
        first += x.shape[1]
    return total


def _output(xs: list[Matrix], weight: np.ndarray, bias: Tensor) -> Tensor:
    output = torch.from_numpy(_product(xs, weight)).float()
    return (output if bias.ndim else output[:, 0]) + bias.float()

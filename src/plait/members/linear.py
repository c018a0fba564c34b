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
    """Weights W of the least mean loss + strength / 2 * |W|^2. Of `strengths` the one with the least
    loss on the rows that are held out is kept. `ngrams` adds bags of n-grams of all texts to their
    vectors.
    """

    strengths: tuple[float, ...] = Field((1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2), min_length=1)
    ngrams: bool = False


class Linear(Member):
    """output = b + sum over inputs of x W, for every task whose loss can be differentiated; solved by
    L-BFGS (Liu & Nocedal 1989).
    """

    options = Config

    def __init__(
        self, weights: dict[str, Tensor], biases: dict[str, Tensor], absent: list[str], ngrams: bool
    ) -> None:
        self.weights, self.biases, self.absent, self.ngrams = weights, biases, absent, ngrams

    @classmethod
    def encoders(cls, config: Config) -> None:
        return None

    @classmethod
    def light(cls, config: Config) -> bool:
        return False

    @classmethod
    def fit(cls, config: Config, lesson: Lesson) -> Linear:
        blocks = _chosen(lesson.train.blocks, config.ngrams)
        absent = list(dict.fromkeys(b.column for b in blocks if not b.present.all()))
        member = cls({}, {}, absent, config.ngrams)
        xs, held = member._matrices(lesson.train.blocks), member._matrices(lesson.valid.blocks)
        for target, task in lesson.tasks.items():
            rows, y = lesson.labelled(target, lesson.train)
            held_rows, held_y = lesson.labelled(target, lesson.valid)
            found = _path(
                [x[rows] for x in xs], task, y, config.strengths, [x[held_rows] for x in held], held_y
            )
            member.weights[target], member.biases[target] = found
        return member

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        found = []
        for subset in subsets:
            xs = self._matrices(hidden(examples.blocks, subset))
            found.append({t: _output(xs, self.weights[t].numpy(), self.biases[t]) for t in self.weights})
        return found

    def _matrices(self, blocks: list[Block]) -> list[Matrix]:
        """One for each input, and one that says which inputs are missing."""
        blocks = _chosen(blocks, self.ngrams)
        present = {b.column: b.present for b in blocks}
        lacks = (
            np.stack([~present[c] for c in self.absent], 1)
            if self.absent
            else np.zeros((len(blocks[0].present), 0))
        )
        return [*(b.x for b in blocks), lacks.astype(np.float32)]

    def save(self, folder: Path) -> None:
        save_file(
            {f"{t}/weight": w for t, w in self.weights.items()}
            | {f"{t}/bias": b for t, b in self.biases.items()},
            folder / "linear.safetensors",
            {"absent": json.dumps(self.absent)},
        )

    @classmethod
    def load(cls, config: Config, folder: Path, plan: Plan, settings: Settings, view: View) -> Linear:
        tensors = load_file(folder / "linear.safetensors")
        with safe_open(folder / "linear.safetensors", "pt") as opened:
            absent = json.loads((opened.metadata() or {})["absent"])
        parts: list[dict[str, Tensor]] = [
            {k.removesuffix(f"/{what}"): t for k, t in tensors.items() if k.endswith(f"/{what}")}
            for what in ("weight", "bias")
        ]
        return cls(parts[0], parts[1], absent, config.ngrams)


component = Linear


def _chosen(blocks: list[Block], ngrams: bool) -> list[Block]:
    """Without n-grams of texts that vectors stand for, unless they are wanted."""
    known = {b.column for b in blocks if b.view != "ngrams"}
    return [b for b in blocks if ngrams or b.view != "ngrams" or b.column not in known]


def _path(
    xs: list[Matrix],
    task: Prediction,
    y: Tensor,
    strengths: Sequence[float],
    held: list[Matrix],
    held_y: Tensor,
) -> tuple[Tensor, Tensor]:
    """The weights and bias of the best strength, each begun from those of the one before, from strong
    to weak.
    """
    prior = task.baseline(y)
    space = Space(xs)
    weight, bias = torch.zeros(space.width, prior.numel(), dtype=torch.float64), prior.double()
    best: tuple[float, Tensor, Tensor] = (float("inf"), torch.zeros(0), bias)
    everywhere = torch.ones(len(held_y), dtype=torch.bool)
    for strength in sorted(strengths, reverse=True):
        weight, bias = solve(space, task, y, strength, weight, bias)
        whole = space.weights(weight)
        loss = (
            float(task.loss(_output(held, whole.numpy(), bias), held_y, everywhere))
            if len(held_y)
            else -strength
        )
        if loss < best[0]:
            best = (loss, whole, bias)
    return best[1].float(), best[2].float()


def _output(xs: list[Matrix], weight: np.ndarray, bias: Tensor) -> Tensor:
    output = torch.from_numpy(multiply(xs, weight)).float()
    return (output if bias.ndim else output[:, 0]) + bias.float()

"""TabM: a network that answers as several (Gorishniy et al. 2025), on features; all folds train at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from plait.data.features import FeatureBlock
from plait.data.target_statistics import TargetStatistics
from plait.members.base import Examples, Fit, Lesson, Member, best_rounds, hidden
from plait.members.base_statistics import Described, described
from plait.members.base_tabm import StackedTabM
from plait.nn.device import Settings, bf16_is_fast
from plait.prediction.view import View
from plait.recipe.bounds import MAX_RATE, MAX_ROUNDS, MAX_WIDTH
from plait.recipe.registry import Options
from plait.runs import files
from plait.runs.deadline import Deadline
from plait.tasks.base_prediction import Prediction

FILE = "tabm.safetensors"
LEAST_SPREAD = 1e-4  # of a number: one that varies less in training is left out
BOUND = 3.0  # standardised numbers are bounded smoothly to (-BOUND, BOUND)
MANY = 5000  # rows, from which on a third layer pays
ROWS_AT_ONCE = 1024  # that are answered together


class Config(Options):
    """A network of `depth` layers, whose `members` share all weights but their factors and heads.

    Training stops once `patience` epochs have brought nothing on held-out rows.
    """

    members: int = Field(8, ge=1, le=256, description="networks that share most weights")
    width: int = Field(128, ge=1, le=MAX_WIDTH, description="of a layer")
    depth: int | None = Field(None, ge=1, le=16, description="layers; null: 2, or 3 from 5,000 rows on")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of a layer's units that is left out")
    learning_rate: float = Field(0.001, gt=0, le=MAX_RATE, description="of AdamW")
    weight_decay: float = Field(0.0003, ge=0, le=1, description="of AdamW")
    batch_size: int = Field(256, ge=1, le=1_000_000, description="rows in a step; fewer in small tables")
    epochs: int = Field(100, ge=1, le=MAX_ROUNDS, description="at most")
    patience: int = Field(12, ge=1, le=MAX_ROUNDS, description="epochs without a better score that end it")
    hide: float = Field(0.05, ge=0, lt=1, description="share of the inputs' cells that training hides")
    statistics: bool = Field(
        True, description="describe many categories and short texts by the labels of rows that have them"
    )


@dataclass(frozen=True)
class Inputs:
    """How feature blocks become one row of numbers: scaled numbers, then a flag for each missing block.

    `chunks` counts the numbers of each block. A number x becomes z / sqrt(1 + (z / 3)^2) for z = (x - `mean`)
    * `scale`, which bounds outliers (as in RealMLP, Holzmueller et al. 2024).
    """

    chunks: list[int]
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, blocks: Sequence[FeatureBlock]) -> Inputs:
        """Measure the numbers of training rows.

        Of a block's main directions, the first ones vary most, and say most. They stay larger than others,
        but by the square root of their spread only: on three tables, this was better than one scale for all
        of a block, and than a scale for each.
        """
        means, scales = [], []
        for block in blocks:
            x = block.reduced[block.present]
            if not len(x):
                x = np.zeros((1, block.reduced.shape[1]), np.float32)
            mean, spread = x.mean(0), x.std(0)
            if block.form == "one_hot":  # a rare category would become a large number
                mean, spread = np.zeros_like(mean), np.where(spread > 0, 1, 0)
            else:
                spread = _evened(spread, block.form)
            means.append(mean)
            scales.append(np.where(spread > LEAST_SPREAD, 1 / np.maximum(spread, LEAST_SPREAD), 0))
        chunks = [len(mean) for mean in means]
        return cls(
            chunks, np.concatenate(means).astype(np.float32), np.concatenate(scales).astype(np.float32)
        )

    def __call__(self, blocks: Sequence[FeatureBlock]) -> Tensor:
        """Return rows of numbers, (B, D): zero and a flag of 1 where a block is missing."""
        numbers, missing = [], []
        first = 0
        for block, width in zip(blocks, self.chunks, strict=True):
            last = first + width
            z = (block.reduced - self.mean[first:last]) * self.scale[first:last]
            numbers.append(z / np.sqrt(1 + (z / BOUND) ** 2) * block.present[:, None])
            missing.append(~block.present[:, None])
            first = last
        return torch.from_numpy(np.concatenate([*numbers, *missing], 1, dtype=np.float32))

    def tensors(self) -> dict[str, Tensor]:
        """Return the scales, to be saved."""
        return {"mean": torch.from_numpy(self.mean), "scale": torch.from_numpy(self.scale)}

    @property
    def all_chunks(self) -> list[int]:
        """The numbers of each block, and one for each flag."""
        return [*self.chunks, *[1] * len(self.chunks)]

    def hide(self, x_FBD: Tensor, share: float) -> Tensor:
        """Hide this share of the blocks' cells at random: numbers become zero, and flags 1."""
        blocks = len(self.chunks)
        draw = torch.rand(*x_FBD.shape[:2], blocks, device=x_FBD.device)
        kept = (draw >= share).to(x_FBD.dtype)
        chunks = torch.tensor(self.chunks, device=x_FBD.device)
        numbers = x_FBD[..., :-blocks] * kept.repeat_interleave(chunks, -1, output_size=sum(self.chunks))
        flags = torch.maximum(x_FBD[..., -blocks:], 1 - kept)
        return torch.cat([numbers, flags], -1)


class TabM(Member):
    """A TabM for each target. The mean of its members' outputs is the output."""

    options = Config

    def __init__(self, config: Config) -> None:
        """Begin without any network. `config` says how many layers they have."""
        self.config = config
        self.weights: dict[str, dict[str, Tensor]] = {}
        self.shapes: dict[str, list[int]] = {}
        self.inputs: dict[str, Inputs] = {}
        self.statistics: dict[str, TargetStatistics] = {}

    @classmethod
    def fit(cls, config: Config, lessons: Sequence[Lesson], advance: Callable[[], None]) -> list[Fit]:
        """Train the networks of every target; held-out rows decide when training stops."""
        config = _of_depth(config, max(len(lesson.train) for lesson in lessons))
        served = [cls(config) for _ in lessons]
        out_of_fold = [cls(config) for _ in lessons]
        tasks = lessons[0].tasks
        for done, (target, task) in enumerate(tasks.items()):
            folds = [_Fold.of(rows) for rows in described(lessons, target, config.statistics)]
            training = _Training(config, folds, task, lessons[0].settings, lessons[0].seed)
            choices = training.run(lessons[0].deadline.part(1 / (len(tasks) - done)))
            shape = list(task.baseline(folds[0].y).shape)
            for number, fold in enumerate(folds):
                served[number]._take(target, choices[-1][number], shape, fold.inputs, fold.statistics)
                out_of_fold[number]._take(target, choices[number][0], shape, fold.inputs, fold.statistics)
        for _ in lessons:
            advance()
        return [Fit(*members) for members in zip(served, out_of_fold, strict=True)]

    def _take(
        self,
        target: str,
        weights: dict[str, Tensor],
        shape: list[int],
        inputs: Inputs,
        statistics: TargetStatistics,
    ) -> None:
        """Take the weights of a target's network, the shape of a row's output, and what it reads of a row."""
        self.weights[target] = weights
        self.shapes[target] = shape
        self.inputs[target] = inputs
        self.statistics[target] = statistics

    def outputs(self, examples: Examples, subsets: Sequence[Sequence[str]]) -> list[dict[str, Tensor]]:
        """Return the outputs of each target, for each subset of the columns."""
        networks = {target: self._network(target) for target in self.weights}
        outputs = []
        for subset in subsets:
            blocks = hidden(examples.blocks(), subset)
            by_target = {}
            for target, network in networks.items():
                x = self.inputs[target](self.statistics[target](blocks))
                answers = [_mean_answer(network, rows[None])[0] for rows in x.split(ROWS_AT_ONCE)]
                by_target[target] = torch.cat(answers).reshape(-1, *self.shapes[target])
            outputs.append(by_target)
        return outputs

    def _network(self, target: str) -> StackedTabM:
        """Build a target's network with its weights."""
        weights = self.weights[target]
        baseline = weights["head_bias"][:, 0, 0]
        with torch.device("meta"):
            network = _build(self.config, self.inputs[target], torch.empty_like(baseline, device="meta"))
        network.load_state_dict(weights, assign=True)
        return network.eval()

    def save(self, folder: Path) -> None:
        """Write the weights and the scales of the inputs into `tabm.safetensors`."""
        tensors: dict[str, Tensor] = {}
        # Names hold numbers: a target may have any name.
        for number, (target, weights) in enumerate(self.weights.items()):
            tensors |= files.prefixed(f"{number}/", weights)
            tensors |= files.prefixed(_inputs(number), self.inputs[target].tensors())
            tensors |= files.prefixed(_statistics(number), self.statistics[target].tensors())
        assert self.config.depth is not None
        chunks = {target: inputs.chunks for target, inputs in self.inputs.items()}
        saved = _Saved(depth=self.config.depth, chunks=chunks, shapes=self.shapes)
        files.write_tensors(folder / FILE, tensors, {"tabm": saved.model_dump_json()})

    @classmethod
    def load(cls, config: Config, folder: Path, view: View | None) -> TabM:
        """Invert `save`. Raises `ArtifactError` unless the file holds such networks."""
        path = folder / FILE
        tensors, metadata = files.read_tensors(path)
        return files.load_part(f"'{path}'", lambda: cls._restored(config, path, tensors, metadata["tabm"]))

    @classmethod
    def _restored(cls, config: Config, path: Path, tensors: dict[str, Tensor], text: str) -> TabM:
        """Invert `save`. Raises `ArtifactError`, `KeyError` or `ValueError` for what cannot be networks."""
        saved = _Saved.model_validate_json(text)
        config = config.model_copy(update={"depth": saved.depth})
        weights, others = _parted(tensors)

        # Networks without memory: shapes are compared before anything is allocated.
        expected: dict[str, Tensor] = {}
        for number, (target, shape) in enumerate(saved.shapes.items()):
            unscaled = Inputs(saved.chunks[target], np.zeros(0, np.float32), np.zeros(0, np.float32))
            with torch.device("meta"):
                network = _build(config, unscaled, torch.empty(1, math.prod(shape)))
                numbers = torch.empty(sum(saved.chunks[target]))
            expected |= files.prefixed(f"{number}/", network.state_dict())
            expected |= files.prefixed(_inputs(number), {"mean": numbers, "scale": numbers})
        files.check_shapes(path, weights, expected)
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise ValueError("a weight is no finite number")

        member = cls(config)
        for number, (target, shape) in enumerate(saved.shapes.items()):
            scales = files.under_prefix(_inputs(number), weights)
            inputs = Inputs(saved.chunks[target], scales["mean"].numpy(), scales["scale"].numpy())
            statistics = TargetStatistics.from_tensors(files.under_prefix(_statistics(number), others))
            member._take(target, files.under_prefix(f"{number}/", weights), shape, inputs, statistics)
        return member


class _Saved(BaseModel):
    """What is saved beside the weights: layers, and of each target the widths of blocks and its shape."""

    model_config = ConfigDict(extra="forbid", strict=True)

    depth: int = Field(ge=1, le=16)
    chunks: dict[str, Annotated[list[int], Field(max_length=100_000)]]
    shapes: dict[str, list[int]]


component = TabM


def _inputs(number: int) -> str:
    """Return where the scales of a target's inputs are in the file."""
    return f"inputs/{number}/"


def _statistics(number: int) -> str:
    """Return where the statistics of a target are in the file."""
    return f"statistics/{number}/"


def _parted(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tensors whose shapes the options tell, and those of statistics, which check themselves."""
    statistics = {name: tensor for name, tensor in tensors.items() if name.startswith("statistics/")}
    weights = {name: tensor for name, tensor in tensors.items() if name not in statistics}
    return weights, statistics


def _evened(spread: np.ndarray, form: str) -> np.ndarray:
    """Return the geometric mean of each number's spread and the largest one, (width,).

    The first number of a bag is no direction, but its length.
    """
    evened = spread.copy()
    first = 1 if form == "bag" else 0
    directions = spread[first:]
    largest = directions.max(initial=0)
    evened[first:] = np.where(directions > LEAST_SPREAD, np.sqrt(directions * largest), 0)
    return evened


def _of_depth(config: Config, rows: int) -> Config:
    """Return the options with as many layers as suit so many rows."""
    if config.depth is not None:
        return config
    return config.model_copy(update={"depth": 2 if rows < MANY else 3})


def _build(config: Config, inputs: Inputs, baseline_FO: Tensor) -> StackedTabM:
    """Build the networks of as many folds as there are baselines."""
    assert config.depth is not None
    return StackedTabM(
        folds=len(baseline_FO),
        members=config.members,
        chunks=inputs.all_chunks,
        width=config.width,
        depth=config.depth,
        baseline_FO=baseline_FO,
        dropout=config.dropout,
    )


@torch.no_grad()
def _mean_answer(network: StackedTabM, x_FBD: Tensor) -> Tensor:
    """Return the mean output of all members, (F, B, O)."""
    answer: Tensor = network(x_FBD).mean(1)
    return answer


@dataclass(frozen=True)
class _Fold:
    """The labelled rows of one target when a fold is held out: numbers (N, D) and labels of both sides."""

    inputs: Inputs
    statistics: TargetStatistics
    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor

    @classmethod
    def of(cls, rows: Described) -> _Fold:
        """Measure the inputs by the training rows of a lesson, and turn all of its rows into numbers."""
        train, held_out = rows.train, rows.held_out
        inputs = Inputs.of(train.blocks)
        x, held_x = inputs(train.blocks), inputs(held_out.blocks)
        return cls(inputs, rows.statistics, x, train.y, held_x, held_out.y)


class _Training:
    """Train the networks of all folds for one target, epoch by epoch.

    Every fold takes as many steps as the largest one: a smaller fold goes through its rows once more.
    """

    def __init__(
        self,
        config: Config,
        folds: list[_Fold],
        task: Prediction,
        settings: Settings,
        seed: int,
    ) -> None:
        self.config = config
        self.inputs = folds[0].inputs
        self.folds = folds
        self.task = task
        self.kind = _precision(settings)
        self.rows = max(len(fold.y) for fold in folds)
        self.batch_size = min(config.batch_size, max(32, self.rows // 8))

        torch.manual_seed(seed)
        baselines = [task.baseline(fold.y).reshape(-1).float() for fold in folds]
        self.network = _build(config, self.inputs, torch.stack(baselines))
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    def run(self, deadline: Deadline) -> list[list[dict[str, Tensor]]]:
        """Train until no choice changes any more, or until the deadline.

        Return the weights of each fold at its best epoch by the other folds, one network each, and then those
        of all folds at the best epoch by all.
        """
        held_out_rows = np.array([len(fold.held_y) for fold in self.folds])
        bests = best_rounds(held_out_rows, self.config.epochs, self.config.patience)
        chosen: list[list[dict[str, Tensor]]] = [[] for _ in bests]
        can_stop = held_out_rows.any()
        for epoch in range(1, self.config.epochs + 1):
            self._epoch()
            losses = self._losses()
            for number, best in enumerate(bests):
                best.see(epoch, losses, held_out_rows)
                if best.round == epoch or not chosen[number]:
                    chosen[number] = self._weights(number)
            if deadline.is_over or (can_stop and all(best.final for best in bests)):
                break

        # Where no other fold has a labelled row, nothing is better than the last epoch.
        for number, best in enumerate(bests):
            if not best.folds:
                chosen[number] = self._weights(number)
        return chosen

    def _weights(self, number: int) -> list[dict[str, Tensor]]:
        """Return the weights that a choice is about: of one fold, or of all for the last choice."""
        folds = [number] if number < len(self.folds) else range(len(self.folds))
        return [self.network.of_fold(fold) for fold in folds]

    def _epoch(self) -> None:
        """Go once through the rows of the largest fold."""
        self.network.train()
        steps = max(round(self.rows / self.batch_size), 1)
        orders = [_order(len(fold.y), steps * self.batch_size) for fold in self.folds]
        for step in range(steps):
            first = step * self.batch_size
            places = [order[first : first + self.batch_size] for order in orders]
            self._step(places)

    def _step(self, places: list[Tensor]) -> None:
        """Take one step on these rows of each fold."""
        xs = [fold.x[rows] for fold, rows in zip(self.folds, places, strict=True)]
        x_FBD = self.inputs.hide(torch.stack(xs), self.config.hide)
        output_FKBO = self.network(x_FBD.to(self.kind))

        # Each fold has a loss of its own, the mean over its members and rows.
        losses = []
        for fold, rows, output_KBO in zip(self.folds, places, output_FKBO, strict=True):
            y = fold.y[rows].repeat(self.config.members, *[1] * (fold.y.ndim - 1))
            losses.append(_loss(self.task, output_KBO.flatten(0, 1), y))
        self.optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        self.optimizer.step()

    def _losses(self) -> np.ndarray:
        """Return each fold's loss on its held-out rows, (F,); NaN without any."""
        self.network.eval()
        most = max(len(fold.held_y) for fold in self.folds)
        padded = [_padded(fold.held_x, most) for fold in self.folds]
        chunks = torch.stack(padded).split(ROWS_AT_ONCE, 1)
        answers = [_mean_answer(self.network, x_FBD.to(self.kind)) for x_FBD in chunks]
        answer_FBO = torch.cat(answers, 1)
        losses = []
        for fold, answer_BO in zip(self.folds, answer_FBO, strict=True):
            rows = len(fold.held_y)
            loss = float(_loss(self.task, answer_BO[:rows], fold.held_y)) if rows else float("nan")
            losses.append(loss)
        return np.array(losses)


def _precision(settings: Settings) -> torch.dtype:
    """Return the precision of products. They run on the CPU, wherever those of encoders do."""
    if settings.frozen != "bf16":
        return torch.float32
    return torch.bfloat16 if settings.device == "cpu" or bf16_is_fast("cpu") else torch.float32


def _order(rows: int, count: int) -> Tensor:
    """Return `count` places among the rows: shuffled, and shuffled anew whenever all have had their turn."""
    rounds = -(-count // rows)
    return torch.cat([torch.randperm(rows) for _ in range(rounds)])[:count]


def _padded(x_BD: Tensor, rows: int) -> Tensor:
    """Add rows of zeros, until there are so many."""
    return torch.cat([x_BD, x_BD.new_zeros(rows - len(x_BD), x_BD.shape[1])])


def _loss(task: Prediction, output_BO: Tensor, y: Tensor) -> Tensor:
    """Return the task's mean loss of some rows. A task of one number has outputs (B,)."""
    shape = task.baseline_output().shape
    everywhere = torch.ones(len(y), dtype=torch.bool)
    return task.loss(output_BO.reshape(-1, *shape), y, everywhere)

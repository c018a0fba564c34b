"""Tasks that predict a class, labels or a number from a fused vector. B rows, D width, C classes.

Late fusion, the baseline and pseudo-labels belong here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plait.nn.batch import Encoded, Fused
from plait.nn.search import minimum
from plait.recipe.registry import hook
from plait.table.json import JSON
from plait.tasks.base import MAIN, Outputs, Task, Widths

# Bounds of a temperature. Without them, a few rows that are all answered right would make a model certain.
COOLEST, HOTTEST = 0.5, 20.0

# Labelled rows that a temperature needs.
CALIBRATING = 20

# Rows that the overall baseline counts as, next to the rows that lack a block.
EMPTY_PRIOR_ROWS = 10

# Rows that the prior of the mixture weight counts as, half of them for late fusion.
PRIOR_ROWS = 10

TINY = 1e-12  # keeps the logarithm of a weight of 0 finite


class Prediction(Task):
    """A task that is answered from the fused vector of its inputs and from nothing else.

    So it can also be answered from one block, from mixed rows, and by an ensemble. The answer of a row
    depends on how many of its blocks have a cell:

    - Two or more: the fused answer, mixed with late fusion where outputs are `logits`.
    - One: the answer of that block's unimodal head.
    - None: the baseline, plus an offset for each empty block, which is counted on training rows.

    `logits` says that outputs are logits. The head divides them by `temperature`, which is 1 until
    `calibrate`.
    """

    fuses = True
    logits: ClassVar[bool]
    temperature: Tensor
    empty_offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))
        self.late_fusion: LateFusion | None = None

    @abstractmethod
    def build_head(self, width: int) -> None:
        """Make the head for fused vectors of this width."""

    @abstractmethod
    def forward(self, fused_BD: Tensor) -> Tensor:
        """Return logits, or scaled values, in float32."""

    @abstractmethod
    def mix(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """Return the output of the weighted mean of several models' answers, (models, B, ...).

        For classes this is the mean of probabilities. The weights add up to one.
        """

    @abstractmethod
    def pseudo(self, output: Tensor, sure: float) -> tuple[Tensor, Tensor]:
        """Return answers in the form of targets, and True where their probability is at least `sure`."""

    @abstractmethod
    def baseline_output(self) -> Tensor:
        """Return the baseline of the labels that the task was fitted on, from its state.

        It is the output of a row without any cell.
        """

    @hook
    def fit_offset(self, output: Tensor, target: Tensor) -> float:
        """Return what to add to outputs so that answers are right on average, by rows not trained on.

        It is 0 where outputs are logits, which have a temperature, and where the loss sees to it.
        """
        return 0.0

    @hook
    def add_offset(self, offset: float) -> None:
        """Let the head add what `fit_offset` returned."""
        return

    @property
    @hook
    def calibrates(self) -> bool:
        """Whether validation rows have a say in the answers, once the model is trained."""
        return self.logits

    @abstractmethod
    def boosting(self, target: Tensor) -> list[tuple[JSON, Tensor]]:
        """Return LightGBM's parameters and the target of each booster of gradient-boosted trees.

        The boosters' raw scores, side by side, are the output. The list is empty if trees cannot learn it.
        """

    @hook
    def may_boost(self, target: Tensor) -> bool:
        """Return whether trees can learn from these labels of training rows."""
        return True

    @hook
    def label_numbers(self, target: Tensor) -> Tensor:
        """Return each label as numbers whose mean describes several labels, (B, numbers)."""
        return target.reshape(len(target), -1).float()

    def build(self, widths: Widths) -> None:
        """Make the head, late fusion if it takes part, and the offsets of empty blocks."""
        self.build_head(widths.fused)
        if self.logits and widths.late_fusion:
            self.late_fusion = LateFusion(widths.blocks)
        shape = (len(widths.blocks), *self.baseline_output().shape)
        self.register_buffer("empty_offset", torch.zeros(shape))

    def answer(self, fused: Fused | None, encoded: Encoded) -> Tensor:
        """Return the output of some rows, mixed with late fusion if there is one."""
        assert fused is not None
        outputs = self._outputs(fused)
        if self.late_fusion is None:
            return outputs.output
        return self.late_fusion(self, outputs)

    def trained_outputs(self, fused: Fused | None, encoded: Encoded) -> dict[str, Tensor]:
        """Return the fused output, and that of each block's unimodal vector by the same head.

        Without unimodal losses, the column that is learned first leaves the others nothing to learn. Most
        often this is a text that can be memorised (Wang et al. 2020, "What makes training multi-modal
        classification networks hard?").
        """
        assert fused is not None
        outputs = {MAIN: self(fused.vector_BD)}
        for block, vector_BD in fused.blocks.items():
            outputs[block] = self(vector_BD)
        return outputs

    def loss_weights(self, blocks: Iterable[str], unimodal_weight: float, left: float) -> dict[str, float]:
        """Return a weight of `unimodal_weight` for each unimodal loss.

        Squared errors share this weight, and it falls to zero at the end of training. A block's squared
        error stays large where the block says nothing about a number, and would dominate the loss. The loss
        of a class is bounded.
        """
        names = list(blocks)
        weight = unimodal_weight
        if self.squared:
            weight = unimodal_weight * left / max(len(names), 1)
        return {MAIN: 1.0, **dict.fromkeys(names, weight)}

    def outputs(self, fused: Fused | None, encoded: Encoded) -> Outputs | None:
        """Return the outputs without late fusion; None if there is nothing to calibrate."""
        if not self.calibrates or fused is None:
            return None
        return self._outputs(fused)

    def calibrate(self, outputs: Outputs, target: Tensor) -> None:
        """Set the temperature, and then late fusion of the logits that it divides. Numbers get an offset."""
        if not self.logits:
            self.add_offset(self.fit_offset(outputs.output, target))
            return
        temperature = fit_temperature(self, outputs.output, target)
        self.temperature.fill_(temperature)
        if self.late_fusion is None:
            return

        # `outputs` were made with a temperature of 1.
        cooled_output = outputs.output / temperature
        cooled_blocks = {block: output / temperature for block, output in outputs.blocks.items()}
        cooled = Outputs(cooled_output, cooled_blocks, outputs.present)
        self.late_fusion.calibrate(self, cooled, target)

    def take_calibration(self, other: Prediction) -> None:
        """Take what `calibrate` has set in a task that was trained on fewer rows."""
        others = dict(other.named_buffers())
        for name, buffer in self.named_buffers():
            if name != "empty_offset":  # comes from training rows
                buffer.copy_(others[name])

    def fit_empty_blocks(self, overall: Tensor, labels: Tensor, empty_NP: Tensor) -> None:
        """Set each block's offset: the baseline of training rows that lack it, minus that of all rows.

        `overall` is the baseline of all rows. It counts as ten rows that lack the block, so that a few rows
        do not move the offset far. `empty_NP` is True where a labelled row lacks a block.
        """
        for index, empty_N in enumerate(empty_NP.unbind(1)):
            count = int(empty_N.sum())
            if not count:
                continue
            weights = torch.tensor([count, EMPTY_PRIOR_ROWS]) / (count + EMPTY_PRIOR_ROWS)
            of_empty_rows = self.baseline(labels[empty_N])

            # `mix` takes (models, rows, ...): here two models and one row.
            lacking = torch.stack([of_empty_rows, overall])[:, None]
            everywhere = torch.stack([overall, overall])[:, None]
            offset = self.mix(lacking, weights) - self.mix(everywhere, weights)
            self.empty_offset[index] = offset[0]

    def _outputs(self, fused: Fused) -> Outputs:
        """Return the answers without late fusion: fused, by one block's head, or the baseline.

        A row without any cell still says which blocks are empty. Each adds its offset to the baseline, as
        independent evidence adds up in naive Bayes.
        """
        output = self(fused.answered_BD())
        blocks = {block: self(vector_BD) for block, vector_BD in fused.blocks.items()}

        offset_of_block = self.empty_offset.reshape(len(self.empty_offset), -1).to(output)
        empty_BP = fused.empty_BP().to(output)
        offset = (empty_BP @ offset_of_block).view_as(output)
        counted = self.baseline_output().to(output) + offset

        has_any_cell = _like(fused.count_B() > 0, output)
        return Outputs(torch.where(has_any_cell, output, counted), blocks, fused.present)


class LateFusion(nn.Module):
    """Mix the fused answer with the product of what the unimodal heads answer.

    p = (1 - s) p_fused + s softmax(sum_b z_b / T_b). Here z_b are the logits of the unimodal head of
    block b, T_b is its temperature, and s is the mixture weight. These are linear and logarithmic opinion
    pools (Genest & Zidek 1986, "Combining probability distributions", sections 3 and 4). For labels,
    sigmoid takes the place of softmax.

    Fusion finds what only several blocks together say. But it is as certain as the block that it could
    memorise. Validation rows tell how reliable each block and the fused answer are. Until `calibrate`,
    s is 0.
    """

    def __init__(self, blocks: Sequence[str]) -> None:
        super().__init__()
        self.blocks = list(blocks)

        # 1 / T_b; 0 where too few validation rows have the block to know.
        self.inverse_temperature_P: Tensor
        self.register_buffer("inverse_temperature_P", torch.ones(len(self.blocks)))
        self.mixture_weight: Tensor
        self.register_buffer("mixture_weight", torch.zeros(()))

    def forward(self, task: Prediction, outputs: Outputs) -> Tensor:
        """Return the mixed logits.

        A row keeps its answer if it has one block or none, or if none of its blocks has a temperature.
        """
        combined, mixes_B = self._combined(outputs)
        answers = torch.stack([outputs.output, combined])
        weights = torch.stack([1 - self.mixture_weight, self.mixture_weight])

        # Mix all rows, and choose afterwards: `forward` does not branch on values.
        mixed = task.mix(answers, weights)
        return torch.where(_like(mixes_B, mixed), mixed, outputs.output)

    def calibrate(self, task: Prediction, outputs: Outputs, target: Tensor) -> None:
        """Set T_b to the temperature of each unimodal head on these rows, and then s to its likeliest value.

        The rows were not trained on. A beta prior counts as ten rows, half of them for each side, so that a
        few rows do not move s far.
        """
        for index, block in enumerate(self.blocks):
            self.inverse_temperature_P[index] = self._inverse_temperature(task, outputs, target, block)

        combined, mixes_B = self._combined(outputs)
        if int(mixes_B.sum()) < CALIBRATING:
            self.mixture_weight.fill_(0.0)
            return
        answers = torch.stack([outputs.output, combined])

        def loss(weight: float) -> float:
            mixed = task.mix(answers, torch.tensor([1 - weight, weight]))
            total_loss = mixes_B.sum() * task.loss(mixed, target, mixes_B)
            log_prior = PRIOR_ROWS / 2 * (np.log(weight) + np.log(1 - weight))
            return float(total_loss) - float(log_prior)

        self.mixture_weight.fill_(minimum(loss, 0.0, 1.0))

    def _inverse_temperature(self, task: Prediction, outputs: Outputs, target: Tensor, block: str) -> float:
        """Return 1 / T_b from the rows that have the block; 0 if they are too few to tell."""
        rows = outputs.present[block]
        if int(rows.sum()) < CALIBRATING:
            return 0.0
        temperature = fit_temperature(task, outputs.blocks[block][rows], target[rows])
        return 1 / temperature

    def _combined(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Return the sums of each row's cooled logits, and True where a row is to be mixed.

        A sum of logits is a product of probabilities. A row is mixed if it has two blocks or more, and one
        of them has a temperature.
        """
        # Validation rows stay on the CPU, wherever the model is.
        inverse_P = self.inverse_temperature_P.to(outputs.output.device)
        terms, present = [], []
        for inverse, block in zip(inverse_P, self.blocks, strict=True):
            present_B = outputs.present[block]
            terms.append(inverse * outputs.blocks[block] * present_B[:, None])
            present.append(present_B)
        combined = torch.stack(terms).sum(0)

        present_PB = torch.stack(present)
        has_several_B = present_PB.sum(0) > 1
        has_temperature_B = (present_PB & (inverse_P > 0)[:, None]).any(0)
        return combined, has_several_B & has_temperature_B


def predictions(tasks: Mapping[str, Task]) -> dict[str, Prediction]:
    """Return the tasks that predict, by target."""
    return {target: task for target, task in tasks.items() if isinstance(task, Prediction)}


def fit_temperature(task: Prediction, output: Tensor, target: Tensor) -> float:
    """Return the temperature that gives logits the least loss on rows that were not trained on.

    Logits are divided by it (Guo et al. 2017, "On calibration of modern neural networks"). It is 1 for
    outputs that are not logits, and for fewer than 20 rows.
    """
    if not task.logits or len(target) < CALIBRATING:
        return 1.0

    everywhere_B = torch.ones(len(target), dtype=torch.bool)

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        return float(task.loss(output / temperature, target, everywhere_B))

    best = minimum(loss, float(np.log(COOLEST)), float(np.log(HOTTEST)))
    return float(np.exp(best)) if loss(best) < loss(0.0) else 1.0


def mean_of_softmax(outputs: Tensor, weights: Tensor) -> Tensor:
    """Return the log of the mean of several models' probabilities, from logits (models, B, C)."""
    log_weights = weights.clamp(min=TINY).log()[:, None, None]
    log_p = outputs.log_softmax(-1)
    return (log_p + log_weights).logsumexp(0)


def mean_of_sigmoid(outputs: Tensor, weights: Tensor) -> Tensor:
    """Return the logit of the mean of several models' probabilities, from logits (models, B, labels)."""
    log_weights = weights.clamp(min=TINY).log()[:, None, None]
    log_positive = (F.logsigmoid(outputs) + log_weights).logsumexp(0)
    log_negative = (F.logsigmoid(-outputs) + log_weights).logsumexp(0)
    return log_positive - log_negative


def _like(mask_B: Tensor, output: Tensor) -> Tensor:
    """Give a mask of rows as many dimensions as an output has."""
    later_dimensions = (1,) * (output.ndim - 1)
    return mask_B.reshape(-1, *later_dimensions)

"""Decide by a member's first fold whether its other folds are worth their time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from plait.ensemble.out_of_fold import OutOfFoldPrediction
from plait.ensemble.weights import Weighing, fit_mixture
from plait.tasks.base_prediction import Prediction

BLOCKS = 20  # of rows, whose mean losses are compared
LEAST_ROWS = 2 * BLOCKS  # labelled rows of a fold that tell enough to drop a member
FAR = 2.0  # standard errors of the mean difference from which on a member is far behind
TRIED = 0.1  # weight of a member that must make the others better; a smaller one is hardly worth a member
CLEAR = 1.0  # standard errors by which a costly member must make the others better


@dataclass(frozen=True)
class FirstFold:
    """A member's main metric on its first fold, beside that of the best other member on the same rows.

    `behind` is how far its loss lies above that of the best one, and `gain` how much the loss of the others'
    mixture falls with it, both in standard errors. `costly` says that its other folds would take longer than
    all members before.
    """

    value: float
    best: str
    best_value: float
    rows: int
    behind: float
    gain: float
    costly: bool = False

    @property
    def drops(self) -> bool:
        """Whether the member's other folds are not worth their time.

        It is far behind, and the others do not get better with it. A weak member may still help, since it
        errs on other rows. If it is costly, it is enough that it is behind and that the others do not get
        clearly better.
        """
        if self.costly and self.behind > 0 and self.gain < CLEAR:
            return True
        return self.behind >= FAR and self.gain <= 0

    def reason(self, metric: str) -> str:
        """Say why the member is dropped, as in "rmse 3.200 against 2.100 of trees"."""
        line = f"{metric} {self.value:.3f} against {self.best_value:.3f} of {self.best}"
        return f"{line}, and slow" if self.costly else line


def compare(
    weighing: Weighing,
    fold: np.ndarray,
    prediction: OutOfFoldPrediction,
    rivals: Mapping[str, OutOfFoldPrediction],
    costly: bool = False,
) -> FirstFold | None:
    """Compare a member that has predicted only one fold with those that have predicted all.

    Return None if the fold has too few labelled rows to tell. The member's loss is compared with that of the
    best rival, and the loss of the rivals' mixture with that of a mixture where the member weighs `TRIED`.
    Standard errors are over blocks of rows. The mixture is fitted without the labels of the fold.
    """
    rows = torch.from_numpy(fold)
    rows = rows[weighing.labelled[rows]]
    if len(rows) < LEAST_ROWS:
        return None
    task, labels = weighing.task, weighing.target[rows]
    without_fold = weighing.labelled.clone()
    without_fold[rows] = False
    if not without_fold.any():
        return None
    options = weighing.options.model_copy(update={"stack": False})
    others = replace(weighing, labelled=without_fold, options=options)
    mixture = fit_mixture(others, dict(rivals), [])

    # Each answers at its own temperature. The member's comes from these rows, which can only flatter it.
    outputs = {name: rival.outputs[rows] for name, rival in rivals.items()}
    cooled = {name: output / mixture.temperatures[name] for name, output in outputs.items()}
    of_fold = OutOfFoldPrediction(prediction.outputs, prediction.mask & weighing.labelled)
    output = of_fold.cooled(weighing.temperature(of_fold)).outputs[rows]

    losses = {name: block_losses(task, rival, labels) for name, rival in cooled.items()}
    best = min(losses, key=lambda name: float(losses[name].mean()))
    behind = block_losses(task, output, labels) - losses[best]
    mixed = mixture.output(task, outputs)
    weights = torch.tensor([1 - TRIED, TRIED])
    with_member = task.mix(torch.stack([mixed, output]), weights)
    gain = block_losses(task, mixed, labels) - block_losses(task, with_member, labels)
    return FirstFold(
        value=task.measure_score(output.numpy(), labels.numpy()),
        best=best,
        best_value=task.measure_score(cooled[best].numpy(), labels.numpy()),
        rows=len(rows),
        behind=standard_errors(behind),
        gain=standard_errors(gain),
        costly=costly,
    )


def block_losses(task: Prediction, output: Tensor, labels: Tensor) -> np.ndarray:
    """Return the mean loss of each of `BLOCKS` blocks of rows, which are drawn with a fixed seed."""
    order = np.random.default_rng(0).permutation(len(labels))
    losses = []
    for block in np.array_split(order, BLOCKS):
        rows = torch.from_numpy(block)
        everywhere = torch.ones(len(rows), dtype=torch.bool)
        losses.append(float(task.loss(output[rows], labels[rows], everywhere)))
    return np.array(losses)


def standard_errors(differences: np.ndarray) -> float:
    """Return the mean of differences in units of its standard error."""
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return float(differences.mean() / max(error, np.finfo(float).tiny))

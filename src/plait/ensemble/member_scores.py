"""What each member scores, weighs, costs, and adds to the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plait.ensemble.out_of_fold import OutOfFoldEnsemble
from plait.ensemble.training import MemberTraining
from plait.ensemble.weights import Weighing, cross_fit_mixture

DROPPED = "dropped after fold 1"


@dataclass(frozen=True)
class MemberScore:
    """A member's main metric on so many rows that the ensemble is scored on, and its weight.

    `gain` is what the ensemble's metric loses on these rows without the member, in the metric's unit, above 0
    if the member helps. It is None where that is not known. `seconds` are those of its training, 0 for the
    run's own network, which is trained before. `note` says why a member was dropped; its score is then that
    of its first fold.
    """

    value: float
    rows: int
    weight: float
    seconds: float = 0.0
    gain: float | None = None
    note: str = ""


def member_scores(
    out_of_fold: OutOfFoldEnsemble,
    target: str,
    weighing: Weighing,
    folds: list[np.ndarray],
    trainings: Mapping[str, MemberTraining],
) -> dict[str, MemberScore]:
    """Score each member on the rows that the ensemble is scored on, so that they can be compared.

    A member without a weight may have predicted only some of these rows. `folds` are those that the members
    are weighed by. `trainings` has the training of each member but the run's own network, by name.
    """
    task = out_of_fold.tasks[target]
    mixture = out_of_fold.mixtures[target].served
    labels, _ = out_of_fold.examples.target(target)
    scored = out_of_fold.scored(target)
    scores = {}
    for name, prediction in out_of_fold.of_target(target).items():
        rows = scored & prediction.mask
        if not rows.any():
            continue
        outputs = prediction.cooled(mixture.temperatures[name]).outputs[rows]
        scores[name] = MemberScore(
            value=task.measure_score(outputs.numpy(), labels[rows].numpy()),
            rows=int(rows.sum()),
            weight=mixture.weights.get(name, 0.0),
            seconds=trainings[name].seconds if name in trainings else 0.0,
            gain=_gain(out_of_fold, target, name, weighing, folds),
        )

    for name, training in trainings.items():
        if training.is_dropped and target in training.first:
            first = training.first[target]
            note = f"{DROPPED}: {first.reason(task.score)}"
            scores[name] = MemberScore(first.value, first.rows, 0.0, training.seconds, note=note)
    return scores


def _gain(
    out_of_fold: OutOfFoldEnsemble, target: str, name: str, weighing: Weighing, folds: list[np.ndarray]
) -> float | None:
    """Return what the metric of out-of-fold answers loses without a member, above 0 if it helps.

    The others share its weight in proportion to theirs. Where they have none, they are weighed anew. Return
    None for the only member, and after the deadline: gains are only shown.
    """
    if weighing.deadline.is_over:
        return None
    task = out_of_fold.tasks[target]
    mixture = out_of_fold.mixtures[target]
    without = mixture.without(name)
    candidates = out_of_fold.of_target(target)
    if without is None:
        others = {other: prediction for other, prediction in candidates.items() if other != name}
        if not any(weighing.count(prediction) for prediction in others.values()):
            return None
        without = cross_fit_mixture(weighing, others, folds)

    outputs = {other: prediction.outputs for other, prediction in candidates.items()}
    answer = out_of_fold.mixed(mixture, target, outputs)
    answer_without = out_of_fold.mixed(without, target, outputs)
    labels, _ = out_of_fold.examples.target(target)
    rows = out_of_fold.scored(target) & _has_answer(answer) & _has_answer(answer_without)
    if not rows.any():
        return None
    score = task.measure_score(answer[rows].numpy(), labels[rows].numpy())
    score_without = task.measure_score(answer_without[rows].numpy(), labels[rows].numpy())
    return score - score_without if task.higher else score_without - score


def _has_answer(answer: Tensor) -> Tensor:
    """Return the rows that have an answer, (N,)."""
    return ~torch.isnan(answer.reshape(len(answer), -1)).any(1)

"""Fit how the members of an ensemble are mixed: temperatures, weights, and a stacked linear model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from plait.data.plan_ensemble import EnsemblePlan
from plait.ensemble.mixture import Mixture, Stack, stack_input
from plait.ensemble.out_of_fold import CrossFitMixture, OutOfFoldPrediction, predicted_by_all, weighted_mean
from plait.ensemble.selection import bagged
from plait.members.base_linear import solve, space_of
from plait.recipe.sections import OWN_NETWORK, STACK
from plait.runs.deadline import NO_LIMIT, Deadline
from plait.tasks.base_prediction import Prediction, fit_temperature

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # of the stacked model's regularisation
PRIOR_ROWS = 50  # that equal weights count as, where a member predicts only some rows
MEAN = ""  # the mean of the complete members, as a candidate; no member has an empty name


@dataclass(frozen=True)
class Weighing:
    """What the members of one target are weighed by: labels for N rows, and the ensemble's options.

    Rows have a label where `labelled` (N,) is True. After the `deadline`, weights are chosen less carefully.
    """

    task: Prediction
    target: Tensor
    labelled: Tensor
    options: EnsemblePlan
    seed: int
    deadline: Deadline = NO_LIMIT

    def rows(self, *predictions: OutOfFoldPrediction) -> Tensor:
        """Return the labelled rows that all of these predict: (N,), True in such a row."""
        return self.labelled & predicted_by_all(predictions)

    def count(self, *predictions: OutOfFoldPrediction) -> int:
        """Count the labelled rows that all of these predict."""
        return int(self.rows(*predictions).sum())

    def temperature(self, prediction: OutOfFoldPrediction) -> float:
        """Fit a temperature on the labelled rows that have a prediction."""
        rows = self.rows(prediction)
        return fit_temperature(self.task, prediction.outputs[rows], self.target[rows])

    def offset(self, prediction: OutOfFoldPrediction) -> float:
        """Fit an offset on the labelled rows that have a prediction."""
        rows = self.rows(prediction)
        return self.task.fit_offset(prediction.outputs[rows], self.target[rows])

    def select(self, candidates: dict[str, OutOfFoldPrediction]) -> dict[str, float]:
        """Weigh candidates on the labelled rows that all of them predict. The weights add up to one."""
        rows = self.rows(*candidates.values())
        outputs = [prediction.outputs[rows] for prediction in candidates.values()]
        target = self.target[rows]
        options = self.options
        weights = bagged(outputs, self.task, target, options.rounds, options.bags, self.seed, self.deadline)
        return dict(zip(candidates, weights, strict=True))


def cross_fit_mixture(
    weighing: Weighing, predictions: dict[str, OutOfFoldPrediction], folds: list[np.ndarray]
) -> CrossFitMixture:
    """Fit how the members are mixed, once on all folds to be served, and once without each fold.

    The latter answer the rows of their folds. Else the weights and temperatures would be scored on the rows
    that chose them. The run's network answers alone where no member has predicted a row with a label.
    """
    if not any(weighing.count(prediction) for prediction in predictions.values()):
        return CrossFitMixture(Mixture({OWN_NETWORK: 1.0}, {OWN_NETWORK: 1.0}), [])

    by_fold = []
    served = fit_mixture(weighing, predictions, folds)
    for number, fold in enumerate(folds):
        labelled = weighing.labelled.clone()
        labelled[fold] = False
        other_folds = [*folds[:number], *folds[number + 1 :]]
        without = replace(weighing, labelled=labelled)
        # A target may have labels in one fold only: nothing else can weigh the members then.
        has_labels = any(without.count(prediction) for prediction in predictions.values())
        mixture = fit_mixture(without, predictions, other_folds) if has_labels else served
        by_fold.append((fold, mixture))
    return CrossFitMixture(served, by_fold)


def fit_mixture(
    weighing: Weighing, predictions: dict[str, OutOfFoldPrediction], folds: list[np.ndarray]
) -> Mixture:
    """Fit how the members are mixed, on their out-of-fold predictions by name.

    A member is never judged by a row that it did not predict:

    1. Its temperature comes from the labelled rows that it predicts.
    2. Members that predict the most rows are complete. They, and a model stacked on them, are weighed on
       all of these rows.
    3. The others (the run's network, which predicts the validation rows only) are candidates beside the
       mean of the complete ones, on the rows that both predict: only there can they be compared. The
       complete ones share the weight that their mean gets, in the proportions of step 2.
    4. The temperature and the offset of the mean come from the rows that every member with a weight predicts.

    Weights are fitted on out-of-fold predictions so that they do not reward members for rows that they have
    learned by heart (Wolpert 1992, "Stacked generalization"; van der Laan et al. 2007, "Super learner"), by
    greedy selection (Caruana et al. 2004). `folds` are those of the stacked model.
    """
    temperatures = {}
    cooled = {}
    for name, prediction in predictions.items():
        temperatures[name] = weighing.temperature(prediction)
        cooled[name] = prediction.cooled(temperatures[name])
    mixture = Mixture({}, temperatures)

    # The stacked model needs a prediction of every member that it reads, so it reads complete ones only.
    complete = _complete(weighing, cooled)
    if weighing.options.stack and len(complete) > 1 and len(folds) > 1:
        mixture.stack, stacked = fit_stack(weighing, complete, folds)
        complete[STACK] = stacked
        cooled[STACK] = stacked
    mixture.weights = weighing.select(complete)

    # A member that shares no row with the complete ones cannot be compared with them, and gets no weight.
    mean = weighted_mean(weighing.task, complete, mixture.weights)
    partial = {}
    for name, prediction in cooled.items():
        if name not in complete and weighing.count(prediction, mean):
            partial[name] = prediction
    if partial:
        mixture.weights = _with_partial(weighing, mixture.weights, mean, partial)

    # A mean of calibrated answers is less sure than it may be, so it has a temperature of its own.
    answer = weighted_mean(weighing.task, cooled, mixture.weights)
    mixture.temperature = weighing.temperature(answer)
    mixture.offset = weighing.offset(answer.cooled(mixture.temperature))
    return mixture


def _complete(
    weighing: Weighing, predictions: dict[str, OutOfFoldPrediction]
) -> dict[str, OutOfFoldPrediction]:
    """Return the members that predict the most labelled rows."""
    counts = {name: weighing.count(prediction) for name, prediction in predictions.items()}
    most_rows = max(counts.values())
    complete = {}
    for name, prediction in predictions.items():
        if counts[name] == most_rows:
            complete[name] = prediction
    return complete


def _with_partial(
    weighing: Weighing,
    weights: dict[str, float],
    mean: OutOfFoldPrediction,
    partial: dict[str, OutOfFoldPrediction],
) -> dict[str, float]:
    """Weigh partial members beside the mean of the complete ones, which share the weight of the mean.

    The rows that all predict are few. So equal weights count as `PRIOR_ROWS` of them, among the members that
    have a weight at all.
    """
    candidates = {MEAN: mean, **partial}
    partial_weights = weighing.select(candidates)
    equal = dict.fromkeys(candidates, 1.0)
    equal[MEAN] = sum(weight > 0 for weight in weights.values())
    partial_weights = shrunk(partial_weights, equal, weighing.count(*candidates.values()))
    mean_weight = partial_weights.pop(MEAN)
    complete_weights = {name: weight * mean_weight for name, weight in weights.items()}
    return complete_weights | partial_weights


def shrunk(weights: dict[str, float], equal: dict[str, float], rows: int) -> dict[str, float]:
    """Return weights that were fitted on so many rows, drawn towards those in proportion to `equal`.

    A weight of 0 stays: the member is of no use on these rows.
    """
    total = sum(equal[name] for name, weight in weights.items() if weight)
    drawn = {}
    for name, weight in weights.items():
        prior = equal[name] / total if weight else 0.0
        drawn[name] = (rows * weight + PRIOR_ROWS * prior) / (rows + PRIOR_ROWS)
    return drawn


def fit_stack(
    weighing: Weighing, predictions: dict[str, OutOfFoldPrediction], folds: list[np.ndarray]
) -> tuple[Stack, OutOfFoldPrediction]:
    """Fit a stacked model on the members' predictions. Return it, and its out-of-fold predictions.

    Each fold is predicted by a model of the other folds. Of several strengths of regularisation, the one with
    the least loss on these predictions is kept.
    """
    names = list(predictions)
    task = weighing.task
    labelled = weighing.rows(*predictions.values())
    rows = np.flatnonzero(labelled.numpy())
    target = weighing.target[labelled]
    everywhere = torch.ones(len(target), dtype=torch.bool)
    outputs = [prediction.outputs for prediction in predictions.values()]
    inputs = stack_input(task, outputs).numpy().astype(np.float32)

    losses = {}
    stacked = {}
    for strength in STRENGTHS:
        answer = torch.full_like(outputs[0], torch.nan)
        for fold in folds:
            model = Stack(names, *_linear(weighing, inputs, np.setdiff1d(rows, fold), strength))
            fold_outputs = [output[fold] for output in outputs]
            answer[fold] = model.output(task, fold_outputs)
        losses[strength] = float(task.loss(answer[labelled], target, everywhere))
        stacked[strength] = answer

    # The model that is served learns from all rows.
    best = min(STRENGTHS, key=lambda strength: losses[strength])
    stack = Stack(names, *_linear(weighing, inputs, rows, best))
    return stack, OutOfFoldPrediction(stacked[best], predicted_by_all(predictions.values()))


def _linear(
    weighing: Weighing, inputs: np.ndarray, rows: np.ndarray, strength: float
) -> tuple[Tensor, Tensor]:
    """Fit a linear model from inputs (N, numbers) to the target on some rows: weight and bias."""
    space = space_of([inputs[rows]])
    target = weighing.target[torch.from_numpy(rows)]

    # The search begins at the answer without inputs.
    baseline = weighing.task.baseline(weighing.target[weighing.labelled])
    zero = torch.zeros(space.width, baseline.numel(), dtype=torch.float64)
    weight, bias = solve(space, weighing.task, target, strength, zero, baseline.double())
    return space.weights(weight).float(), bias.float()

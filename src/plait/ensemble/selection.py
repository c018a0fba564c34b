"""Weigh the members of an ensemble by greedy selection."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from plait.runs.deadline import NO_LIMIT, Deadline
from plait.tasks.base_prediction import Prediction

MIN_WEIGHT = 0.05  # a smaller one becomes zero: such a member takes as long to answer as any other


def bagged(
    outputs: list[Tensor],
    task: Prediction,
    target: Tensor,
    rounds: int,
    bags: int,
    seed: int,
    deadline: Deadline = NO_LIMIT,
) -> list[float]:
    """Return the weight of each model: its mean over `bags` greedy selections.

    Each selection is by rows drawn with replacement; a single one is by all rows. One selection would pick
    the models that these rows happen to flatter, the more so the fewer the rows ("Bagging predictors",
    Breiman 1996). All models take part in each: among some of them, a selection that lacks the best one
    gives its weight to worse ones. From the deadline on there is no other selection.
    """
    if bags == 1 or len(outputs) == 1:
        return greedy(outputs, task, target, rounds)
    rng = np.random.default_rng(seed)
    total = np.zeros(len(outputs))
    selections = 0
    while selections < bags and not (selections and deadline.is_over):
        rows = torch.from_numpy(rng.integers(0, len(target), len(target)))
        drawn_outputs = [output[rows] for output in outputs]
        total += greedy(drawn_outputs, task, target[rows], rounds)
        selections += 1

    weights = total / selections
    # Where all weights are small, the largest one stays.
    weights[weights < min(MIN_WEIGHT, weights.max())] = 0.0
    return (weights / weights.sum()).tolist()


def greedy(outputs: list[Tensor], task: Prediction, target: Tensor, rounds: int) -> list[float]:
    """Return the weight of each model: how often it was added to the mean.

    Each round adds the model that lowers the loss of the mean most; a model can be added again (Caruana et
    al. 2004, "Ensemble selection from libraries of models", with replacement). The weights of the best round
    count.
    """
    everywhere = torch.ones(len(target), dtype=torch.bool)
    counts = np.zeros(len(outputs))
    best_counts = counts
    best_loss = np.inf
    means = outputs
    for number in range(1, rounds + 1):
        losses = np.array([float(task.loss(mean, target, everywhere)) for mean in means])
        losses[np.isnan(losses)] = np.inf  # nothing is worse than an answer that is no number
        best = int(np.argmin(losses))
        counts = counts + np.eye(len(outputs))[best]

        # Of rounds that are equally good the first counts: it has fewer models.
        if number == 1 or losses[best] < best_loss - 1e-9:
            best_loss = losses[best]
            best_counts = counts

        # A mean of means: mixing all models anew would take longer, the more of them there are.
        weights = torch.tensor([number, 1.0]) / (number + 1)
        means = [task.mix(torch.stack([means[best], output]), weights) for output in outputs]
    return (best_counts / best_counts.sum()).tolist()

"""Weigh the members of an ensemble by greedy selection."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from plait.tasks.base_prediction import Prediction

MIN_WEIGHT = 0.05  # a smaller one becomes zero: such a member takes as long to answer as any other


def bagged(
    outputs: list[Tensor], task: Prediction, target: Tensor, rounds: int, bags: int, seed: int
) -> list[float]:
    """Return the weight of each model: its mean over `bags` greedy selections.

    Each selection is among half of the models (two at least), by rows drawn with replacement; a single one is
    among all models and by all rows. One selection would pick the models that these rows happen to flatter,
    the more so the fewer the rows and the more the models (Caruana et al. 2004, section 2.3, who draw models;
    rows are drawn as by Breiman 1996, "Bagging predictors").
    """
    if bags == 1 or len(outputs) == 1:
        return greedy(outputs, task, target, rounds)
    rng = np.random.default_rng(seed)
    half = max(2, (len(outputs) + 1) // 2)
    total = np.zeros(len(outputs))
    for _ in range(bags):
        drawn = rng.permutation(len(outputs))[:half]
        rows = torch.from_numpy(rng.integers(0, len(target), len(target)))
        drawn_outputs = [outputs[model][rows] for model in drawn]
        total[drawn] += greedy(drawn_outputs, task, target[rows], rounds)

    weights = total / bags
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
    stacked = torch.stack(outputs)
    additions = np.eye(len(outputs))  # one more of each model
    counts = np.zeros(len(outputs))
    best_counts = counts
    best_loss = np.inf
    for _ in range(rounds):
        losses = []
        for addition in additions:
            tried = counts + addition
            is_used = tried > 0
            weights = torch.from_numpy(tried / tried.sum()).float()
            mean = task.mix(stacked[is_used], weights[is_used])
            losses.append(float(task.loss(mean, target, everywhere)))

        best = int(np.argmin(losses))
        counts = counts + additions[best]
        # Of rounds that are equally good the first counts: it has fewer models.
        if losses[best] < best_loss - 1e-9:
            best_loss = losses[best]
            best_counts = counts
    return (best_counts / best_counts.sum()).tolist()

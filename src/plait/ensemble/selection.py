"""What share each member of an ensemble has in the answer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from plait.tasks.base_prediction import Prediction

LEAST = 0.05  # a smaller share is none: such a member takes as long to answer as any other


def bagged(
    outputs: list[Tensor], task: Prediction, y: Tensor, rounds: int, bags: int, seed: int
) -> list[float]:
    """The mean share of each model over `bags` greedy selections, each among half of the models (two at
    least) and by rows drawn with replacement; of one bag, among all and by all. One selection picks the
    models that these rows happen to flatter, the more so the fewer the rows and the more the models
    (Caruana et al. 2004, section 2.3, who draw models; rows are drawn as by Breiman 1996, "Bagging
    predictors").
    """
    if bags == 1 or len(outputs) == 1:
        return greedy(outputs, task, y, rounds)
    draw, total = np.random.default_rng(seed), np.zeros(len(outputs))
    for _ in range(bags):
        some = draw.permutation(len(outputs))[: max(2, (len(outputs) + 1) // 2)]
        rows = torch.from_numpy(draw.integers(0, len(y), len(y)))
        total[some] += greedy([outputs[i][rows] for i in some], task, y[rows], rounds)
    share = total / bags
    share[share < min(LEAST, share.max())] = 0.0
    return (share / share.sum()).tolist()


def greedy(outputs: list[Tensor], task: Prediction, y: Tensor, rounds: int) -> list[float]:
    """The share of each model: one is added, again and again, whichever lowers the loss of the mean
    most, and shares are how often each was (Caruana et al. 2004, "Ensemble selection from libraries of
    models", with replacement).
    """
    everywhere = torch.ones(len(y), dtype=torch.bool)
    stacked = torch.stack(outputs)
    counts = np.zeros(len(outputs))
    best: tuple[float, np.ndarray] = (np.inf, counts)
    for _ in range(rounds):
        tried = []
        for i in range(len(outputs)):
            counts[i] += 1
            share = torch.from_numpy(counts / counts.sum()).float()
            tried.append(float(task.loss(task.mix(stacked[counts > 0], share[counts > 0]), y, everywhere)))
            counts[i] -= 1
        counts[int(np.argmin(tried))] += 1
        if min(tried) < best[0] - 1e-9:
            best = (min(tried), counts.copy())
    return (best[1] / best[1].sum()).tolist()

"""Weigh the members of an ensemble: temperatures, shares, and a stacked linear model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from plait.ensemble.ensemble import Weights, stack_input, stack_output
from plait.members.linear import Space, solve
from plait.tasks.base_prediction import Prediction

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # of a stacked model


def stack(
    result: Weights,
    task: Prediction,
    cooled: dict[str, Tensor],
    y: Tensor,
    labelled: np.ndarray,
    parts: list[np.ndarray],
) -> Tensor:
    """Fits the stacked model on the bags' answers for rows that they had not seen, and returns its own
    such answers: each part by a model of the others. Its strength of regularisation is the one with the
    least loss there.
    """
    x = stack_input(task, list(cooled.values())).numpy().astype(np.float32)
    prior = task.baseline(y[torch.from_numpy(labelled)])

    def fitted(rows: np.ndarray, strength: float) -> tuple[Tensor, Tensor]:
        space = Space([x[rows]])
        zero = torch.zeros(space.width, prior.numel(), dtype=torch.float64)
        weight, bias = solve(space, task, y[torch.from_numpy(rows)], strength, zero, prior.double())
        return space.weights(weight).float(), bias.float()

    everything, kept = np.flatnonzero(labelled), torch.from_numpy(labelled)
    best: tuple[float, float, Tensor] = (np.inf, STRENGTHS[0], torch.zeros(0))
    for strength in STRENGTHS:
        own = torch.zeros(len(x), *prior.shape)
        for part in parts:
            one = fitted(np.setdiff1d(everything, part), strength)
            own[torch.from_numpy(part)] = stack_output(
                task, one, [o[torch.from_numpy(part)] for o in cooled.values()]
            )
        loss = float(task.loss(own[kept], y[kept], torch.ones(int(kept.sum()), dtype=torch.bool)))
        if loss < best[0]:
            best = (loss, strength, own)
    result.stack, result.stacked = fitted(everything, best[1]), list(cooled)
    return best[2]

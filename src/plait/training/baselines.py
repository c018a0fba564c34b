"""What targets are compared with: their baselines on training rows, and the units of their losses."""

from __future__ import annotations

import torch
from torch import Tensor

from plait.balancing.base import Share
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.tasks.base import Task

SCALE_LABELS = 10_000  # labels, at most, that a baseline's loss is computed on
MIN_SCALE = 1e-3  # a nearly constant target would divide by zero


def shares(plan: Plan, data: Dataset) -> dict[str, Share]:
    """Return what each target's loss is weighed by, from its training labels.

    A single target's loss stays as it is.
    """
    tasks = data.preprocessing.tasks
    if len(tasks) == 1:
        ((target, task),) = tasks.items()
        return {target: Share(squared=task.squared)}

    by_target = {}
    for target, task in tasks.items():
        options = plan.tasks[target].options
        weight = float(options.get("weight", 1.0))
        by_target[target] = Share(weight, _baseline_loss(task, data, target), task.squared)
    return by_target


def baselines(data: Dataset) -> dict[str, Tensor]:
    """Return the baseline of each target that has labels, from its training labels.

    The record, scores, and rows without any cell all take it from here.
    """
    by_target = {}
    for target, task in data.preprocessing.tasks.items():
        _, labels = labelled(data, target, data.rows)
        if task.has_target and len(labels):
            by_target[target] = task.baseline(labels)
    return by_target


def _baseline_loss(task: Task, data: Dataset, target: str) -> float:
    """Return the baseline's loss on training labels, evenly spread over the rows; 1 without labels."""
    _, labels = labelled(data, target, data.rows)
    if not len(labels):
        return 1.0
    count = min(len(labels), SCALE_LABELS)
    rows = torch.linspace(0, len(labels) - 1, count).long()
    return max(task.baseline_loss(labels[rows]), MIN_SCALE)


def labelled(data: Dataset, target: str, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs and labels of the rows that have a label."""
    batch = data.prepared.batch
    is_labelled = batch.labelled[target][data.rows]
    labels = batch.targets[target][data.rows]
    return output[is_labelled], labels[is_labelled]

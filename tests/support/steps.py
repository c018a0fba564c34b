"""Take one training step of a tiny network, and look at the gradients that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from plait.balancing.base import Share
from plait.console import Screen
from plait.data.arguments import recipe_from
from plait.data.plan import Plan
from plait.fusion.concat import Concat
from plait.model.column import ColumnEncoder
from plait.model.fused import Fuser, blocks_of
from plait.model.network import MultimodalModel
from plait.nn.batch import Batch
from plait.nn.device import settings
from plait.table.table import Table
from plait.tasks.base import Widths
from plait.training.objective import loss_weights
from plait.training.step import Step
from support.encoders import build_encoder, random_values
from support.tasks import ROWS, fit_task, input_columns

COLUMNS = ("first", "second")

# Other shares in each half, third and eighth of the rows: some have no label, others no cell.
PRESENT = {
    "first": torch.tensor([1, 0, 1, 1, 1, 1, 0, 1]).bool(),
    "second": torch.tensor([1, 1, 1, 0, 0, 0, 1, 1]).bool(),
}
LABELLED = {
    "target": torch.tensor([1, 1, 0, 1, 0, 1, 0, 0]).bool(),
    "other": torch.tensor([1, 0, 0, 0, 1, 1, 0, 1]).bool(),
}


def network_of(tasks: Mapping[str, str], options: dict[str, Any]) -> tuple[MultimodalModel, Batch]:
    """Return a network of these tasks by target, and rows of texts in which labels and cells are missing.

    Encoders give a token for each piece of a text. Nothing is dropped at random.
    """
    columns = COLUMNS
    if all(len(input_columns(name)) == 1 and not _fuses(name) for name in tasks.values()):
        columns = COLUMNS[:1]
    encoders = {}
    for column in columns:
        encoder = build_encoder("lstm", "tokens", {"tokens": "all"})
        encoders[column] = ColumnEncoder(column, encoder, "learned")
    widths = {column: encoder.width for column, encoder in encoders.items()}
    fuser = Fuser(widths, Concat(widths, (16,), 0.0), blocks_of(columns, []), unimodal=True)

    by_target, targets, labelled = {}, {}, {}
    for target, name in tasks.items():
        fitted = fit_task(name, options)
        fitted.task.build(Widths(fuser.width, widths, list(columns), late_fusion=True))
        by_target[target], targets[target] = fitted.task, fitted.target
        labelled[target] = fitted.labelled & LABELLED[target] if fitted.task.has_target else fitted.labelled

    fuses = any(task.fuses for task in by_target.values())
    fusers = {columns: fuser} if fuses else {}
    model = MultimodalModel(list(columns), encoders, None, fusers, by_target)
    present = {column: PRESENT[column] for column in columns}
    values = {column: random_values("tokens", ROWS, seed) for seed, column in enumerate(columns)}
    everywhere = dict.fromkeys(columns, torch.ones(ROWS, dtype=torch.bool))
    return model.eval(), Batch(values, present, everywhere, torch.arange(ROWS), targets, labelled)


def _fuses(name: str) -> bool:
    return fit_task(name).task.fuses


def gradients(
    tasks: Mapping[str, str],
    micro_batch: int,
    options: dict[str, Any] | None = None,
    balancing: str | dict[str, Any] = "equal",
) -> tuple[float, dict[str, Tensor]]:
    """Return the loss of a step in micro-batches of so many rows, and the gradients of all parameters."""
    model, batch = network_of(tasks, options or {})
    cells = pa.table({"first": ["a", "b"] * 10, "second": ["c", "d"] * 10, "target": ["e", "f"] * 10})
    recipe = recipe_from(
        {"split": {"valid": 0}, "training": {"clip": 0.0, "batch_size": ROWS}, "balancing": balancing}
    )
    plan = Plan.make(Table(cells, Path(), "t"), recipe, "target")
    shares = {target: Share(weight, 0.7) for target, weight in zip(tasks, (1.0, 2.0), strict=False)}
    step = Step(model, plan, settings(recipe.training, convolves=False), shares, Screen(quiet=True))
    step.weights = loss_weights(model, 0.7, 1.0)
    step.micro_batch = micro_batch

    by_name: dict[str, Tensor] = {}

    def record(*arguments: Any) -> None:
        parameters = {**dict(model.named_parameters()), **dict(step.balancing.named_parameters())}
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                by_name[name] = parameter.grad.clone()

    step.optimizer.register_step_pre_hook(record)
    loss = step(batch)
    return float(loss), by_name

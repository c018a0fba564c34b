"""A model for each target alone, beside the one for all of them: what sharing gained or cost."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from plait.console import Screen
from plait.data.dataset import Dataset
from plait.data.plan import Plan
from plait.data.prepare import Sides
from plait.data.preprocessing import Preprocessing
from plait.evaluation.bootstrap import bootstrap
from plait.model.network import MultimodalModel
from plait.nn.device import Settings
from plait.prediction.predictor import Predictor
from plait.runs.folder import Record
from plait.training import start
from plait.training.loop import Training, train


def fit(
    plan: Plan, sides: Sides, settings: Settings, folder: Path, screen: Screen
) -> dict[str, dict[str, dict[str, float] | None]]:
    """Train a model for each target alone, on the same cells and with the same seed.

    Return by target its main metric on validation and test rows, with intervals. Targets with fewer than
    two training rows are left out.
    """
    scores_by_target = {}
    joint = sides.preprocessing
    for target in plan.targets:
        task = joint.tasks[target]
        rows = [_labelled(data, target) for data in (sides.train, sides.valid, sides.test)]
        if len(rows[0]) < 2:
            continue
        alone = plan.for_target(target, *rows)
        inputs = {column: joint.inputs[column] for column in alone.columns}
        preprocessing = Preprocessing(inputs, {target: task}, joint.several & set(inputs))
        own_sides = Sides.cut(sides.prepared, preprocessing, alone.split)

        torch.manual_seed(alone.seed)
        model = MultimodalModel.build(alone, preprocessing)
        start.begin(model, own_sides.train)
        screen.say(
            f"{target} alone, to compare with: {len(own_sides.train):,} rows, {alone.training.epochs} epochs"
        )
        with tempfile.TemporaryDirectory(dir=folder) as place:
            train(Training(model, alone, settings, own_sides.train, own_sides.valid, Path(place), screen))
        predictor = Predictor(model.cpu(), preprocessing, settings, alone)
        scores_by_target[target] = {
            "validation": _score(predictor, own_sides.valid),
            "test": _score(predictor, own_sides.test),
        }
    return scores_by_target


def _labelled(data: Dataset, target: str) -> np.ndarray:
    """Return the numbers of the rows that have a label."""
    rows: np.ndarray = data.rows[data.prepared.batch.labelled[target][data.rows]].numpy()
    return rows


def _score(predictor: Predictor, data: Dataset) -> dict[str, float] | None:
    """Return the target's main metric with its interval; None without rows."""
    if not len(data):
        return None
    ((target, task),) = predictor.tasks.items()
    (outputs,) = predictor.outputs(data, [predictor.columns])
    truth = data.prepared.batch.targets[target][data.rows].numpy()
    rows = task.score_rows(outputs[target].numpy(), truth)
    score = bootstrap(rows, {task.score: task.metrics[task.score]}, 1000)[task.score]
    return {"value": score.value, "low": score.low, "high": score.high}


def show(found: Record, record: Record, screen: Screen) -> None:
    """A table of both, for rows of the test, or without them of the validation."""
    rows = []
    for target, sides in found.items():
        side = "test" if sides["test"] else "validation"
        whole = record["evaluation"].get(side, {}).get("targets", {}).get(target)
        if whole and sides[side]:
            both, alone = whole["metrics"][whole["score"]], sides[side]
            interval = f"{alone['low']:.3f} to {alone['high']:.3f}"
            gained = both["value"] - alone["value"]
            rows.append(
                [
                    target,
                    whole["score"],
                    side,
                    f"{both['value']:.3f}",
                    f"{alone['value']:.3f}",
                    interval,
                    f"{gained:+.3f}",
                ]
            )
    if rows:
        headers = ["target", "metric", "rows", "one model ", "alone ", "its interval", "difference "]
        screen.table("\nall targets in one model, against a model for each alone", headers, rows)
